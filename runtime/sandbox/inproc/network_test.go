package inproc

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// echoServer and echoClient use WasmEdge's version 1 and version 2.
const echoDeclarations = `
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))
typedef struct { const void *buf; uint32_t len; } address;
int32_t sock_open(int32_t family, int32_t type, int32_t *fd) IMPORT("sock_open");
int32_t sock_bind(int32_t fd, address *addr, int32_t port) IMPORT("sock_bind");
int32_t sock_listen(int32_t fd, int32_t backlog) IMPORT("sock_listen");
int32_t sock_connect(int32_t fd, address *addr, int32_t port) IMPORT("sock_connect");
int32_t sock_accept_v1(int32_t fd, int32_t *new) IMPORT("sock_accept");
int32_t sock_getpeeraddr_v2(int32_t fd, address *addr, int32_t *port) IMPORT("sock_getpeeraddr");
int32_t sock_getlocaladdr_v1(int32_t fd, address *addr, int32_t *type, int32_t *port) IMPORT("sock_getlocaladdr");
#define CHECK(x) do { int32_t e = (x); if (e) { printf("line %d: %s: errno %d\n", __LINE__, #x, e); return 1; } } while (0)
`

const echoServer = echoDeclarations + `
int main(int argc, char **argv) {
	uint8_t any[4] = {0};
	address addr = {any, 4};
	int32_t fd, c, type, port;
	CHECK(sock_open(1, 2, &fd));
	CHECK(sock_bind(fd, &addr, 8080));
	CHECK(sock_listen(fd, 16));
	CHECK(sock_getlocaladdr_v1(fd, &addr, &type, &port));
	printf("listening %d %d\n", type, port);
	fflush(stdout);
	CHECK(sock_accept_v1(fd, &c));
	char buf[64];
	ssize_t n;
	while ((n = read(c, buf, sizeof buf)) > 0)
		if (write(c, buf, n) != n) return 2;
	return n < 0 ? 3 : 0;
}
`

const echoClient = echoDeclarations + `
int main(int argc, char **argv) {
	uint8_t ip[4] = {127, 0, 0, 1}, storage[128];
	address addr = {ip, 4}, out = {storage, sizeof storage};
	int32_t fd, port;
	CHECK(sock_open(1, 2, &fd));
	while (sock_connect(fd, &addr, 8080)) {
		close(fd);
		CHECK(sock_open(1, 2, &fd));
	}
	CHECK(sock_getpeeraddr_v2(fd, &out, &port));
	printf("peer %d %d.%d.%d.%d:%d\n", storage[0], storage[2], storage[3], storage[4], storage[5], port);
	char buf[64];
	for (int i = 0; i < 1000; i++) {
		memset(buf, i, sizeof buf);
		if (write(fd, buf, sizeof buf) != sizeof buf) return 2;
		for (size_t n = 0; n < sizeof buf;) {
			ssize_t k = read(fd, buf + n, sizeof buf - n);
			if (k <= 0) return 3;
			n += k;
		}
		if (buf[63] != (char)i) return 4;
	}
	printf("echoed\n");
	return 0;
}
`

