package bpf

import (
	"sync/atomic"
	_ "unsafe" // for linkname
)

const (
	maxThreads = 4096 // as in account.c
	probes     = 4
)

// thread and container are the tables' entries as account.c has them, which
// says who writes what.
type thread struct {
	tid     atomic.Uint32
	_       uint32
	owner   atomic.Uint64
	since   atomic.Int64
	event   atomic.Int64
	claimed atomic.Int64
	sum     atomic.Int64
	_       [10]uint64
}

type container struct {
	generation atomic.Uint32
	spent      atomic.Uint32
	cpu        atomic.Int64
	limit      atomic.Int64
	delay      atomic.Int64
	minor      atomic.Int64
	major      atomic.Int64
	_          [2]uint64
}

// nanotime is CLOCK_MONOTONIC, as bpf_ktime_get_ns is, also in a synctest bubble.
//
//go:linkname nanotime runtime.nanotime
func nanotime() int64

// procPin keeps the goroutine on its thread: what is said of a thread must be
// said by itself. It must not block nor allocate until procUnpin.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

// current returns the entry of the thread that calls, which must be pinned; nil
// if the table has no room.
func (a *Accounting) current() *thread {
	tid := threadID()
	var free *thread
	for i := range uint32(probes) {
		t := &a.threads[(tid+i)%maxThreads]
		switch t.tid.Load() {
		case tid:
			return t
		case 0:
			if free == nil {
				free = t
			}
		}
	}
	return a.register(tid, free)
}

// register gives the calling thread an entry.
func (a *Accounting) register(tid uint32, free *thread) *thread {
	for i := uint32(0); ; i++ {
		if free != nil && free.tid.CompareAndSwap(0, busy) {
			break
		}
		if i == probes {
			a.unplaced.Add(1)
			return nil
		}
		// Without the program that frees entries some belong to threads that
		// are gone.
		free = &a.threads[(tid+i)%maxThreads]
		if old := free.tid.Load(); old != 0 && old != busy && !threadLives(old) {
			free.tid.CompareAndSwap(old, 0)
		}
	}
	free.owner.Store(0)
	free.claimed.Store(0)
	free.sum.Store(threadTime())
	now := nanotime()
	free.since.Store(now)
	free.event.Store(now)
	free.tid.Store(tid)
	return free
}

// busy is the tid of an entry that is being set up. The kernel's are positive
// int32.
const busy = 1 << 31

// settle charges what the calling, pinned thread has run since the last event
// or change to its owner.
func (a *Accounting) settle(t *thread) {
	if a.mechanism == ThreadClock {
		now := threadTime()
		// A reused number: the thread's clock begins anew.
		a.charge(t.owner.Load(), max(now-t.sum.Swap(now), 0))
		return
	}
	for {
		event := t.event.Load()
		now := nanotime()
		ran := max(now-max(event, t.since.Load()), 0)
		t.claimed.Add(ran)
		if t.event.Load() == event {
			a.charge(t.owner.Load(), ran)
			t.since.Store(now)
			return
		}
		// The scheduler has come between. If it has taken the claim, that is
		// valid; else it has charged the time itself.
		if t.claimed.Load() == 0 {
			a.charge(t.owner.Load(), ran)
		} else {
			t.claimed.Add(-ran)
		}
	}
}

// charge adds to a container, if it is there still, else to the host.
func (a *Accounting) charge(owner uint64, ran int64) {
	c := &a.containers[uint32(owner)]
	if c.generation.Load() != uint32(owner>>32) {
		c = &a.containers[0]
	}
	c.cpu.Add(ran)
}

// A Stint is the time for which a container has a thread, or several in turn. It
// belongs to the goroutine that runs the guest.
type Stint struct {
	account *Account
	thread  *thread
}

// Begin says that the calling goroutine runs for the container from now on. It
// is to be ended before the goroutine sleeps or yields, since Go may have it go
// on in another thread, while the first serves somebody else.
func (c *Account) Begin() Stint {
	a := c.accounting
	procPin()
	t := a.current()
	if t != nil {
		a.settle(t)
		t.owner.Store(c.owner)
	}
	procUnpin()
	return Stint{c, t}
}

// End is the opposite of Begin.
func (s *Stint) End() {
	if s.thread == nil {
		return
	}
	a := s.account.accounting
	procPin()
	if s.here() {
		a.settle(s.thread)
		s.thread.owner.Store(0)
	} else {
		s.moved()
	}
	procUnpin()
	s.thread = nil
}

// Check charges what the stint has run so far and says whether the container's
// budget is spent: then [Account.Wait] says until when. The zero Stint never is.
func (s *Stint) Check() (spent bool) {
	if s.account == nil {
		return false
	}
	c := s.account
	a := c.accounting
	procPin()
	if s.thread == nil || !s.here() {
		s.moved()
		if s.thread = a.current(); s.thread != nil {
			a.settle(s.thread)
			s.thread.owner.Store(c.owner)
		}
	} else {
		a.settle(s.thread)
	}
	procUnpin()
	limit := c.entry.limit.Load()
	return limit != 0 && c.entry.cpu.Load() >= limit
}

// here says whether the goroutine is still on the thread of its stint.
func (s *Stint) here() bool {
	return s.thread.tid.Load() == threadID() && s.thread.owner.Load() == s.account.owner
}

// moved takes the container's name off a thread that Go has given to somebody
// else. What that ran meanwhile stays charged to the container: it is bounded by
// the time between two safepoints.
func (s *Stint) moved() {
	if s.thread != nil {
		s.thread.owner.CompareAndSwap(s.account.owner, 0)
	}
}
