/* Tight loops, the worst case for whatever counts them. Usage: tight NAME. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As CoreMark does: a list, a matrix of integers and a state machine. */
struct node {
	struct node *next;
	int16_t data, index;
};

static uint16_t crc16(uint16_t v, uint16_t crc) {
	for (int i = 0; i < 16; i++) {
		int bit = (crc ^ v) & 1;
		v >>= 1;
		crc >>= 1;
		if (bit) crc ^= 0xa001;
	}
	return crc;
}

static struct node *reverse(struct node *list) {
	struct node *out = NULL;
	while (list) {
		struct node *next = list->next;
		list->next = out;
		out = list;
		list = next;
	}
	return out;
}

static struct node *find(struct node *list, int16_t data) {
	while (list && list->data != data) list = list->next;
	return list;
}

static int number(const char *s) {
	enum { START, INT, FRACTION, EXPONENT, BAD } state = START;
	int counts[5] = {0};
	for (; *s; s++) {
		switch (state) {
		case START:
			state = *s >= '0' && *s <= '9' || *s == '+' || *s == '-' ? INT : *s == '.' ? FRACTION : *s == ',' ? START : BAD;
			break;
		case INT:
			state = *s >= '0' && *s <= '9' ? INT : *s == '.' ? FRACTION : *s == ',' ? START : BAD;
			break;
		case FRACTION:
			state = *s >= '0' && *s <= '9' ? FRACTION : *s == 'e' ? EXPONENT : *s == ',' ? START : BAD;
			break;
		case EXPONENT:
			state = *s >= '0' && *s <= '9' || *s == '-' ? EXPONENT : *s == ',' ? START : BAD;
			break;
		case BAD:
			if (*s == ',') state = START;
		}
		counts[state]++;
	}
	return counts[0] + 3 * counts[1] + 5 * counts[2] + 7 * counts[3] + 11 * counts[4];
}

static uint32_t coremark(void) {
	enum { N = 12, NODES = 200 };
	static struct node nodes[NODES];
	static int16_t a[N][N], b[N][N];
	static int32_t c[N][N];
	uint16_t crc = 0;
	struct node *list = NULL;
	for (int i = 0; i < NODES; i++) {
		nodes[i] = (struct node){list, i * 37 % 256, i};
		list = &nodes[i];
	}
	for (int r = 0; r < 4000; r++) {
		for (int i = 0; i < 16; i++) {
			struct node *n = find(list, (r + i * 19) % 300);
			crc = crc16(n ? n->index : -1, crc);
			list = reverse(list);
		}
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) a[i][j] = i * j + r, b[i][j] = i - j + crc;
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				int32_t s = 0;
				for (int k = 0; k < N; k++) s += (int32_t)a[i][k] * b[k][j];
				c[i][j] = s;
			}
		crc = crc16(c[r % N][3], crc);
		crc = crc16(number("5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e3,-.123e-2,T0.3e-1F,-T.T++Tq,1T3.4e4z"), crc);
	}
	return crc;
}

static uint32_t crc(void) {
	static uint8_t buf[1 << 16];
	uint32_t c = ~0u;
	for (size_t i = 0; i < sizeof buf; i++) buf[i] = i * 7;
	for (int r = 0; r < 100; r++)
		for (size_t i = 0; i < sizeof buf; i++) {
			c ^= buf[i];
			for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
		}
	return c;
}

static uint32_t sieve(void) {
	enum { N = 1 << 18 };
	static uint8_t composite[N];
	uint32_t n = 0;
	for (int r = 0; r < 60; r++) {
		memset(composite, 0, N);
		for (int i = 2; i < N; i++)
			if (!composite[i]) {
				n++;
				for (int j = 2 * i; j < N; j += i) composite[j] = 1;
			}
	}
	return n;
}

static uint32_t fib(uint32_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static uint32_t matmul(void) {
	enum { N = 128 };
	static double a[N][N], b[N][N], c[N][N];
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) a[i][j] = i + j, b[i][j] = i - j;
	for (int r = 0; r < 30; r++)
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				double s = 0;
				for (int k = 0; k < N; k++) s += a[i][k] * b[k][j];
				c[i][j] = s + r;
			}
	return (uint32_t)(int64_t)(c[3][5] + c[90][17]);
}

static int compare(const void *x, const void *y) {
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
	return a < b ? -1 : a > b;
}

static uint32_t sort(void) {
	enum { N = 1 << 14 };
	static uint32_t v[N];
	uint32_t seed = 1;
	for (int r = 0; r < 20; r++) {
		for (int i = 0; i < N; i++) v[i] = seed = seed * 1664525 + 1013904223;
		qsort(v, N, sizeof v[0], compare);
	}
	return v[17];
}

int main(int argc, char **argv) {
	const char *only = argc > 1 ? argv[1] : "";
#define RUN(name, call) \
	if (!strcmp(only, name)) return printf("%s %u\n", name, (unsigned)(call)) < 0
	RUN("coremark", coremark());
	RUN("crc", crc());
	RUN("sieve", sieve());
	RUN("matmul", matmul());
	RUN("qsort", sort());
	RUN("fib", fib(32));
	fprintf(stderr, "unknown program %s\n", only);
	return 2;
}
