package inproc

import (
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// idleClient talks to echoServer with long pauses, in which both are put aside.
const idleClient = echoDeclarations + `
int main(int argc, char **argv) {
	uint8_t ip[4] = {127, 0, 0, 1};
	address addr = {ip, 4};
	int32_t fd;
	CHECK(sock_open(1, 2, &fd));
	sleep(10);
	CHECK(sock_connect(fd, &addr, 8080));
	for (int i = 1; i <= 5; i++) {
		char buf[64];
		sleep(7);
		int n = snprintf(buf, sizeof buf, "round %d", i);
		if (write(fd, buf, n) != n) return 2;
		memset(buf, 0, sizeof buf);
		if (read(fd, buf, sizeof buf) != n) return 3;
		printf("%s\n", buf);
	}
	return 0;
}
`

// Guests that sleep in accept, read and poll_oneoff lose nothing by being put
// aside, and sleep no longer than they have asked for.
func TestIdleGuests(t *testing.T) {
	server, client := wasmtest.BuildC(t, echoServer), wasmtest.BuildC(t, idleClient) // outside: it runs processes
	synctest.Test(t, func(t *testing.T) {
		engine, err := newEngine()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { engine.Close(context.Background()) })
		n := newNode(t, engine)
		pod := n.pod(t, nil)
		s := n.sandbox(t, pod)
		began := time.Now()
		a := n.startNamed(t, s, pod, "server", server)
		b := n.startNamed(t, s, pod, "client", client)
		<-b.Done()
		<-a.Done()
		if took := time.Since(began); took != 45*time.Second {
			t.Errorf("took %v, want 45s", took)
		}
		out := n.output()
		for _, line := range []string{"round 1\n", "round 5\n"} {
			if !strings.Contains(out, line) {
				t.Errorf("no %q in\n%s", line, out)
			}
		}
		if a.Status().Code != 0 || b.Status().Code != 0 {
			t.Errorf("server %+v, client %+v", a.Status(), b.Status())
		}
	})
}

// idleReader sleeps in calls that are not poll_oneoff: in a receive with a timeout
// of 90 s, twice, and in reads and a poll of stdin.
const idleReader = echoDeclarations + `
#include <poll.h>
int32_t sock_setsockopt(int32_t fd, int32_t level, int32_t name, const void *value, int32_t size) IMPORT("sock_setsockopt");
int main(int argc, char **argv) {
	uint8_t ip[4] = {127, 0, 0, 1};
	address addr = {ip, 4};
	int32_t fd;
	int64_t timeout[2] = {90, 0};
	char buf[64];
	CHECK(sock_open(1, 1, &fd));
	CHECK(sock_bind(fd, &addr, 9000));
	CHECK(sock_setsockopt(fd, 0, 11 /* SO_RCVTIMEO */, timeout, sizeof timeout));
	for (int i = 0; i < 2; i++) printf("%d\n", (int)read(fd, buf, sizeof buf));
	fflush(stdout);
	for (int i = 0; i < 3; i++) {
		struct pollfd p = {0, POLLIN, 0};
		if (i == 1 && poll(&p, 1, -1) != 1) return 2;
		int n = read(0, buf, sizeof buf);
		printf("%.*s\n", n, buf);
		fflush(stdout);
	}
	return read(0, buf, sizeof buf);
}
`

// inHostCalls is how many goroutines of guests there are. The interpreter's guests
// are not put aside.
func inHostCalls() int {
	if raceEnabled {
		return 0
	}
	buf := make([]byte, 4<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "/wasip1.hostFunction.")
}

// Guests that sleep in reads of stdin and in receives with a timeout are put aside,
// too.
func TestIdleReaders(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("guests are put aside on amd64 only: wazero saves a register of Go's with theirs on arm64")
	}
	reader := wasmtest.BuildC(t, idleReader)
	synctest.Test(t, func(t *testing.T) {
		engine, err := newEngine()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { engine.Close(context.Background()) })
		n := newNode(t, engine)
		pod := n.pod(t, nil)
		pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
		s := n.sandbox(t, pod)
		began := time.Now()
		c := n.startNamed(t, s, pod, "reader", reader)
		in, feed := io.Pipe()
		go c.Attach(t.Context(), sandbox.AttachConfig{Stdin: in})
		time.Sleep(170 * time.Second)
		if got := inHostCalls(); got != 0 {
			t.Errorf("%d guests have a goroutine while all sleep", got)
		}
		time.Sleep(20 * time.Second)
		for _, text := range []string{"one", "two", "three"} {
			time.Sleep(time.Minute)
			if got := inHostCalls(); got != 0 {
				t.Errorf("%d guests have a goroutine before %s", got, text)
			}
			io.WriteString(feed, text)
		}
		time.Sleep(time.Minute)
		feed.Close()
		<-c.Done()
		if took := time.Since(began); took != 190*time.Second+4*time.Minute {
			t.Errorf("took %v", took)
		}
		if out := n.output(); !strings.HasPrefix(out, "-1\n-1\none\ntwo\nthree\n") || c.Status().Code != 0 {
			t.Errorf("%+v, output:\n%s", c.Status(), out)
		}
	})
}
