package wasm_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

var killed = wasm.Exit{Code: 137, Reason: wasm.ReasonError}

func TestKillSpinning(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	e := newEngine(t, wasm.Config{})
	for _, name := range []string{"spin", "recurse", "startsection"} {
		t.Run("STATE-11 "+name, func(t *testing.T) {
			i := start(t, e, compile(t, e, name), 0, nil)
			for i.Stats().Safepoints == 0 {
				runtime.Gosched()
			}
			i.Kill()
			i.Kill() // does no harm
			wantExit(t, i, killed)
		})
	}
}

// With stock wazero the first collection would wait for guests that never end.
func TestSpinningGuestsLetTheWorldStop(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "spin")
	var guests []*wasm.Instance
	for range 8 {
		guests = append(guests, start(t, e, m, 0, nil))
	}
	for range 10 {
		runtime.GC()
	}
	for _, g := range guests {
		g.Kill()
	}
	for _, g := range guests {
		wantExit(t, g, killed)
	}
}

func TestContextEndsInstance(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "spin")
	ctx, cancel := context.WithCancel(t.Context())
	i, err := e.Start(ctx, m, wasm.InstanceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	wantExit(t, i, killed)
	if _, err := e.Start(ctx, m, wasm.InstanceConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("started with a context that has ended: %v", err)
	}
}

func TestSignal(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	t.Run("DEL-08 default action", func(t *testing.T) {
		for sig, code := range map[int]int32{15: 143, 2: 130, 3: 131, 9: 137, 64: 192} {
			i := start(t, e, compile(t, e, "spin"), 0, nil)
			i.Signal(sig)
			wantExit(t, i, wasm.Exit{Code: code, Reason: wasm.ReasonError})
		}
	})
	t.Run("ignored by default", func(t *testing.T) {
		i := start(t, e, compile(t, e, "spin"), 0, nil)
		for _, sig := range []int{17, 18, 19, 20, 23, 28, 0, -1, 65, 1 << 40} {
			i.Signal(sig)
		}
		before := i.Stats().Safepoints
		for i.Stats().Safepoints < before+3 {
			runtime.Gosched()
		}
		i.Signal(15)
		i.Signal(2) // comes too late
		wantExit(t, i, wasm.Exit{Code: 143, Reason: wasm.ReasonError})
	})
	t.Run("handler runs on the guest's goroutine and is not interrupted", func(t *testing.T) {
		var self atomic.Pointer[wasm.Instance]
		ready := make(chan struct{})
		var seen []int32
		i := start(t, e, compile(t, e, "signal"), 0, func(_ context.Context, _ api.Module, sig int32) int32 {
			seen = append(seen, sig)
			if sig == 0 {
				close(ready)
			} else if sig == 15 {
				self.Load().Signal(10) // within the handler: waits for its end
				self.Load().Signal(10) // and counts once
			}
			return 0
		})
		<-ready
		self.Store(i)
		i.Signal(15)
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		if len(seen) != 3 || seen[1] != 15 || seen[2] != 10 {
			t.Errorf("calls %v", seen)
		}
	})
	t.Run("kill in the handler", func(t *testing.T) {
		var self atomic.Pointer[wasm.Instance]
		ready := make(chan struct{})
		i := start(t, e, compile(t, e, "signal"), 0, func(_ context.Context, _ api.Module, sig int32) int32 {
			if sig == 0 {
				close(ready)
			} else {
				self.Load().Kill()
			}
			return 0
		})
		<-ready
		self.Store(i)
		i.Signal(1)
		wantExit(t, i, killed)
	})
	t.Run("exit in the handler", func(t *testing.T) {
		ready := make(chan struct{})
		i := start(t, e, compile(t, e, "signal"), 0, func(_ context.Context, _ api.Module, sig int32) int32 {
			if sig == 0 {
				close(ready)
				return 0
			}
			panic(sys.NewExitError(uint32(sig)))
		})
		<-ready
		i.Signal(12)
		wantExit(t, i, wasm.Exit{Code: 12, Reason: wasm.ReasonError})
	})
	t.Run("a blocked host call is interrupted", func(t *testing.T) {
		blocked, again := make(chan struct{}), make(chan struct{})
		var handled []int32
		i := start(t, e, compile(t, e, "signal"), 0, func(ctx context.Context, _ api.Module, sig int32) int32 {
			in := ctx.(wasm.Interruptible)
			if sig != 0 {
				handled = append(handled, sig)
				if in.Interrupted() != nil {
					t.Error("the handler can be interrupted")
				}
				return 0
			}
			close(blocked)
			<-in.Interrupted()
			in.Safepoint()
			if len(handled) == 0 {
				t.Error("the handler has not run at the safepoint")
			}
			close(again)
			<-in.Interrupted()
			return 0 // the second comes at the next safepoint in code
		})
		<-blocked
		i.Signal(15)
		<-again
		i.Signal(1)
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	})
	t.Run("red zone of leaf functions is left alone", func(t *testing.T) {
		var self atomic.Pointer[wasm.Instance]
		result := int32(-1)
		ready := make(chan struct{})
		i := start(t, e, compile(t, e, "leaf"), 0, func(_ context.Context, _ api.Module, v int32) int32 {
			if v == 0 {
				<-ready
				self.Load().Signal(10)
			}
			result = v
			return 0
		})
		self.Store(i)
		close(ready)
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		if result != 42 {
			t.Errorf("leaf function read %d", result)
		}
	})
}