// startNamed starts a module as a container of its own in a pod's sandbox.
func (n *node) startNamed(t testing.TB, s sandbox.Sandbox, pod *corev1.Pod, name, module string, args ...string) sandbox.Container {
	t.Helper()
	c := pod.Spec.Containers[0]
	c.Name, c.Image, c.Args = name, module, args
	img, err := n.images.Resolve(t.Context(), c.Image, c.ImagePullPolicy)
	if err != nil {
		t.Fatal(err)
	}
	config, err := container.NewConfig(pod, &c, container.Inputs{Image: img.Config, ImageRef: img.Ref, ImageID: img.ID, Module: img.Module, PodIP: s.IP()})
	if err != nil {
		t.Fatal(err)
	}
	running, err := s.Create(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return running
}

// Containers of one pod meet on its localhost, whichever version of the socket
// calls they use.
func TestTwoContainersOnLocalhost(t *testing.T) {
	n := sharedNode(t)
	server, client := wasmtest.BuildC(t, echoServer), wasmtest.BuildC(t, echoClient)
	pod := n.pod(t, nil)
	s := n.sandbox(t, pod)
	a := n.startNamed(t, s, pod, "server", server)
	b := n.startNamed(t, s, pod, "client", client)
	<-b.Done()
	<-a.Done()
	out := n.output()
	if a.Status().Code != 0 || b.Status().Code != 0 || !strings.Contains(out, "listening 4 8080\n") ||
		!strings.Contains(out, "peer 1 127.0.0.1:8080\n") || !strings.Contains(out, "echoed\n") {
		t.Errorf("server %+v, client %+v, output:\n%s", a.Status(), b.Status(), out)
	}
}

// A guest that waits for a connection can be killed.
func TestKillInAccept(t *testing.T) {
	n := sharedNode(t)
	pod := n.pod(t, nil)
	s := n.sandbox(t, pod)
	c := n.startNamed(t, s, pod, "server", wasmtest.BuildC(t, echoServer))
	for !strings.Contains(n.output(), "listening") {
		runtime.Gosched()
	}
	c.Kill()
	<-c.Done()
	if got := c.Status().Code; got != 137 {
		t.Errorf("exit code %d", got)
	}
}

const signalReader = `
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#define IMPORT(name) __attribute__((import_module("wasmpod"), import_name(name)))
int32_t signal_open(uint64_t mask, int32_t *fd) IMPORT("signal_open");
int32_t hostname_get(char *buf, uint32_t len, uint32_t *size) IMPORT("hostname_get");
int32_t ids_get(uint32_t *ids) IMPORT("ids_get");
int main(void) {
	int32_t fd;
	char name[65];
	uint32_t size, ids[4], signal = 0;
	if (signal_open(1 << 14, &fd) || hostname_get(name, sizeof name, &size) || ids_get(ids)) return 1;
	printf("%.*s %u:%u\n", (int)size, name, ids[0], ids[1]);
	fflush(stdout);
	if (read(fd, &signal, sizeof signal) != sizeof signal) return 2;
	return signal;
}
`

// DEL-08: SIGTERM goes to who reads signals, and does not end that guest.
func TestSignalDescriptor(t *testing.T) {
	n := sharedNode(t)
	n.module = wasmtest.BuildC(t, signalReader)
	pod := n.pod(t, func(s *corev1.PodSpec) {
		uid, gid := int64(1001), int64(2002)
		s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid, RunAsGroup: &gid}
	})
	c := n.start(t, n.sandbox(t, pod), pod)
	for n.output() == "" {
		runtime.Gosched()
	}
	c.Signal(15)
	<-c.Done()
	if got, want := n.output(), "pod 1001:2002\n"; c.Status().Code != 15 || got != want {
		t.Errorf("%+v, output %q, want code 15 and %q", c.Status(), got, want)
	}
}

// BenchmarkPingPong prints what two guests of one pod reach: the program of
// wasm-examples for a second each.
func BenchmarkPingPong(b *testing.B) {
	engine, err := newEngine()
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close(b.Context())
	n := newNode(b, engine)
	dir, err := filepath.Abs("../../../wasm-examples/pingpong")
	if err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pingpong.c"))
	if err != nil {
		b.Fatal(err)
	}
	source := wasmtest.BuildC(b, string(text), "-O2", "-D_GNU_SOURCE", "-I"+dir)
	pod := n.pod(b, nil)
	s := n.sandbox(b, pod)
	server := n.startNamed(b, s, pod, "server", source, "serve", "7000")
	client := n.startNamed(b, s, pod, "client", source, "measure", "7000", "1")
	<-client.Done()
	<-server.Done()
	b.Log("\n" + n.output())
}
