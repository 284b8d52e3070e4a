package wasm_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

func startShares(t *testing.T, e *wasm.Engine, m *wasm.Module, shares int64) *wasm.Instance {
	t.Helper()
	i, err := e.Start(t.Context(), m, wasm.InstanceConfig{CPUShares: shares})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestKillWaitingForASlot(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	entered, release := make(chan struct{}), make(chan struct{})
	holder := start(t, e, compile(t, e, "host"), 0, func(context.Context, api.Module, int32) int32 {
		close(entered)
		<-release // without giving its place up
		return 0
	})
	<-entered
	waiting := startShares(t, e, compile(t, e, "spin"), 0)
	other := startShares(t, e, compile(t, e, "spin"), 0)
	waiting.Kill()
	wantExit(t, waiting, killed)
	if s := waiting.Stats(); s.Safepoints != 0 || s.CPUTime != 0 {
		t.Errorf("it ran beside the holder of the only slot: %+v", s)
	}
	close(release)
	wantExit(t, holder, wasm.Exit{Reason: wasm.ReasonCompleted})
	for other.Stats().Safepoints == 0 { // the slot has not been lost
		runtime.Gosched()
	}
	other.Signal(15)
	wantExit(t, other, wasm.Exit{Code: 143, Reason: wasm.ReasonError})
}

func TestSleepingGuestsGiveTheirSlotBack(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	m := compile(t, e, "host")
	var running, most atomic.Int32
	const guests = 20
	var asleep sync.WaitGroup
	asleep.Add(guests)
	release := make(chan struct{})
	var all []*wasm.Instance
	for range guests {
		all = append(all, start(t, e, m, 0, func(ctx context.Context, _ api.Module, _ int32) int32 {
			b := ctx.(wasm.Blocking)
			b.Enter() // it has a place: does nothing
			b.Leave()
			b.Leave()
			asleep.Done()
			<-release
			b.Enter()
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			runtime.Gosched()
			running.Add(-1)
			return 0
		}))
	}
	asleep.Wait() // all at once, though there is one slot
	close(release)
	for _, i := range all {
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	}
	if most.Load() != 1 {
		t.Errorf("%d guests had the only slot", most.Load())
	}
}

func TestKillAsleep(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	asleep := make(chan struct{})
	i := start(t, e, compile(t, e, "host"), 0, func(ctx context.Context, _ api.Module, _ int32) int32 {
		ctx.(wasm.Blocking).Leave()
		close(asleep)
		<-ctx.Done()
		ctx.(wasm.Blocking).Enter()
		return 0
	})
	<-asleep
	busy := startShares(t, e, compile(t, e, "spin"), 0)
	i.Kill()
	wantExit(t, i, killed)
	busy.Kill()
	wantExit(t, busy, killed)
}

// Who runs passes its slot on by weight, and one that sleeps comes between.
func TestSharesOfTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = time.Millisecond // between two safepoints
		used := wasm.Compete(1, 5*time.Second, each, 102, 307)
		if r := float64(used[1]) / float64(used[0]); r < 2.95 || r > 3.07 {
			t.Errorf("RES-04 300m ran %.3f times as long as 100m (%v)", r, used)
		}
		used = wasm.Compete(2, 5*time.Second, each, 102, 307, 102, 307)
		if a, b := used[0]+used[2], used[1]+used[3]; float64(b)/float64(a) < 2.95 || float64(b)/float64(a) > 3.07 {
			t.Errorf("RES-04 on two slots 300m ran %v, 100m %v", b, a)
		}
		if used = wasm.Compete(2, time.Second, each, 2, 1024); used[0] < 990*time.Millisecond || used[1] < 990*time.Millisecond {
			t.Errorf("two guests did not use two slots: %v", used)
		}
	})
}

// The clock of a bubble stands still while guests run; slices end all the same.
func TestSlicesEndInFakeTime(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	spin, host := compile(t, e, "spin"), compile(t, e, "host")
	synctest.Test(t, func(t *testing.T) {
		busy, err := e.Start(context.Background(), spin, wasm.InstanceConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for busy.Stats().Safepoints == 0 {
			runtime.Gosched()
		}
		i, err := e.Start(context.Background(), host, wasm.InstanceConfig{Context: func(ctx context.Context) context.Context {
			return context.WithValue(ctx, callKey{}, callFunc(func(context.Context, api.Module, int32) int32 { return 0 }))
		}})
		if err != nil {
			t.Fatal(err)
		}
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		busy.Kill()
		wantExit(t, busy, killed)
	})
}

// Fuel depends on what a guest does, not on when it is interrupted.
func TestFuel(t *testing.T) {
	run := func(e *wasm.Engine, name string, input int32) wasm.Stats {
		t.Helper()
		i := start(t, e, compile(t, e, name), 0, func(context.Context, api.Module, int32) int32 { return input })
		<-i.Done()
		return i.Stats()
	}
	rounds := int32(600_000)
	if raceEnabled {
		rounds = 100_000
	}
	e := newEngine(t, wasm.Config{})
	alone, half := run(e, "work", rounds), run(e, "work", rounds/2)
	if alone.Fuel < uint64(rounds) || alone.Safepoints == 0 {
		t.Errorf("charged %d for %d rounds, at %d safepoints", alone.Fuel, rounds, alone.Safepoints)
	}
	if r := float64(alone.Fuel) / float64(half.Fuel); r < 1.99 || r > 2.01 {
		t.Errorf("twice the work is charged %.3f times as much", r)
	}
	if small := run(e, "work", 1); small.Fuel == 0 || small.Fuel > 1000 || small.Safepoints != 0 {
		t.Errorf("one round: %+v", small)
	}
	// Beside others, on one slot, and interpreted.
	for _, c := range []wasm.Config{{Slots: 1}, {Slots: 4}, {Interpreter: true}} {
		e := newEngine(t, c)
		busy := startShares(t, e, compile(t, e, "spin"), 0)
		for range 2 {
			if s := run(e, "work", rounds); s.Fuel != alone.Fuel {
				t.Errorf("%+v: charged %d, alone %d", c, s.Fuel, alone.Fuel)
			}
		}
		busy.Kill()
		<-busy.Done()
	}
}

func TestMemoryOutsideOfLinearMemory(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	const limit = 1 << 20
	oom := wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 1048576 bytes exceeded"}
	t.Run("OOM-06 table at the start", func(t *testing.T) {
		wantExit(t, start(t, e, compile(t, e, "table"), limit, nil), oom)
	})
	t.Run("OOM-06 table that grows", func(t *testing.T) {
		wantExit(t, start(t, e, compile(t, e, "growtable"), limit, nil), oom)
	})
	t.Run("without limit", func(t *testing.T) {
		wantExit(t, start(t, e, compile(t, e, "table"), 0, nil), wasm.Exit{Reason: wasm.ReasonCompleted})
	})
	if raceEnabled {
		return // the interpreter's stack is short
	}
	t.Run("OOM-06 stack", func(t *testing.T) {
		wantExit(t, start(t, e, compile(t, e, "overflow"), limit, nil), oom)
	})
	t.Run("stack without limit", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		i := start(t, e, compile(t, e, "overflow"), 0, nil)
		<-i.Done()
		runtime.ReadMemStats(&after)
		if x := i.Exit(); x.Code != 134 || !strings.HasPrefix(x.Message, "trap: stack overflow in ") {
			t.Errorf("exit %+v", x)
		}
		// It doubles up to the ceiling of 32 MiB and a little further.
		if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
			t.Errorf("%d MiB allocated for stacks", n>>20)
		}
	})
}