func TestHostCalls(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "host")
	t.Run("STATE-11 exit codes", func(t *testing.T) {
		for code, want := range map[uint32]int32{1: 1, 255: 255, 256: 0, 0xffffffff: 255, 0: 0} {
			reason := wasm.ReasonError
			if want == 0 {
				reason = wasm.ReasonCompleted
			}
			i := start(t, e, m, 0, func(ctx context.Context, mod api.Module, _ int32) int32 {
				// As wazero's own proc_exit does it.
				_ = mod.CloseWithExitCode(ctx, code)
				panic(sys.NewExitError(code))
			})
			wantExit(t, i, wasm.Exit{Code: want, Reason: reason})
		}
	})
	t.Run("panics stay in the guest", func(t *testing.T) {
		for _, c := range []struct {
			f    func()
			want string
		}{
			{func() { panic("oh dear") }, "host function failed: oh dear in test.call, called from _start"},
			{func() { panic(errors.New("oh dear")) }, "host function failed: oh dear in test.call, called from _start"},
			{func() { none := []int{}; none[len(none)] = 1 }, "host function failed: runtime error: index out of range [0] with length 0 in test.call, called from _start"},
		} {
			i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { c.f(); return 0 })
			wantExit(t, i, wasm.Exit{Code: 134, Reason: wasm.ReasonError, Message: c.want})
		}
		i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { runtime.Goexit(); return 0 })
		<-i.Done()
		if x := i.Exit(); x.Code != 134 || x.Message == "" {
			t.Errorf("after Goexit: %+v", x)
		}
	})
	t.Run("a blocked call sees its context end", func(t *testing.T) {
		for sig, code := range map[int]int32{9: 137, 15: 143} {
			blocked := make(chan struct{})
			i := start(t, e, m, 0, func(ctx context.Context, _ api.Module, _ int32) int32 {
				close(blocked)
				<-ctx.Done()
				return 0
			})
			<-blocked
			if i.Exit() != (wasm.Exit{}) {
				t.Error("an exit before the end")
			}
			i.Signal(sig)
			wantExit(t, i, wasm.Exit{Code: code, Reason: wasm.ReasonError})
		}
	})
}

