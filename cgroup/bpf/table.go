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
// says who writes what. What only the thread itself writes, while it is pinned, is
// written without atomic instructions: a program that comes between runs on the
// same processor, and each such instruction costs as much as all the rest of a
// stint's beginning. The tables lie in memory that the race detector does not
// watch, as it knows goroutines and not threads.
type thread struct {
	tid     atomic.Uint32
	_       uint32
	owner   uint64
	since   int64
	event   atomic.Int64
	claimed int64
	sum     int64
	ended   int64
	taken   atomic.Int64
	_       [8]uint64
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

// getm is the identity of the calling thread as Go knows it: two nanoseconds
// instead of a system call.
//
//go:linkname getm runtime.getm
func getm() uintptr

// place is where the thread that ran last on a processor of Go's has its entry.
// Only who is pinned to that processor uses it.
type place struct {
	m     atomic.Uintptr
	tid   atomic.Uint32
	entry atomic.Pointer[thread]
	_     [5]uint64 // a cache line
}

const maxPlaces = 256 // processors of Go's beyond that ask the kernel every time

// current returns the entry of the thread that calls, which must be pinned to p;
// nil if the table has no room.
func (a *Accounting) current(p int) *thread {
	m := getm()
	if p >= maxPlaces {
		return a.find(threadID())
	}
	c := &a.places[p]
	if c.m.Load() == m {
		// The entry is somebody else's, or nobody's, if the thread is gone and
		// another one has got its m.
		if t := c.entry.Load(); t != nil && t.tid.Load() == c.tid.Load() {
			return t
		}
	}
	tid := threadID()
	t := a.find(tid)
	c.m.Store(m)
	c.tid.Store(tid)
	c.entry.Store(t)
	return t
}

func (a *Accounting) find(tid uint32) *thread {
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
	free.owner, free.ended = 0, 0
	free.claimed = free.taken.Load()
	free.sum = threadTime()
	free.since = nanotime()
	free.event.Store(free.since)
	free.tid.Store(tid)
	return free
}

// busy is the tid of an entry that is being set up. The kernel's are positive
// int32.
const busy = 1 << 31

// In the table of a host without BPF the members mean the following: event is when
// the thread's clock was last read, sum what it said then, and claimed less taken
// what has been charged since.
const (
	// exact is how long a stint must last for the thread's clock to be read for
	// it, and fresh how old the last reading may become.
	exact = 20_000
	fresh = 1_000_000
	// brief is what a thread may have done between two stints for the second one
	// to be charged with it: the switch to it.
	brief = 1_000
	// short is a stint whose end is only noted.
	short = 5_000
)

// settle charges what the calling, pinned thread has run since the last event
// or change to its owner, and to the host what it has since that one's stint
// ended.
func (a *Accounting) settle(t *thread, now int64) {
	if a.Mechanism() == ThreadClock {
		a.settleByClock(t, now)
		return
	}
	for {
		event := t.event.Load()
		from := max(event, t.since)
		own, rest := max(now-from, 0), int64(0)
		if t.ended != 0 {
			own = max(t.ended-from, 0)
			if rest = now - max(from, t.ended); rest < brief {
				now, rest = now-rest, 0 // what is left is for who comes next
			}
		}
		t.claimed += own + rest
		if t.event.Load() == event || t.taken.Load() == t.claimed {
			if own > 0 {
				a.charge(t.owner, own)
			}
			if rest > 0 {
				a.charge(0, rest)
			}
			t.since = now
			return
		}
		// The scheduler has come between, and has charged the time itself before
		// it was claimed.
		t.claimed -= own + rest
		now = nanotime()
	}
}

// settleByClock charges a short stint by the time it took. A long one may have
// been off the processor and is charged what the thread's clock says, less what
// has been charged since that was last read.
func (a *Accounting) settleByClock(t *thread, now int64) {
	owner := t.owner
	if t.ended != 0 {
		owner = 0
	}
	ran := max(now-t.since, 0)
	t.since = now
	if ran < exact && now-t.event.Load() < fresh {
		if owner != 0 {
			a.charge(owner, ran)
			t.claimed += ran
		}
		return
	}
	clock := threadTime()
	// A reused number: the thread's clock begins anew.
	rest := max(clock-t.sum, 0) - (t.claimed - t.taken.Load())
	t.sum = clock
	t.event.Store(now)
	if owner != 0 {
		ran = min(ran, max(rest, 0))
		a.charge(owner, ran)
		rest -= ran
	}
	// Too much has been charged if a short stint was not all on the processor.
	t.taken.Store(t.claimed - max(-rest, 0))
	if rest > 0 {
		a.charge(0, rest)
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
// belongs to the goroutine that runs the guest. Its methods take the time, as Now
// returns it, from callers that know it anyway.
type Stint struct {
	account *Account
	thread  *thread
}

// Now is CLOCK_MONOTONIC in nanoseconds, also in a synctest bubble.
func Now() int64 { return nanotime() }

// Stint returns one that is yet to begin. It may begin and end any number of
// times.
func (c *Account) Stint() *Stint { return &Stint{account: c} }

// Begin says that the calling goroutine runs for the container from now on. It
// is to be ended before the goroutine sleeps or yields, since Go may have it go
// on in another thread, while the first serves somebody else. What the thread
// did for less than a microsecond before is charged to the container: that is
// the switch to it.
func (s *Stint) Begin(now int64) {
	a := s.account.accounting
	t := a.current(procPin())
	if t != nil {
		if now-max(t.since, t.ended, t.event.Load()) >= brief || t.owner != 0 {
			a.settle(t, now)
		}
		t.owner = s.account.owner
		t.ended = 0
	}
	procUnpin()
	s.thread = t
}

// End is the opposite of Begin. Of a short stint, if there is a program, it only
// notes the time: what comes next, the thread's next stint or the scheduler, charges
// the container, unless its account is closed by then.
func (s *Stint) End(now int64) {
	t := s.thread
	if t == nil {
		return
	}
	s.thread = nil
	a := s.account.accounting
	switch {
	case a.current(procPin()) != t || t.owner != s.account.owner:
		s.moved(t)
	case a.Mechanism() == ThreadClock:
		a.settle(t, now)
		t.owner = 0
	default:
		if now-t.since >= short {
			a.settle(t, now)
		}
		t.ended = now
	}
	procUnpin()
}

// Check charges what the stint has run so far and says whether the container's
// budget is spent: then [Account.Wait] says until when.
func (s *Stint) Check(now int64) (spent bool) {
	c := s.account
	a := c.accounting
	t := a.current(procPin())
	if t != s.thread || t == nil || t.owner != c.owner || t.ended != 0 {
		s.moved(s.thread)
		if s.thread = t; t != nil {
			a.settle(t, now)
			t.owner = c.owner
			t.ended = 0
		}
	} else {
		a.settle(t, now)
	}
	procUnpin()
	return c.Spent()
}

// Spent says whether the container's budget was spent when it was last charged, or
// that of its group: two loads, and one more for each member of a group.
func (c *Account) Spent() bool {
	limit := c.entry.limit.Load()
	return limit != 0 && c.entry.cpu.Load() >= limit || c.group != nil && c.group.spent()
}

// moved takes the container's name off a thread that Go has given to somebody
// else. What that ran meanwhile stays charged to the container: it is bounded by
// the time between two safepoints.
func (s *Stint) moved(t *thread) {
	if t != nil {
		atomic.CompareAndSwapUint64(&t.owner, s.account.owner, 0)
	}
}
