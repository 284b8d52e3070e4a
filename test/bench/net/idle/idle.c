// Holds sockets and does nothing with them, but waiting for all.
//
//   idle serve PORT N      accepts N connections
//   idle connect PORT N    opens N connections
//   idle listen PORT N     listens at N ports from PORT on
//
// It prints "idle" once it has them.
#include "../../../../wasm-examples/csock/sock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what) {
	fprintf(stderr, "idle: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in local(int port) {
	struct sockaddr_in a;
	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_port = htons((uint16_t)port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static int open_socket(void) {
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket");
	return fd;
}

static int open_listener(int port) {
	int fd = open_socket();
	struct sockaddr_in a = local(port);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
		die("bind");
	if (listen(fd, 1024) < 0)
		die("listen");
	return fd;
}

// wait_for_all waits until one of the sockets can be read, which never is.
static void wait_for_all(const int *fds, size_t n) {
	__wasi_subscription_t *in = calloc(n + 1, sizeof *in);
	__wasi_event_t *out = calloc(n + 1, sizeof *out);
	if (!in || !out)
		die("calloc");
	for (size_t i = 0; i < n; i++) {
		in[i].u.tag = __WASI_EVENTTYPE_FD_READ;
		in[i].u.u.fd_read.file_descriptor = (__wasi_fd_t)fds[i];
	}
	in[n].u.tag = __WASI_EVENTTYPE_CLOCK;
	in[n].u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
	in[n].u.u.clock.timeout = 600000000000;
	__wasi_size_t fired;
	if (__wasi_poll_oneoff(in, out, n + 1, &fired) != 0)
		die("poll_oneoff");
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	int port = atoi(argv[2]);
	size_t n = (size_t)atoi(argv[3]);
	int *fds = calloc(n + 1, sizeof *fds);
	if (!fds)
		die("calloc");
	if (!strcmp(argv[1], "serve")) {
		fds[n] = open_listener(port);
		for (size_t i = 0; i < n; i++)
			if ((fds[i] = accept(fds[n], NULL, NULL)) < 0)
				die("accept");
	} else if (!strcmp(argv[1], "connect")) {
		struct sockaddr_in a = local(port);
		fds[n] = open_listener(port + 1);
		for (size_t i = 0; i < n; i++)
			for (fds[i] = open_socket(); connect(fds[i], (struct sockaddr *)&a, sizeof a) < 0; fds[i] = open_socket()) {
				if (errno != ECONNREFUSED)
					die("connect");
				close(fds[i]);
			}
	} else {
		fds[n] = open_listener(port - 1);
		for (size_t i = 0; i < n; i++)
			fds[i] = open_listener(port + (int)i);
	}
	puts("idle");
	fflush(stdout);
	wait_for_all(fds, n + 1);
	return 1;
}
