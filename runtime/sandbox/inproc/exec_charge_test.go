package inproc

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// OOM-06: what is charged for commands is not less than they take of the host's
// memory, beside their linear memory.
func TestChargesAreWhatCommandsTake(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("skipped: the interpreter's instances and the race detector's goroutines are others")
	}
	n := sharedNode(t)
	_, _, c := sleeping(t, n)
	g := c.(*guest)
	const commands = 40
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, commands+1)
	run := func() {
		started := make(said)
		go func() {
			_, err := c.Exec(ctx, sandbox.ExecConfig{Command: []string{n.module[strings.LastIndex(n.module, "/")+1:], "print started", "sleep 1000h"}, Stdout: started})
			ended <- err
		}()
		<-started
	}
	beyond := func() (taken, charged int64) {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		taken, charged = int64(s.HeapAlloc+s.StackInuse), g.memory.Used()
		g.commands.mu.Lock()
		defer g.commands.mu.Unlock()
		for i := range g.commands.running {
			charged -= i.Stats().MemoryPeak // of linear memory
		}
		return taken, charged
	}
	run() // what all of them need
	taken, charged := beyond()
	for range commands {
		run()
	}
	takenAfter, chargedAfter := beyond()
	cancel()
	for range commands + 1 {
		<-ended
	}
	took, paid := (takenAfter-taken)/commands, (chargedAfter-charged)/commands
	t.Logf("each command takes %d bytes and is charged %d", took, paid)
	if took > paid {
		t.Errorf("each command takes %d bytes, and %d are charged", took, paid)
	}
}
