-- After SQLite's speedtest1: inserts, indexes, joins, sorts, updates, text.
PRAGMA journal_mode = OFF;
CREATE TABLE z1(a INTEGER, b INTEGER, c TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO z1 SELECT i * 7919 % 20011, i, 'number ' || (i * 7919 % 20011) FROM n;
CREATE TABLE z2(a INTEGER PRIMARY KEY, b INTEGER, c TEXT);
INSERT INTO z2 SELECT b, a, c FROM z1;
SELECT count(*), sum(b) FROM z1 WHERE c LIKE '%99%';
CREATE INDEX z1a ON z1(a);
CREATE INDEX z1c ON z1(c);
SELECT count(*), avg(b) FROM z1 WHERE a BETWEEN 1000 AND 9000;
SELECT sum(z1.a + z2.b) FROM z1 JOIN z2 ON z1.a = z2.a;
SELECT c FROM z1 ORDER BY c DESC, a LIMIT 3;
UPDATE z1 SET b = b * 2 WHERE a % 3 = 0;
DELETE FROM z2 WHERE a % 5 = 0;
SELECT length(group_concat(c, ',')), count(DISTINCT substr(c, 8, 2)) FROM z1;
SELECT a % 100 AS g, count(*), max(length(c)) FROM z1 GROUP BY g HAVING g < 3 ORDER BY 2;
WITH RECURSIVE x(a, b) AS (SELECT 1, 1 UNION ALL SELECT a + 1, (b * 1103515245 + 12345) % 2147483648 FROM x WHERE a < 50000)
SELECT sum(b) % 1000003 FROM x;
