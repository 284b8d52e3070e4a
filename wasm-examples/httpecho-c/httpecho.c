// An HTTP server that sends back what it is sent, and a client for it, in C with
// POSIX sockets (../csock/sock.h):
//
//   httpecho serve PORT
//   httpecho send PORT TEXT...       one connection, one request for each TEXT
//
// The server has one thread and waits with poll, so that a slow client holds up
// nobody. Requests have a Content-Length or no body, and are at most 64 KiB.
#include "../csock/sock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 256, ROOM = 64 << 10 };

static void die(const char *what) {
	fprintf(stderr, "httpecho: %s: %s\n", what, strerror(errno));
	exit(1);
}

// A client sends a request into buf, and then buf holds the answer.
struct client {
	char *buf;
	size_t have; // of the request
	size_t size, sent; // of the answer; 0 while there is none
	int close; // after the answer
};

static struct client clients[MAX_CLIENTS];
static struct pollfd fds[MAX_CLIENTS + 1]; // the listener last
static int count;

// head_end returns how long the head of a request is, 0 if it is not complete.
static size_t head_end(const char *buf, size_t n) {
	for (size_t i = 0; i + 4 <= n; i++)
		if (!memcmp(buf + i, "\r\n\r\n", 4))
			return i + 4;
	return 0;
}

// header finds a header's value in a head that ends with a NUL.
static const char *header(const char *head, const char *name) {
	size_t n = strlen(name);
	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (!strncasecmp(line, name, n) && line[n] == ':') {
			for (line += n + 1; *line == ' ' || *line == '\t'; line++)
				;
			return line;
		}
	}
	return NULL;
}

static void answer(struct client *c, const char *status, const char *body, size_t n, int close) {
	char *out = malloc(n + 256);
	if (!out)
		die("malloc");
	int head = snprintf(out, 256, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n", status, n,
	                    close ? "close" : "keep-alive");
	memcpy(out + head, body, n);
	free(c->buf);
	c->buf = out;
	c->size = (size_t)head + n;
	c->sent = 0;
	c->close = close;
}

static void refuse(struct client *c, const char *status) { answer(c, status, "", 0, 1); }

// consider makes the answer once the request is complete.
static void consider(struct client *c) {
	size_t head = head_end(c->buf, c->have);
	if (head == 0) {
		if (c->have == ROOM)
			refuse(c, "431 Request Header Fields Too Large");
		return;
	}
	char keep = c->buf[head - 1];
	c->buf[head - 1] = 0;
	const char *length = header(c->buf, "Content-Length"), *connection = header(c->buf, "Connection");
	int chunked = header(c->buf, "Transfer-Encoding") != NULL;
	int close = strstr(c->buf, " HTTP/1.1\r\n") == NULL || (connection && !strncasecmp(connection, "close", 5));
	char *end = NULL;
	unsigned long body = length ? strtoul(length, &end, 10) : 0;
	int bad = length && (!isdigit((unsigned char)*length) || *end != '\r');
	c->buf[head - 1] = keep;
	if (chunked)
		refuse(c, "411 Length Required");
	else if (bad)
		refuse(c, "400 Bad Request");
	else if (body > ROOM - head)
		refuse(c, "413 Content Too Large");
	else if (c->have >= head + body)
		answer(c, "200 OK", c->buf + head, body, close || c->have > head + body); // no pipelining
}

static void drop(int i) {
	close(fds[i].fd);
	free(clients[i].buf);
	fds[MAX_CLIENTS].events = POLLIN; // there is room again
	count--;
	clients[i] = clients[count];
	fds[i] = fds[count];
}

// serve_client does what can be done without waiting; 0: the client is gone.
static int serve_client(int i) {
	struct client *c = &clients[i];
	ssize_t n;
	if (c->size == 0) {
		n = recv(fds[i].fd, c->buf + c->have, ROOM - c->have, 0);
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		c->have += (size_t)n;
		consider(c);
	}
	while (c->sent < c->size) {
		n = send(fds[i].fd, c->buf + c->sent, c->size - c->sent, 0);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return 0;
		c->sent += (size_t)n;
	}
	if (c->size > 0 && c->sent == c->size) {
		if (c->close)
			return 0;
		free(c->buf);
		*c = (struct client){.buf = malloc(ROOM)};
		if (!c->buf)
			die("malloc");
	}
	fds[i].events = c->size ? POLLOUT : POLLIN;
	return 1;
}

static void serve(const char *port) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0)
		die("socket");
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
		die("SO_REUSEADDR");
	if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0)
		die("bind");
	if (listen(listener, 128) < 0)
		die("listen");
	fds[MAX_CLIENTS] = (struct pollfd){.fd = listener, .events = POLLIN};
	printf("listening on port %s\n", port);
	fflush(stdout);
	for (;;) {
		fds[count] = fds[MAX_CLIENTS]; // poll wants them side by side
		if (poll(fds, (nfds_t)count + (count < MAX_CLIENTS), -1) < 0 && errno != EINTR)
			die("poll");
		int incoming = count < MAX_CLIENTS && fds[count].revents;
		for (int i = count - 1; i >= 0; i--)
			if (fds[i].revents && !serve_client(i))
				drop(i);
		if (!incoming)
			continue;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue; // it has gone again, or there are too many descriptors
		if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
			die("O_NONBLOCK");
		clients[count] = (struct client){.buf = malloc(ROOM)};
		if (!clients[count].buf)
			die("malloc");
		fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
}

static int dial(const char *port) {
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (int tries = 0;; tries++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			die("socket");
		if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
			return fd;
		if (errno != ECONNREFUSED || tries == 500)
			die("connect");
		close(fd); // the server is not there yet
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

static int send_texts(const char *port, char **texts) {
	static char buf[ROOM + 1];
	int fd = dial(port), differ = 0;
	for (; *texts; texts++) {
		size_t have = 0, head = 0, n = strlen(*texts);
		if (n > ROOM / 2) {
			fputs("httpecho: a text is too long\n", stderr);
			return 2;
		}
		int size = snprintf(buf, ROOM, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", n, *texts);
		for (int sent = 0; sent < size;) {
			ssize_t k = send(fd, buf + sent, (size_t)(size - sent), 0);
			if (k < 0)
				die("send");
			sent += (int)k;
		}
		while (head == 0 || have < head + n) {
			ssize_t k = recv(fd, buf + have, ROOM - have, 0);
			if (k < 0)
				die("recv");
			if (k == 0) {
				fputs("httpecho: the server has closed the connection\n", stderr);
				return 1;
			}
			have += (size_t)k;
			buf[have] = 0;
			head = head_end(buf, have);
		}
		printf("%s\n", buf + head);
		differ |= strncmp(buf, "HTTP/1.1 200 ", 13) != 0 || strcmp(buf + head, *texts) != 0;
	}
	return differ;
}

int main(int argc, char **argv) {
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	if (argc > 3 && !strcmp(argv[1], "send"))
		return send_texts(argv[2], argv + 3);
	fputs("usage: httpecho serve PORT | send PORT TEXT...\n", stderr);
	return 2;
}
