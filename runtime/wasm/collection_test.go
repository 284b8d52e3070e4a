package wasm_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// until waits for what other goroutines bring about.
func until(ok func() bool) {
	for !ok() {
		runtime.Gosched()
	}
}

// moving says whether each of the guests has crossed safepoints since the last call.
func moving(guests []*wasm.Instance) func() bool {
	last := make([]uint64, len(guests))
	return func() bool {
		all := true
		for i, g := range guests {
			now := g.Stats().Safepoints
			all = all && now > last[i]
			if all {
				last[i] = now
			}
		}
		return all
	}
}

// holdSlot starts a guest in a host call that keeps its slot until released.
func holdSlot(t *testing.T, e *wasm.Engine) (i *wasm.Instance, release func()) {
	t.Helper()
	entered, released := make(chan struct{}), make(chan struct{})
	i = start(t, e, compile(t, e, "host"), 0, func(context.Context, api.Module, int32) int32 {
		close(entered)
		<-released
		return 0
	})
	<-entered
	return i, func() { close(released) }
}

// While Go marks it has one of the slots, no longer than it needs it, and guests go
// on with the others and in between.
func TestCollectorHasASlot(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2})
	e.Mark(false)
	m := compile(t, e, "spin")
	cpu := &fakeCPU{t: t} // nobody pays for the collector's time
	var guests []*wasm.Instance
	for range 3 {
		guests = append(guests, startCPU(t, e, m, cpu, nil))
	}
	until(moving(guests))
	if e.Lent() {
		t.Error("it has a slot, and does not mark")
	}
	e.Marked(true)
	for range 3 { // it gets it again and again
		until(e.Lent)
		until(func() bool { return !e.Lent() })
	}
	goesOn := moving(guests)
	for range 3 {
		until(goesOn)
	}
	until(e.Lent)
	e.Marked(false)
	until(func() bool { return !e.Lent() })
	until(goesOn)
	for _, g := range guests {
		g.Kill()
		wantExit(t, g, killed)
	}
	if e.Lent() || e.Spare() != 2 || cpu.running.Load() != 0 {
		t.Errorf("%d of 2 slots are free, one lent: %v; %d stints have not ended", e.Spare(), e.Lent(), cpu.running.Load())
	}
}

// Who gets the slot back does not depend on a guest that crosses safepoints.
func TestCollectorRepaysByItself(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2})
	e.Mark(true)
	holder, release := holdSlot(t, e)
	spin := startShares(t, e, compile(t, e, "spin"), 0)
	until(e.Lent)
	goesOn := moving([]*wasm.Instance{spin})
	for range 3 {
		until(goesOn)
	}
	// One that has lent its slot can be killed, and its slot is not lost.
	until(e.Lent)
	spin.Kill()
	wantExit(t, spin, killed)
	until(func() bool { return e.Spare() == 1 })
	release()
	wantExit(t, holder, wasm.Exit{Reason: wasm.ReasonCompleted})
	if e.Lent() || e.Spare() != 2 {
		t.Errorf("%d of 2 slots are free, one lent: %v", e.Spare(), e.Lent())
	}
}

// A guest that is alone, or has a slot beside it that nobody uses, keeps its own.
func TestCollectorLeavesTheLastSlot(t *testing.T) {
	for slots, others := range map[int]int{1: 0, 2: 0, 3: 1} {
		e := newEngine(t, wasm.Config{Slots: slots})
		e.Mark(true)
		m := compile(t, e, "spin")
		var guests []*wasm.Instance
		for range 1 + others {
			guests = append(guests, startShares(t, e, m, 0))
		}
		on := moving(guests)
		for range 5 {
			until(func() bool {
				if slots > 1 && e.Lent() {
					t.Fatalf("lent one of %d slots with %d guests", slots, len(guests))
				}
				return on()
			})
		}
		for _, g := range guests {
			g.Kill()
			wantExit(t, g, killed)
		}
	}
}

// What guests see is what Go does: it marks for as long as there is much to mark,
// and is busy for a moment after it.
func TestCollectionIsSeen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // none but those below
	type node struct{ next [8]*node }
	var heap []*node
	for range 1 << 17 { // 8 MiB of pointers
		n := &node{}
		n.next[0] = n
		heap = append(heap, n)
	}
	runtime.GC()
	c := wasm.NewCollection()
	var now int64
	look := func() (underway, marking bool) {
		now += 100_000 // the next time that it may
		return c.Look(now)
	}
	if underway, marking := look(); underway || marking {
		t.Error("a collection is seen before there was one")
	}
	for seen := false; !seen; {
		done := make(chan struct{})
		go func() {
			runtime.GC()
			close(done)
		}()
		for over := false; !over; {
			_, marking := look()
			seen = seen || marking
			select {
			case <-done:
				over = true
			default:
				runtime.Gosched()
			}
		}
	}
	runtime.GC()
	if underway, marking := look(); !underway || marking {
		t.Errorf("after one: underway %v, marking %v", underway, marking)
	}
	now += int64(time.Second)
	if underway, _ := look(); underway {
		t.Error("it is never over")
	}
	runtime.KeepAlive(heap)
}
