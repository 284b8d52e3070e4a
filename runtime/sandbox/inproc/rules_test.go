package inproc

import (
	"runtime"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/wasm"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// The second container of a pod that binds a port finds it taken.
func TestPortIsTakenMAIN09(t *testing.T) {
	n := sharedNode(t)
	server := wasmtest.BuildC(t, echoServer)
	pod := n.pod(t, nil)
	s := n.sandbox(t, pod)
	first := n.startNamed(t, s, pod, "first", server)
	for !strings.Contains(n.output(), "listening") {
		runtime.Gosched()
	}
	second := n.startNamed(t, s, pod, "second", server)
	<-second.Done()
	const addressInUse = "errno 3" // of WASI
	if out := n.output(); second.Status().Code != 1 || !strings.Contains(out, addressInUse) {
		t.Errorf("%+v, output:\n%s", second.Status(), out)
	}
	first.Kill()
	<-first.Done()
}

func TestTerminationLogThatCannotBeRead(t *testing.T) {
	t.Run("TMSG-06 a read error is the message", func(t *testing.T) {
		g := &guest{dir: t.TempDir(), config: container.Config{TerminationMessagePath: "/dev/termination-log"}}
		got := g.terminationMessage(wasm.Exit{Code: 1, Reason: "Error"})
		if !strings.HasPrefix(got, "Error on reading termination log /dev/termination-log: ") {
			t.Errorf("%q", got)
		}
	})
}
