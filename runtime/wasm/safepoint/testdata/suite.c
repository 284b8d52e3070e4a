/* Small programs that spend their time in different ways; the argument scales
 * them. Each prints a checksum. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t crc(int scale) {
	static uint8_t buf[1 << 16];
	uint32_t c = ~0u;
	for (size_t i = 0; i < sizeof buf; i++) buf[i] = i * 7;
	for (int r = 0; r < scale; r++)
		for (size_t i = 0; i < sizeof buf; i++) {
			c ^= buf[i];
			for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
		}
	return c;
}

static uint32_t sieve(int scale) {
	enum { N = 1 << 18 };
	static uint8_t composite[N];
	uint32_t n = 0;
	for (int r = 0; r < scale; r++) {
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

static uint32_t matmul(int scale) {
	enum { N = 96 };
	static double a[N][N], b[N][N], c[N][N];
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) a[i][j] = i + j, b[i][j] = i - j;
	for (int r = 0; r < scale; r++)
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

static uint32_t sort(int scale) {
	enum { N = 1 << 14 };
	static uint32_t v[N];
	uint32_t seed = 1;
	for (int r = 0; r < scale; r++) {
		for (int i = 0; i < N; i++) v[i] = seed = seed * 1664525 + 1013904223;
		qsort(v, N, sizeof v[0], compare);
	}
	return v[17];
}

static uint32_t alloc(int scale) {
	uint32_t sum = 0;
	for (int r = 0; r < scale; r++) {
		char *p[64];
		for (int i = 0; i < 64; i++) {
			p[i] = malloc(100 + 517 * i);
			memset(p[i], i, 100 + 517 * i);
		}
		for (int i = 0; i < 64; i++) {
			sum += p[i][50];
			free(p[i]);
		}
	}
	return sum;
}

/* Branches that cannot be predicted from one another, as in an interpreter. */
static uint32_t vm(int scale) {
	static const uint8_t code[] = {0, 3, 1, 5, 2, 4, 0, 1, 3, 2, 5, 4, 0, 2, 6};
	uint32_t acc = 1, x = 2;
	for (int r = 0; r < scale; r++)
		for (uint32_t n = 0; n < 20000; n++)
			for (const uint8_t *pc = code;; pc++) {
				switch (*pc) {
				case 0: acc += x; continue;
				case 1: x ^= acc; continue;
				case 2: acc *= 31; continue;
				case 3: x += n; continue;
				case 4: acc = acc >> 3 | acc << 29; continue;
				case 5: x -= 7; continue;
				}
				break;
			}
	return acc ^ x;
}

int main(int argc, char **argv) {
	int scale = argc > 1 ? atoi(argv[1]) : 1;
	const char *only = argc > 2 ? argv[2] : NULL;
#define RUN(name, call)                                              \
	if (!only || !strcmp(only, name)) printf("%s %u\n", name, (unsigned)(call))
	RUN("crc", crc(scale));
	RUN("sieve", sieve(scale));
	RUN("fib", fib(20 + scale));
	RUN("matmul", matmul(scale));
	RUN("qsort", sort(scale));
	RUN("malloc", alloc(scale));
	RUN("vm", vm(scale));
	return scale;
}
