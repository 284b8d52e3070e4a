package wasm_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// fakeCPU is an account that is spent when told, until a time. Its stints must
// begin and end in turn.
type fakeCPU struct {
	t       *testing.T
	until   atomic.Pointer[time.Time]
	running atomic.Int32
	begun   atomic.Int32
	checks  atomic.Int32
	waits   atomic.Int32
	stopped atomic.Int32
	onCheck func(n int32)
	period  time.Duration // at most so much does one wait at a time; zero is no bound
	changed chan struct{}
	given   func(now, since, keep, most int64) int64
}

func (f *fakeCPU) spend(d time.Duration) { t := time.Now().Add(d); f.until.Store(&t) }
func (f *fakeCPU) Stint() wasm.CPUStint  { return &fakeStint{fakeCPU: f} }
func (f *fakeCPU) Spent() bool           { return f.left() > 0 }
func (f *fakeCPU) Stop()                 { f.stopped.Add(1) }

func (f *fakeCPU) left() time.Duration {
	if t := f.until.Load(); t != nil {
		return max(time.Until(*t), 0)
	}
	return 0
}

func (f *fakeCPU) Wait() (time.Duration, <-chan struct{}) {
	if f.running.Load() != 0 {
		f.t.Error("RES-05 a guest waits while it has a slot")
	}
	f.waits.Add(1)
	if f.period > 0 {
		return min(f.left(), f.period), f.changed
	}
	return f.left(), f.changed
}

type fakeStint struct {
	*fakeCPU
	under bool
}

func (s *fakeStint) Begin(int64) {
	if s.under {
		s.t.Error("a stint begins twice")
	}
	s.under = true
	s.running.Add(1)
	s.begun.Add(1)
}

func (s *fakeStint) End(int64) {
	if !s.under {
		s.t.Error("a stint ends twice")
	}
	s.under = false
	s.running.Add(-1)
}

func (s *fakeStint) HandOver(next any, now int64) bool {
	s.End(now)
	next.(*fakeStint).Begin(now)
	return next.(*fakeStint).Spent()
}

func (s *fakeStint) Check(int64) bool {
	if !s.under {
		s.t.Error("checked without a stint")
	}
	if n := s.checks.Add(1); s.onCheck != nil {
		s.onCheck(n)
	}
	return s.Spent()
}

func (s *fakeStint) GiveBack(now, since, keep, most int64) int64 {
	if !s.under {
		s.t.Error("given back without a stint")
	}
	if s.given == nil {
		return 0
	}
	return s.given(now, since, keep, most)
}

func startCPU(t *testing.T, e *wasm.Engine, m *wasm.Module, cpu wasm.CPUAccount, call callFunc) *wasm.Instance {
	t.Helper()
	i, err := e.Start(context.Background(), m, wasm.InstanceConfig{CPU: cpu, Context: func(ctx context.Context) context.Context {
		return context.WithValue(ctx, callKey{}, call)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestThrottle(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	spin, host := compile(t, e, "spin"), compile(t, e, "host")
	yes := func(context.Context, api.Module, int32) int32 { return 0 }

	t.Run("RES-05 a spinning guest waits for the refill at a safepoint, without a slot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := &fakeCPU{t: t}
			again := make(chan struct{})
			cpu.onCheck = func(n int32) {
				switch n {
				case 3:
					cpu.spend(time.Minute)
				case 4:
					close(again)
				}
			}
			i := startCPU(t, e, spin, cpu, nil)
			began := time.Now()
			time.Sleep(30 * time.Second) // all sleep: the guest does too
			if n := cpu.checks.Load(); n != 3 {
				t.Errorf("%d safepoints while it was throttled", n)
			}
			wantExit(t, startCPU(t, e, host, nil, yes), wasm.Exit{Reason: wasm.ReasonCompleted})
			<-again
			if d := time.Since(began); d < time.Minute || d > time.Minute+time.Second {
				t.Errorf("refilled after %v", d)
			}
			i.Kill()
			wantExit(t, i, killed)
		})
	})
	t.Run("RES-05 one that is spent does not come back from a sleep", func(t *testing.T) {
		for name, sleep := range map[string]func(ctx context.Context, other *wasm.Parking){
			"Enter": func(ctx context.Context, _ *wasm.Parking) {
				ctx.(wasm.Blocking).Leave()
				ctx.(wasm.Blocking).Enter()
			},
			"Park": func(ctx context.Context, _ *wasm.Parking) {
				p := ctx.(wasm.Parking)
				time.AfterFunc(time.Second, p.Unpark)
				p.Park()
			},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cpu := &fakeCPU{t: t}
					began := time.Now()
					var woke time.Duration
					wantExit(t, startCPU(t, e, host, cpu, func(ctx context.Context, _ api.Module, _ int32) int32 {
						cpu.spend(time.Minute)
						sleep(ctx, nil)
						woke = time.Since(began)
						return 0
					}), wasm.Exit{Reason: wasm.ReasonCompleted})
					if woke < time.Minute || woke > time.Minute+time.Second {
						t.Errorf("came back after %v", woke)
					}
				})
			})
		}
	})
	t.Run("RES-05 a throttled guest is killed at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := &fakeCPU{t: t}
			cpu.onCheck = func(int32) { cpu.spend(24 * time.Hour) }
			i := startCPU(t, e, spin, cpu, nil)
			time.Sleep(time.Second)
			began := time.Now()
			i.Kill()
			wantExit(t, i, killed)
			if d := time.Since(began); d != 0 || cpu.stopped.Load() != 1 {
				t.Errorf("ended after %v, stopped %d times", d, cpu.stopped.Load())
			}
		})
	})
	t.Run("RES-05 one that is spent before its start is killed at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cpu := &fakeCPU{t: t}
			cpu.spend(time.Hour)
			i := startCPU(t, e, spin, cpu, nil)
			time.Sleep(time.Second)
			i.Kill()
			wantExit(t, i, killed)
			if n := cpu.begun.Load(); n != 0 {
				t.Errorf("it ran %d times", n)
			}
		})
	})
	if free := e.Spare(); free != 1 {
		t.Errorf("%d slots are free", free)
	}
}

