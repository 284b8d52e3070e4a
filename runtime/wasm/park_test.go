package wasm_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// parker starts a guest that parks so many times, and returns its context.
func parker(t *testing.T, e *wasm.Engine, times int, each func()) (*wasm.Instance, wasm.Parking) {
	t.Helper()
	contexts := make(chan wasm.Parking, 1)
	i := start(t, e, compile(t, e, "host"), 0, func(ctx context.Context, _ api.Module, _ int32) int32 {
		p := ctx.(wasm.Parking)
		contexts <- p
		for range times {
			p.Park()
			each()
		}
		return 0
	})
	return i, <-contexts
}

func TestPark(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	woken := make(chan struct{})
	i, p := parker(t, e, 2, func() { woken <- struct{}{} })
	p.Unpark()
	<-woken
	p.Unpark()
	p.Unpark() // nothing is counted
	<-woken
	wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	p.Unpark()
}

// Who is parked has no slot, and its end needs none.
func TestKillParked(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	i, p := parker(t, e, 1, func() { t.Error("it went on") })
	busy := startShares(t, e, compile(t, e, "spin"), 0)
	for busy.Stats().Safepoints == 0 {
		runtime.Gosched()
	}
	i.Kill()
	p.Unpark()
	wantExit(t, i, killed)
	busy.Kill()
	wantExit(t, busy, killed)
}

// A guest is unparked and killed by many while it parks: it ends, and its slot
// is not lost.
func TestParkRaces(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		i, p := parker(t, e, 1_000_000, func() {})
		other, q := parker(t, e, 1_000_000, func() {})
		stop := make(chan struct{})
		for _, f := range []func(){p.Unpark, q.Unpark, p.Unpark} {
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						f()
						runtime.Gosched()
					}
				}
			}()
		}
		i.Kill()
		<-i.Done()
		other.Kill()
		<-other.Done()
		close(stop)
	}
	i, p := parker(t, e, 1, func() {})
	p.Unpark()
	wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
}

// Guests are killed in the moment in which they get a slot: none is lost.
func TestKillAtTheSlot(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 1})
	m := compile(t, e, "host")
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	call := func(context.Context, api.Module, int32) int32 { return 0 }
	for range rounds {
		first, second := start(t, e, m, 0, call), start(t, e, m, 0, call)
		second.Kill()
		<-first.Done()
		<-second.Done()
	}
	if free := e.Spare(); free != 1 {
		t.Fatalf("%d slots are free", free)
	}
	wantExit(t, start(t, e, m, 0, call), wasm.Exit{Reason: wasm.ReasonCompleted})
}

// Nor where the slot and the end come together, wherever the guest waits.
func TestEndTogetherWithASlot(t *testing.T) {
	for name, call := range map[string]callFunc{
		"at the start": nil,
		"in Enter": func(ctx context.Context, _ api.Module, _ int32) int32 {
			ctx.(wasm.Blocking).Leave()
			ctx.(wasm.Blocking).Enter()
			return 0
		},
		"in Park": func(ctx context.Context, _ api.Module, _ int32) int32 {
			ctx.(wasm.Parking).Park()
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, wasm.Config{Slots: 1})
			m := compile(t, e, "host")
			synctest.Test(t, func(t *testing.T) {
				holder := e.NewHolder()
				if call == nil {
					holder.Take()
				}
				i, err := e.Start(context.Background(), m, wasm.InstanceConfig{Context: func(ctx context.Context) context.Context {
					return context.WithValue(ctx, callKey{}, callFunc(func(ctx context.Context, mod api.Module, arg int32) int32 {
						holder.Push() // gets the slot as soon as the guest leaves
						return call(ctx, mod, arg)
					}))
				}})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // it waits now
				holder.LeaveAndEnd(i)
				wantExit(t, i, killed)
			})
			if free := e.Spare(); free != 1 {
				t.Fatalf("%d slots are free", free)
			}
		})
	}
}
