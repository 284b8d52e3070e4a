package wasm_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// ring starts guests that pass a token on to one another, so many times each, and
// calls each whenever one has got it.
func ring(t *testing.T, e *wasm.Engine, guests, rounds int, each func(guest, round int)) []*wasm.Instance {
	t.Helper()
	return rings(t, e, guests, rounds, each, func(int, int) {})
}

// rings is ring that also calls after when it has been passed on.
func rings(t *testing.T, e *wasm.Engine, guests, rounds int, each, after func(guest, round int)) []*wasm.Instance {
	t.Helper()
	m := compile(t, e, "host")
	type place struct {
		full atomic.Bool
		who  atomic.Pointer[wasm.Parking]
	}
	places := make([]place, guests)
	var all []*wasm.Instance
	for n := range guests {
		in, out := &places[n], &places[(n+1)%guests]
		all = append(all, start(t, e, m, 0, func(ctx context.Context, _ api.Module, _ int32) int32 {
			p := ctx.(wasm.Parking)
			in.who.Store(&p)
			for round := range rounds {
				if n > 0 || round > 0 {
					for !in.full.CompareAndSwap(true, false) {
						p.Park()
					}
				}
				each(n, round)
				out.full.Store(true)
				if who := out.who.Load(); who != nil {
					(*who).Unpark()
				}
				after(n, round)
			}
			return 0
		}))
	}
	return all
}

// Guests that hand a slot to one another leave nothing behind, and all slots.
func TestBerths(t *testing.T) {
	for _, slots := range []int{1, 2} {
		e := newEngine(t, wasm.Config{Slots: slots})
		for _, guests := range []int{2, 5} {
			var most atomic.Int64
			for _, i := range ring(t, e, guests, 200, func(int, int) { most.Store(max(most.Load(), int64(e.Berths()))) }) {
				wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
			}
			if most.Load() == 0 || most.Load() > int64(guests) {
				t.Errorf("%d berths for %d guests", most.Load(), guests)
			}
		}
		if free, berths := e.Spare(), e.Berths(); free != slots || berths != 0 {
			t.Errorf("%d of %d slots are free, and %d berths left", free, slots, berths)
		}
	}
}

// In a bubble a guest that sleeps in a berth is durably blocked, and no goroutine
// of a berth stays behind.
func TestBerthsInABubble(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2})
	compile(t, e, "host")
	synctest.Test(t, func(t *testing.T) {
		for _, i := range ring(t, e, 3, 100, func(int, int) {}) {
			wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		}
		held := make(chan struct{})
		all := ring(t, e, 2, 100, func(guest, round int) {
			if guest == 0 && round == 50 {
				<-held
			}
		})
		synctest.Wait()
		close(held)
		for _, i := range all {
			wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		}
	})
}

// A guest that has always parked right after it has woken another, and then does not,
// neither ends nor comes to a safepoint: the other one runs all the same.
func TestHeirOfABusyGuest(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2})
	const when = 20_000
	went := make(chan struct{})
	for _, i := range rings(t, e, 2, when+2, func(guest, round int) {
		if guest == 1 && round == when {
			close(went)
		}
	}, func(guest, round int) {
		if guest == 0 && round == when {
			<-went
		}
	}) {
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	}
}

// Guests are killed wherever they sleep, and also while they are to inherit a
// slot: the slots and the berths come back.
func TestKillInABerth(t *testing.T) {
	e := newEngine(t, wasm.Config{Slots: 2})
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	for range rounds {
		when := rand.N(2000)
		var count atomic.Int64
		reached := make(chan struct{})
		all := ring(t, e, 4, 1_000_000, func(int, int) {
			if count.Add(1) == int64(when) {
				close(reached)
			}
		})
		if when == 0 {
			close(reached)
		}
		<-reached
		for _, n := range rand.Perm(len(all)) {
			all[n].Kill()
		}
		for _, i := range all {
			wantExit(t, i, killed)
		}
		if free, berths := e.Spare(), e.Berths(); free != 2 || berths != 0 {
			t.Fatalf("%d of 2 slots are free, and %d berths left", free, berths)
		}
	}
}