// Whatever guests do, stints begin and end in turn, and none is left when all
// have ended.
func TestStintsEnd(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	cpu := &fakeCPU{t: t}
	m, spin := compile(t, e, "host"), compile(t, e, "spin")
	busy := startCPU(t, e, spin, cpu, nil)
	rounds := 300
	if testing.Short() || raceEnabled {
		rounds = 30
	}
	for n := range rounds {
		contexts := make(chan wasm.Parking, 1)
		i := startCPU(t, e, m, cpu, func(ctx context.Context, _ api.Module, _ int32) int32 {
			contexts <- ctx.(wasm.Parking)
			ctx.(wasm.Parking).Park()
			ctx.(wasm.Blocking).Leave()
			runtime.Gosched()
			ctx.(wasm.Blocking).Enter()
			return 0
		})
		if n%3 == 0 {
			i.Kill()
		} else {
			(<-contexts).Unpark()
			if n%3 == 1 {
				i.Kill()
			}
		}
		<-i.Done()
	}
	busy.Kill()
	<-busy.Done()
	if n := cpu.running.Load(); n != 0 {
		t.Errorf("%d stints are under way", n)
	}
}

// A guest does not pay for what the collector did on its thread, as far as that is known,
// and as far as host calls could hide behind it.
func TestDisowned(t *testing.T) {
	const keep, ran = 500 * time.Microsecond, time.Second
	type call struct{ lasted, keep, most time.Duration }
	var calls []call
	var give time.Duration
	cpu := &fakeCPU{t: t, given: func(now, since, keep, most int64) int64 {
		calls = append(calls, call{time.Duration(now - since), time.Duration(keep), time.Duration(most)})
		return int64(give)
	}}
	e := newEngine(t, wasm.Config{Slots: 2})
	e.Mark(false)
	h := e.NewCharged(cpu)
	h.Take()
	if h.Stretch(ran, 10*time.Millisecond); len(calls) > 0 {
		t.Error("without a collection")
	}
	h.Leave()
	e.Marked(true)
	synctest.Test(t, func(t *testing.T) { // the clock stands still
		h := e.NewCharged(cpu)
		h.Take()
		defer h.Leave()
		if h.Stretch(ran, 900*time.Microsecond); len(calls) > 0 {
			t.Error("though it was not too long")
		}
		if h.Stretch(0, 10*time.Millisecond); len(calls) > 0 {
			t.Error("though it has not run yet")
		}
		step := func(most time.Duration) {
			t.Helper()
			calls = nil
			shorter := h.Stretch(ran, 10*time.Millisecond)
			if want := (call{10 * time.Millisecond, keep, most}); len(calls) != 1 || calls[0] != want {
				t.Fatalf("%+v, want %+v", calls, want)
			}
			if shorter != (give == 0) {
				t.Errorf("%v were not the guest's, and safepoints are to come sooner: %v", give, shorter)
			}
		}
		step(10 * time.Millisecond)
		give = 8 * time.Millisecond
		step(10 * time.Millisecond)
		step(2 * time.Millisecond)
		calls = nil
		if h.Stretch(ran, 10*time.Millisecond); len(calls) > 0 {
			t.Errorf("%+v: more than a hundredth of what it has run", calls)
		}
	})
}
