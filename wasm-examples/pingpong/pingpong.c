// What a network costs, as a program sees it: round trips of small messages,
// bytes in bulk, connections. The same source is a native program and a guest.
//
//   pingpong serve PORT
//   pingpong measure PORT SECONDS
//
// The client waits until the server is there, spends SECONDS on each kind, prints
// how much it did in a second, one line each, and ends the server.
#include "../csock/sock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIZE (1 << 20)

static char buf[MAX_SIZE];

static void die(const char *what) {
	fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_all(int fd, const char *p, size_t n) {
	while (n > 0) {
		ssize_t k = send(fd, p, n, 0);
		if (k < 0)
			die("send");
		p += k;
		n -= (size_t)k;
	}
}

// read_all returns 0 at the end of the stream, and 1 if all of n was read.
static int read_all(int fd, char *p, size_t n) {
	while (n > 0) {
		ssize_t k = recv(fd, p, n, 0);
		if (k < 0)
			die("recv");
		if (k == 0)
			return 0;
		p += k;
		n -= (size_t)k;
	}
	return 1;
}

static struct sockaddr_in local(const char *port) {
	struct sockaddr_in a;
	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_port = htons((uint16_t)atoi(port));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static void nodelay(int fd) {
	int one = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
		die("TCP_NODELAY");
}

// A connection begins with what it is for: an operation and its size.
struct request {
	char op;
	char pad[3];
	uint32_t size;
};

static int dial(const char *port) {
	struct sockaddr_in to = local(port);
	for (int tries = 0;; tries++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			die("socket");
		if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
			nodelay(fd);
			return fd;
		}
		if (errno != ECONNREFUSED || tries == 500)
			die("connect");
		close(fd);
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

static int request(const char *port, char op, uint32_t size) {
	struct request r = {.op = op, .size = size};
	int fd = dial(port);
	write_all(fd, (char *)&r, sizeof r);
	return fd;
}

static void serve(const char *port) {
	struct sockaddr_in at = local(port);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0)
		die("socket");
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
		die("SO_REUSEADDR");
	if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0)
		die("bind");
	if (listen(listener, 128) < 0)
		die("listen");
	for (int stop = 0; !stop;) {
		struct request r;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			die("accept");
		nodelay(fd);
		if (read_all(fd, (char *)&r, sizeof r)) {
			switch (r.op) {
			case 'p':
				while (read_all(fd, buf, r.size % (MAX_SIZE + 1)))
					write_all(fd, buf, r.size % (MAX_SIZE + 1));
				break;
			case 'b': {
				uint64_t got = 0;
				ssize_t k;
				while ((k = recv(fd, buf, sizeof buf, 0)) > 0)
					got += (uint64_t)k;
				write_all(fd, (char *)&got, sizeof got);
				break;
			}
			case 's':
				stop = 1;
			}
		}
		close(fd);
	}
}

// long_enough says whether it is time to stop; it looks at the clock only now
// and then, since that costs as much as a small message.
static int long_enough(uint64_t i, double end) {
	return (i & 63) == 0 && now() >= end;
}

static void ping(const char *port, double seconds, uint32_t size) {
	int fd = request(port, 'p', size);
	for (int i = 0; i < 1000; i++) { // warm up
		write_all(fd, buf, size);
		read_all(fd, buf, size);
	}
	double begin = now();
	uint64_t n = 0;
	while (!long_enough(++n, begin + seconds)) {
		write_all(fd, buf, size);
		if (!read_all(fd, buf, size))
			die("the server has gone");
	}
	printf("ping %" PRIu32 " %.0f\n", size, (double)n / (now() - begin));
	close(fd);
}

static void bulk(const char *port, double seconds, size_t chunk) {
	int fd = request(port, 'b', 0);
	double begin = now();
	uint64_t n = 0;
	while (!long_enough(++n, begin + seconds))
		write_all(fd, buf, chunk);
	shutdown(fd, SHUT_WR);
	uint64_t got = 0;
	if (!read_all(fd, (char *)&got, sizeof got) || got != (n - 1) * chunk)
		die("the server has not got everything");
	printf("bulk %zu %.0f\n", chunk, (double)got / (now() - begin));
	close(fd);
}

static void connections(const char *port, double seconds) {
	double begin = now();
	uint64_t n = 0;
	while (!long_enough(++n, begin + seconds)) {
		int fd = request(port, 'c', 0);
		char end;
		if (recv(fd, &end, 1, 0) != 0)
			die("the server did not close");
		close(fd);
	}
	printf("connect 1 %.0f\n", (double)n / (now() - begin));
}

int main(int argc, char **argv) {
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(argv[2]);
		return 0;
	}
	double seconds = argc == 4 && !strcmp(argv[1], "measure") ? atof(argv[3]) : 0;
	if (seconds <= 0) {
		fputs("usage: pingpong serve PORT | measure PORT SECONDS\n", stderr);
		return 2;
	}
	ping(argv[2], seconds, 64);
	ping(argv[2], seconds, 4096);
	bulk(argv[2], seconds, 65536);
	bulk(argv[2], seconds, 1024);
	connections(argv[2], seconds);
	close(request(argv[2], 's', 0));
	return 0;
}
