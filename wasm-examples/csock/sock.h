// POSIX sockets for guests in C: a thin cover over the host's socket calls
// (WasmEdge's second version; see docs/abi.md), enough for IPv4 and IPv6 servers
// and clients. Include it in the place of <sys/socket.h>, <netinet/in.h> and
// <netinet/tcp.h>; elsewhere it is just those.
#ifndef CSOCK_SOCK_H
#define CSOCK_SOCK_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#ifdef __wasi__
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <wasi/api.h>

// The C library's headers leave these out. The numbers are the host's.
enum { SO_REUSEADDR = 0, SO_ERROR = 2, SO_BROADCAST = 4, SO_SNDBUF = 5, SO_RCVBUF = 6, SO_REUSEPORT = 15 };

typedef struct {
	uint8_t *buf;
	uint32_t len;
} csock_address;

#define CSOCK_IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

int32_t csock_open(int32_t family, int32_t type, int32_t *fd) CSOCK_IMPORT("sock_open");
int32_t csock_bind(int32_t fd, csock_address *addr, int32_t port) CSOCK_IMPORT("sock_bind");
int32_t csock_listen(int32_t fd, int32_t backlog) CSOCK_IMPORT("sock_listen");
int32_t csock_connect(int32_t fd, csock_address *addr, int32_t port) CSOCK_IMPORT("sock_connect");
int32_t csock_getlocaladdr(int32_t fd, csock_address *addr, int32_t *port) CSOCK_IMPORT("sock_getlocaladdr");
int32_t csock_getpeeraddr(int32_t fd, csock_address *addr, int32_t *port) CSOCK_IMPORT("sock_getpeeraddr");
int32_t csock_setsockopt(int32_t fd, int32_t level, int32_t name, const void *value, int32_t len) CSOCK_IMPORT("sock_setsockopt");

enum { CSOCK_INET4 = 1, CSOCK_INET6 = 2, CSOCK_DGRAM = 1, CSOCK_STREAM = 2 };

static inline int csock_result(int32_t err) {
	if (err == 0)
		return 0;
	errno = err;
	return -1;
}

// An address is 128 bytes: the family, then the address; the port goes apart.
static inline int csock_from(const struct sockaddr *sa, socklen_t len, uint8_t raw[128], int32_t *port) {
	memset(raw, 0, 128);
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
		raw[0] = CSOCK_INET4;
		memcpy(raw + 2, &in->sin_addr, 4);
		*port = ntohs(in->sin_port);
		return 0;
	}
	if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
		raw[0] = CSOCK_INET6;
		memcpy(raw + 2, &in->sin6_addr, 16);
		*port = ntohs(in->sin6_port);
		return 0;
	}
	errno = EAFNOSUPPORT;
	return -1;
}

static inline int socket(int family, int type, int protocol) {
	int32_t fd = -1;
	(void)protocol;
	if (csock_result(csock_open(family == AF_INET6 ? CSOCK_INET6 : CSOCK_INET4,
	                            type == SOCK_DGRAM ? CSOCK_DGRAM : CSOCK_STREAM, &fd)) < 0)
		return -1;
	return fd;
}

static inline int bind(int fd, const struct sockaddr *sa, socklen_t len) {
	uint8_t raw[128];
	csock_address addr = {raw, sizeof raw};
	int32_t port = 0;
	return csock_from(sa, len, raw, &port) < 0 ? -1 : csock_result(csock_bind(fd, &addr, port));
}

static inline int connect(int fd, const struct sockaddr *sa, socklen_t len) {
	uint8_t raw[128];
	csock_address addr = {raw, sizeof raw};
	int32_t port = 0;
	return csock_from(sa, len, raw, &port) < 0 ? -1 : csock_result(csock_connect(fd, &addr, port));
}

static inline int listen(int fd, int backlog) { return csock_result(csock_listen(fd, backlog)); }

static inline int setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
	return csock_result(csock_setsockopt(fd, level == SOL_SOCKET ? 0 : level, name, value, (int32_t)len));
}


#endif
#endif
