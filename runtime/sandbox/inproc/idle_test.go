package inproc

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
