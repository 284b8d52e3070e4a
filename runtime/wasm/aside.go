package wasm

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// A guest that sleeps for long needs no goroutine. wazero's loop that calls the
// host takes 2.3 KB of a goroutine's stack by itself, so that no stack below
// 8 KB holds a guest that waits in a host call, and Go does not make it smaller.
// So a guest that has slept for a while in a host call that can be made again is
// put aside: what is in use of its own stack is copied (wazero's Snapshot), the
// host call panics, and the goroutine ends. What would have woken it starts
// another goroutine, which calls the entry function once more with a budget of
// less than nothing. The first thing that a function does that makes calls is to
// charge for them, so that the guest comes to the host before it has done
// anything; the host call is made again, and its results are what the stack that
// was copied goes on with (Restore).

const (
	// asideAfter is how long a guest sleeps before it is put aside. Going and
	// coming back cost some ten microseconds.
	asideAfter = time.Second
	// asideAtOnce bounds how many are put aside at a time, and asidePause is
	// the time before the next: guests that started together go together.
	asideAtOnce = 64
	asidePause  = 5 * time.Millisecond
	// mostAside is how much stack in use is worth copying.
	mostAside = 64 << 10
	// returnStack is what a guest comes back on, until it has its own stack.
	returnStack = 512
	// asideSlack is free on the stack of a guest that has come back.
	asideSlack = 512
	// canPutAside: on arm64 wazero saves with the registers of a guest the one
	// that belongs to Go's goroutine.
	canPutAside = runtime.GOARCH == "amd64"
)

// Aside is implemented by the context of every host call.
type Aside interface {
	// ParkAside is [Parking].Park for a call that has had no effect yet, and
	// that leaves everything in place that is to call Unpark: it may, after a
	// while, not return. Deferred functions run then; and when the guest is to
	// go on restart is called, on another goroutine, with the context of the
	// guest's calls. It makes the host call again, from the beginning, and sets
	// its result. A guest that is killed meanwhile ends without it.
	ParkAside(restart func(ctx context.Context, result *uint64))
}

var errAside = errors.New("put aside")

// kept is what there is of a guest without a goroutine.
type kept struct {
	restart  func(context.Context, *uint64)
	snapshot experimental.Snapshot
	counter  uint64 // the global that counts
}

// ParkAside implements [Aside].
func (c *guestContext) ParkAside(restart func(context.Context, *uint64)) {
	i := c.instance
	able := i.aside.able && !i.handling
	if i.turn.park(able) {
		return
	}
	if able && i.turn.aside.asked {
		if stackInUse(i.entry) <= mostAside {
			i.putAside(restart)
		}
		i.turn.aside.asked = false
		c.Park() // it stays
		return
	}
	i.killed()
}

// life is an instance's part in this.
type life struct {
	kept      *kept // while it is aside, and until it has come back
	able      bool  // the entry function is one that can be left and entered
	leaving   bool  // on the way out of the goroutine
	returning bool  // on the way back in
}

// prepare finds out whether the instance can be put aside.
func (i *Instance) prepareAside(small bool) {
	_, snapshots := i.entry.(experimental.Snapshotter)
	i.aside.able = canPutAside && small && snapshots && setGlobal(i.mod) != nil
}

// setGlobal finds what sets the last global of a module.
func setGlobal(mod api.Module) interface{ SetValue(lo, hi uint64) } {
	globals := field(mod, "Globals")
	if globals.Kind() != reflect.Slice || globals.Len() == 0 || !globals.CanInterface() {
		return nil
	}
	g, _ := globals.Index(globals.Len() - 1).Interface().(interface{ SetValue(lo, hi uint64) })
	return g
}

// putAside leaves the host call and the goroutine.
func (i *Instance) putAside(restart func(context.Context, *uint64)) {
	i.aside.leaving = true
	if i.aside.kept == nil { // else it had not come back yet
		i.meter.read(i.mod)
		i.aside.kept = &kept{snapshot: snapshot(i.entry), counter: i.meter.counter.Get()}
	}
	i.aside.kept.restart = restart
	panic(errAside)
}

// comeBack calls the entry function of a guest that is aside.
func (i *Instance) comeBack() error {
	setStack(i.entry, make([]byte, returnStack))
	setGlobal(i.mod).SetValue(uint64(^uint32(0)), 0) // -1
	i.aside.returning = true
	_, err := i.entry.Call(experimental.WithSnapshotter(i.ctx))
	return err
}

// back goes on where the guest was when it was put aside. It is called in the
// first safepoint of comeBack, and does not return.
func (i *Instance) back() {
	a := i.aside.kept
	i.aside.returning = false
	setGlobal(i.mod).SetValue(a.counter, 0)
	result := make([]uint64, 1)
	a.restart(i.ctx, &result[0])
	i.aside.kept = nil
	a.snapshot.Restore(result)
}

// asideState is a turn's part.
type asideState struct {
	asked bool // to leave; set by the sweep and under s.mu
	away  bool // it has no goroutine; under s.mu
	live  func()

	// In the list of those who sleep, under s.mu.
	since          int64
	listed         bool
	previous, next *turn
}

// settle is the last that the goroutine of a guest does that is put aside. If it
// is false it is to go on at once.
func (t *turn) settle() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.aside.asked = false
	t.aside.away = !t.permit.Load()
	return t.aside.away
}

// recall gives a guest that is aside a goroutine. The caller holds s.mu.
func (t *turn) recall() {
	if t.aside.away {
		t.aside.away = false
		go t.aside.live()
	}
}

// idleList has those who sleep and can be put aside, the longest first. It is
// under the mutex of its scheduler.
type idleList struct {
	mu          *sync.Mutex
	first, last *turn
	armed       bool
}

func (l *idleList) add(t *turn, now int64) {
	a := &t.aside
	a.since, a.listed, a.previous, a.next = now, true, l.last, nil
	if l.last == nil {
		l.first = t
	} else {
		l.last.aside.next = t
	}
	l.last = t
	l.arm(asideAfter)
}

func (l *idleList) remove(t *turn) {
	a := &t.aside
	if !a.listed {
		return
	}
	if a.previous == nil {
		l.first = a.next
	} else {
		a.previous.aside.next = a.next
	}
	if a.next == nil {
		l.last = a.previous
	} else {
		a.next.aside.previous = a.previous
	}
	a.listed, a.previous, a.next = false, nil, nil
}

// arm has the list looked at later. There is no timer while nobody sleeps, nor
// when all that do are aside.
func (l *idleList) arm(d time.Duration) {
	if !l.armed {
		l.armed = true
		time.AfterFunc(d, l.sweep)
	}
}

// sweep asks those to leave who have slept for long.
func (l *idleList) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	now := clock()
	for n := 0; l.first != nil; n++ {
		t := l.first
		if rest := asideAfter - time.Duration(now-t.aside.since); rest > 0 || n == asideAtOnce {
			l.arm(max(rest, asidePause))
			return
		}
		l.remove(t)
		t.parked = false
		t.aside.asked = true
		t.resume(false)
	}
}
