package wasm_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// requireAside skips the test where guests are not put aside.
func requireAside(t *testing.T) {
	t.Helper()
	wasmtest.RequireWAT(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("guests are put aside on amd64 only: wazero saves a register of Go's with theirs on arm64")
	}
	if !wasm.CompilerSupported() {
		t.Skip("wazero does not compile here")
	}
}

// asideEngine compiles under the race detector, too: the interpreter's guests
// cannot be put aside.
func asideEngine(t *testing.T, c wasm.Config) *wasm.Engine {
	t.Helper()
	c.Hosts = append(c.Hosts, testHost)
	e, err := wasm.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// sleeper is the host's side of a guest that sleeps in its calls.
type sleeper struct {
	sleeps  chan wasm.Parking // the guest, when it first calls
	ready   chan struct{}     // one for each call that may go on
	results []int32           // of the calls; then 0, without sleep
	calls   []int32           // their arguments
	away    int               // how often one was made again
	guest   wasm.Parking
}

func newSleeper(results ...int32) *sleeper {
	return &sleeper{sleeps: make(chan wasm.Parking, 1), ready: make(chan struct{}, 1000), results: results}
}

func (s *sleeper) call(ctx context.Context, _ api.Module, arg int32) int32 {
	s.calls = append(s.calls, arg)
	if len(s.results) == 0 {
		return 0
	}
	if s.guest == nil {
		s.guest = ctx.(wasm.Parking)
		s.sleeps <- s.guest
	}
	return s.wait()
}

func (s *sleeper) wait() int32 {
	for {
		select {
		case <-s.ready:
			r := s.results[0]
			s.results = s.results[1:]
			return r
		default:
		}
		s.guest.(wasm.Aside).ParkAside(func(ctx context.Context, result *uint64) {
			s.away++
			s.guest = ctx.(wasm.Parking)
			*result = uint64(uint32(s.wait()))
		})
	}
}

// A guest that is put aside finds its stack, its memory and its registers as it
// has left them, and is charged the same.
func TestAside(t *testing.T) {
	requireAside(t)
	run := func(t *testing.T, sleep time.Duration) (calls []int32, away int, fuel uint64) {
		synctest.Test(t, func(t *testing.T) {
			e := asideEngine(t, wasm.Config{Slots: 1})
			s := newSleeper(1, 1, 1, 0)
			i := start(t, e, compile(t, e, "deep"), 0, s.call)
			guest := <-s.sleeps
			for range 4 {
				time.Sleep(sleep)
				s.ready <- struct{}{}
				guest.Unpark()
			}
			wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
			if spare := e.Spare(); spare != 1 {
				t.Errorf("%d slots are free, want 1", spare)
			}
			calls, away, fuel = s.calls, s.away, i.Stats().Fuel
		})
		return calls, away, fuel
	}
	calls, away, fuel := run(t, time.Millisecond)
	if away != 0 {
		t.Errorf("put aside %d times, though it slept for a millisecond", away)
	}
	asideCalls, away, asideFuel := run(t, time.Minute)
	if away != 4 {
		t.Errorf("%d calls were made again, want 4", away)
	}
	if !slices.Equal(calls, asideCalls) || len(calls) != 6 {
		t.Errorf("calls %v, want %v", asideCalls, calls)
	}
	if fuel != asideFuel || fuel == 0 {
		t.Errorf("%d units of fuel, want %d", asideFuel, fuel)
	}
}

// Who is aside has no goroutine, ends when killed, and leaves nothing.
func TestKillAside(t *testing.T) {
	requireAside(t)
	synctest.Test(t, func(t *testing.T) {
		e := asideEngine(t, wasm.Config{Slots: 1})
		m := compile(t, e, "deep")
		before := runtime.NumGoroutine()
		var guests []*wasm.Instance
		for range 200 {
			guests = append(guests, start(t, e, m, 0, newSleeper(1).call))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// The rest of the process may have begun something meanwhile.
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("%d goroutines for 200 guests that sleep", n)
		}
		for _, g := range guests {
			g.Kill()
		}
		for _, g := range guests {
			wantExit(t, g, killed)
		}
	})
}

// A signal comes to a guest that is aside as to one that is parked.
func TestSignalAside(t *testing.T) {
	requireAside(t)
	synctest.Test(t, func(t *testing.T) {
		e := asideEngine(t, wasm.Config{Slots: 1})
		var seen []int32
		var wait func(ctx context.Context)
		interrupted, handled := false, make(chan struct{})
		wait = func(ctx context.Context) {
			for {
				select {
				case <-ctx.(wasm.Interruptible).Interrupted():
					interrupted = true
					ctx.(wasm.Interruptible).Safepoint()
					return
				default:
				}
				ctx.(wasm.Aside).ParkAside(func(ctx context.Context, _ *uint64) { wait(ctx) })
			}
		}
		i := start(t, e, compile(t, e, "signal"), 0, func(ctx context.Context, _ api.Module, sig int32) int32 {
			if seen = append(seen, sig); sig == 0 {
				wait(ctx)
			} else if sig == 15 {
				close(handled)
			}
			return 0
		})
		time.Sleep(time.Minute)
		i.Signal(15)
		<-handled
		if !interrupted || !slices.Equal(seen, []int32{0, 15}) {
			t.Errorf("interrupted: %v, calls %v", interrupted, seen)
		}
		i.Signal(10)
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	})
}

// Guests are woken at the very moment at which they are put aside, and some are
// killed: none is lost, and no slot.
func TestAsideRaces(t *testing.T) {
	requireAside(t)
	synctest.Test(t, func(t *testing.T) {
		e := asideEngine(t, wasm.Config{Slots: 2})
		m := compile(t, e, "deep")
		const guests, rounds = 50, 20
		done := make(chan int, guests)
		for n := range guests {
			results := slices.Repeat([]int32{1}, rounds)
			results[rounds-1] = 0
			s := newSleeper(results...)
			i := start(t, e, m, 0, s.call)
			go func() {
				guest := <-s.sleeps
				for range rounds {
					time.Sleep(time.Second + time.Duration(rand.IntN(21)-10)*time.Duration(rand.IntN(2))*time.Millisecond)
					if rand.IntN(2) == 0 {
						guest.Unpark() // without reason
					}
					s.ready <- struct{}{}
					guest.Unpark()
					if n%10 == 0 && rand.IntN(rounds) == 0 {
						break
					}
				}
				if n%10 != 0 {
					wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
				}
				i.Kill()
				<-i.Done()
				done <- s.away
			}()
		}
		away := 0
		for range guests {
			away += <-done
		}
		if away == 0 {
			t.Error("nobody was put aside")
		}
		if spare := e.Spare(); spare != 2 {
			t.Errorf("%d slots are free, want 2", spare)
		}
	})
}