func TestTraps(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "traps")
	for n, want := range []string{
		"trap: unreachable in abort, called from _start",
		"trap: integer divide by zero in divide, called from _start",
		"trap: out of bounds memory access in load, called from _start",
		"trap: invalid table access in _start",
		"trap: out of bounds memory access in fill, called from _start",
	} {
		t.Run(want, func(t *testing.T) {
			i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { return int32(n) })
			wantExit(t, i, wasm.Exit{Code: 134, Reason: wasm.ReasonError, Message: want})
		})
	}
	t.Run("stack overflow", func(t *testing.T) {
		i := start(t, e, compile(t, e, "overflow"), 0, nil)
		<-i.Done()
		if x := i.Exit(); x.Code != 134 || !strings.HasPrefix(x.Message, "trap: stack overflow") {
			t.Errorf("exit %+v", x)
		}
	})
	t.Run("in the start section", func(t *testing.T) {
		i := start(t, e, compile(t, e, "starttrap"), 0, nil)
		<-i.Done()
		if x := i.Exit(); x.Code != 128 || x.Reason != wasm.ReasonStartError || !strings.Contains(x.Message, "unreachable in init") {
			t.Errorf("exit %+v", x)
		}
	})
}

func TestMemoryLimit(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	const limit = 1 << 20
	oom := wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 1048576 bytes exceeded"}
	t.Run("OOM-06 growth", func(t *testing.T) {
		refused := false
		i := start(t, e, compile(t, e, "grow"), limit, func(context.Context, api.Module, int32) int32 { refused = true; return 0 })
		wantExit(t, i, oom)
		if refused {
			t.Error("the guest went on after its limit")
		}
	})
	t.Run("OOM-06 initial memory", func(t *testing.T) {
		wantExit(t, start(t, e, compile(t, e, "big"), limit, nil), oom)
	})
	t.Run("OOM-06 within the limit", func(t *testing.T) {
		var during int64
		var self atomic.Pointer[wasm.Instance]
		ready := make(chan struct{})
		i := start(t, e, compile(t, e, "host"), 65536, func(context.Context, api.Module, int32) int32 {
			<-ready
			during = self.Load().Stats().MemoryBytes
			return 0
		})
		self.Store(i)
		close(ready)
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		if during != 65536 {
			t.Errorf("%d bytes counted", during)
		}
	})
	if _, err := e.Start(t.Context(), compile(t, e, "host"), wasm.InstanceConfig{MemoryLimit: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
}

func TestSharedMemoryWait(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "wait")
	synctest.Test(t, func(t *testing.T) {
		var results []int32
		begin := time.Now()
		i, err := e.Start(context.Background(), m, wasm.InstanceConfig{Context: func(ctx context.Context) context.Context {
			return context.WithValue(ctx, callKey{}, callFunc(func(_ context.Context, _ api.Module, r int32) int32 {
				results = append(results, r)
				return 0
			}))
		}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // of the bubble's clock
		synctest.Wait()
		if len(results) != 2 || results[0] != 1 || results[1] != 2 || time.Since(begin) != time.Second {
			t.Errorf("results %v after %v", results, time.Since(begin))
		}
		i.Kill()
		wantExit(t, i, killed)
	})
}

// Guests sleep on the bubble's clock when their host functions use Go's.
func TestFakeTime(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2}) // both sleep in a host call without leaving theirs
	m := compile(t, e, "host")
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var woken atomic.Int32
		sleepy := func(ctx context.Context) context.Context {
			return context.WithValue(ctx, callKey{}, callFunc(func(ctx context.Context, _ api.Module, _ int32) int32 {
				select {
				case <-time.After(time.Hour):
					woken.Add(1)
				case <-ctx.Done():
				}
				return 0
			}))
		}
		sleeper, err := e.Start(context.Background(), m, wasm.InstanceConfig{Context: sleepy})
		if err != nil {
			t.Fatal(err)
		}
		deadline, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		bounded, err := e.Start(deadline, m, wasm.InstanceConfig{Context: sleepy})
		if err != nil {
			t.Fatal(err)
		}
		wantExit(t, bounded, killed)
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("killed after %v", d)
		}
		wantExit(t, sleeper, wasm.Exit{Reason: wasm.ReasonCompleted})
		if d := time.Since(begin); d != time.Hour || woken.Load() != 1 {
			t.Errorf("ended after %v, %d woken", d, woken.Load())
		}
	})
}
