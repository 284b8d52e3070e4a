package bpf

import (
	"sync/atomic"
	"time"
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
	passed  atomic.Uint32
	since   int64
	event   atomic.Int64
	claimed [cells]int64
	owner   [cells - 1]uint64
	sum     int64
	taken   atomic.Int64
	paid    [cells]atomic.Int64
	_       uint64
	_       [2]uint32
	cur     uint32
	seen    uint16
	recent  uint16
}

// cells of a thread are the host's and one for each of the two containers that it
// has served last.
const cells = 3

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
		default:
			if free == nil { // the program is to look further, too
				t.passed.Store(1)
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
		free.passed.Store(1)
		if old := free.tid.Load(); old != 0 && old != busy && !threadLives(old) {
			free.tid.CompareAndSwap(old, 0)
		}
	}
	for i := range free.claimed {
		a.pay(free, uint32(i)) // of a thread that is gone
		free.paid[i].Store(free.claimed[i])
	}
	free.owner, free.cur, free.seen, free.recent = [cells - 1]uint64{}, 0, 0, 1
	free.taken.Store(free.total())
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
	// short is what a cell may hold that is not added to its container yet, as in
	// account.c.
	short = 5_000
)

// total is what the thread has ever claimed.
func (t *thread) total() int64 { return t.claimed[0] + t.claimed[1] + t.claimed[2] }

// cell is the current one. User space alone writes it, but not to be trusted with
// the bounds of an array.
func (t *thread) cell() uint32 {
	if cur := t.cur; cur < cells {
		return cur
	}
	return 0
}

// holds says whether the current cell is that of a container.
func (t *thread) holds(owner uint64) bool {
	cur := t.cur
	return cur-1 < cells-1 && t.owner[cur-1] == owner
}

// settle claims what the calling, pinned thread has run since the last event or
// change for whom it serves.
func (a *Accounting) settle(t *thread, now int64) {
	if a.clocked.Load() {
		a.settleByClock(t, now)
		return
	}
	t.claim(now)
	a.payLong(t)
}

// claim is settle, with a program.
func (t *thread) claim(now int64) {
	cell := &t.claimed[t.cell()]
	for {
		event := t.event.Load()
		ran := now - max(event, t.since)
		if ran <= 0 {
			break
		}
		*cell += ran
		if t.event.Load() == event || t.taken.Load() == t.total() {
			break
		}
		// The scheduler has come between, and the program has put the time into the
		// cell itself before it was claimed.
		*cell -= ran
		now = nanotime()
	}
	t.since = now
}

// settleByClock claims a short stint by the time it took. A long one may have
// been off the processor and gets what the thread's clock says, less what
// has been claimed since that was last read.
func (a *Accounting) settleByClock(t *thread, now int64) {
	cell := t.cell()
	ran := max(now-t.since, 0)
	t.since = now
	if ran < exact && now-t.event.Load() < fresh {
		if cell != 0 {
			t.claimed[cell] += ran
			a.payLong(t)
		}
		return
	}
	clock := threadTime()
	// A reused number: the thread's clock begins anew.
	rest := max(clock-t.sum, 0) - (t.total() - t.taken.Load())
	t.sum = clock
	t.event.Store(now)
	if cell != 0 {
		ran = min(ran, max(rest, 0))
		t.claimed[cell] += ran
		rest -= ran
	}
	if rest > 0 {
		t.claimed[0] += rest
		rest = 0
	}
	// Too much has been claimed if a short stint was not all on the processor.
	t.taken.Store(t.total() + rest)
	for i := range uint32(cells) {
		a.pay(t, i)
	}
}

// payLong adds what the current cell holds to its container, if that is much.
func (a *Accounting) payLong(t *thread) {
	cell := t.cell()
	if t.claimed[cell]-t.paid[cell].Load() >= short {
		a.pay(t, cell)
	}
}

// pay adds what a cell holds to its container.
func (a *Accounting) pay(t *thread, cell uint32) {
	for {
		paid, claimed := t.paid[cell].Load(), t.claimed[cell]
		if claimed <= paid {
			return // more was claimed than there was: until there is that much more
		}
		if t.paid[cell].CompareAndSwap(paid, claimed) {
			owner := uint64(0)
			if cell != 0 {
				owner = t.owner[cell-1]
			}
			a.charge(owner, claimed-paid)
			return
		}
	}
}

// serve has the thread serve a container from now on, in whose cell it puts what
// follows: its own if it has one, else that of the container that it has served less
// lately.
func (a *Accounting) serve(t *thread, owner uint64) {
	cur := uint32(1)
	switch owner {
	case t.owner[0]:
	case t.owner[1]:
		cur = 2
	default:
		if recent := t.cell(); recent == 1 || recent == 0 && t.recent == 1 {
			cur = 2
		}
		a.pay(t, cur)
		t.owner[cur-1] = owner
	}
	t.cur = cur
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
// belongs to the goroutine that runs the guest. Its methods take the time from
// callers that know it anyway.
//
// It is a cache line.
type Stint struct {
	account    *Account
	accounting *Accounting
	limit      *atomic.Int64 // the account's
	owner      uint64
	behind     int64
	thread     *thread // nil: it is not under way
	m          uintptr // as Go knows the thread, and unquick
	tid        uint32
	cell       uint16 // of the container on the thread that it was on last
	grouped    bool
	waits      bool // counted in account.waiting; under account.mu
}

// unquick says of a stint that it is not under way, so that it cannot simply be handed
// over.
const unquick = 1

// Now is CLOCK_MONOTONIC in nanoseconds, also in a synctest bubble.
func Now() int64 { return nanotime() }

// Stint returns one that is yet to begin. It may begin and end any number of
// times. The clock that it is told the time of may be so many nanoseconds behind
// that of Now.
func (c *Account) Stint(behind int64) *Stint {
	return &Stint{account: c, accounting: c.accounting, owner: c.owner, behind: behind, limit: &c.entry.limit, grouped: c.group != nil}
}

// Begin says that the calling goroutine runs for the container from now on. It
// is to be ended before the goroutine sleeps or yields, since Go may have it go
// on in another thread, while the first serves somebody else. What the thread
// did for less than a microsecond before is charged to the container: that is
// the switch to it.
func (s *Stint) Begin(now int64) { s.begin(now+s.behind, brief) }

// begin charges what the thread did for no less than that to whom it served.
func (s *Stint) begin(now, least int64) {
	a := s.accounting
	t := a.current(procPin())
	if t != nil {
		if t.cell() != 0 || now-max(t.since, t.event.Load()) >= least {
			a.settle(t, now)
		}
		a.serve(t, s.owner)
		s.m, s.tid, s.cell = getm(), t.tid.Load(), uint16(t.cur)
	}
	procUnpin()
	s.thread = t
}

// End is the opposite of Begin. What was short may be added to the container
// later: by another stint on that thread, or the scheduler.
func (s *Stint) End(now int64) {
	t := s.thread
	if t == nil {
		return
	}
	procPin()
	if s.under(t) {
		s.accounting.settle(t, now+s.behind)
		t.cur, t.recent = 0, s.cell
	} else {
		s.moved(t)
	}
	procUnpin()
	s.m |= unquick
	s.thread = nil
}

// under says whether the stint is under way on the thread that calls, which is pinned.
func (s *Stint) under(t *thread) bool {
	return getm() == s.m&^unquick && t.tid.Load() == s.tid && t.holds(s.owner)
}

// HandOver ends the stint and begins the next one, a *Stint, of a goroutine that goes
// on on this thread, and says whether that one's budget is spent. It is much cheaper
// than End and Begin are: guests that wake each other do so every 250 ns.
//
// It does not pin the goroutine, which would be a third of its cost. Should Go take the
// goroutine off the thread within these few nanoseconds, what that thread does until it
// goes on may be claimed twice, for whom it serves and for one of these two: the
// sum is put right with what the thread runs next.
func (s *Stint) HandOver(next any, now int64) (spent bool) {
	n := next.(*Stint)
	m := getm()
	t, from, to := s.thread, uint32(s.cell), uint32(n.cell)
	if m != s.m || t.tid.Load() != s.tid || t.cur != from || s.accounting != n.accounting ||
		from-1 >= cells-1 || t.owner[from-1] != s.owner || to-1 >= cells-1 || t.owner[to-1] != n.owner {
		return s.handOverSlowly(n, now)
	}
	a := s.accounting
	at, event := now+s.behind, t.event.Load()
	ran := at - max(event, t.since)
	if uint64(ran) >= fresh || a.clocked.Load() && (ran >= exact || at-event >= fresh) {
		return s.handOverSlowly(n, now)
	}
	t.claimed[from] += ran
	if t.event.Load() != event {
		if t.taken.Load() != t.total() { // see claim
			t.claimed[from] -= ran
		}
		return s.handOverSlowly(n, now)
	}
	t.since = at
	t.cur = to
	if t.claimed[from]-t.paid[from].Load() >= short {
		a.pay(t, from)
	}
	n.m, n.tid, n.thread = m, s.tid, t
	s.m, s.thread = m|unquick, nil
	return (n.grouped || n.limit.Load() != 0) && n.account.Spent()
}

func (s *Stint) handOverSlowly(next *Stint, now int64) (spent bool) {
	s.End(now)
	next.Begin(now)
	return next.account.Spent()
}

// Check charges what the stint has run so far and says whether the container's
// budget is spent: then [Account.Wait] says until when.
func (s *Stint) Check(now int64) (spent bool) {
	t := s.thread
	procPin()
	if t != nil && s.under(t) {
		s.accounting.settle(t, now+s.behind)
		s.accounting.pay(t, t.cell())
		procUnpin()
	} else {
		procUnpin()
		if t != nil {
			s.moved(t)
		}
		s.begin(now+s.behind, 0)
	}
	return s.account.Spent()
}

// GiveBack has the host pay for what the thread has run since then, all but so much of it
// and at most so much (ns): for a caller who knows that Go had the thread run something else
// in a stint that is under way. It returns what that is: 0 if the stint has begun later,
// or is not under way on this thread any more, or there is no program. What ran before the
// thread was last switched in stays charged.
func (s *Stint) GiveBack(now, since, keep, most int64) (given int64) {
	t := s.thread
	if t == nil || s.accounting.clocked.Load() {
		return 0
	}
	procPin()
	if s.under(t) {
		now, since = now+s.behind, since+s.behind
		given = min(now-max(t.event.Load(), since)-keep, most)
		if given > 0 {
			t.claim(now)
			// The sum of all cells is what counts for the program, and stays as it is.
			t.claimed[t.cell()] -= given
			t.claimed[0] += given
		}
	}
	procUnpin()
	return max(given, 0)
}

// Spent says whether the container's budget was spent when it was last charged, or
// that of its group: two loads, and one more for each member of a group.
func (c *Account) Spent() bool {
	limit := c.entry.limit.Load()
	return limit != 0 && c.entry.cpu.Load() >= limit || c.group != nil && c.group.spent()
}

// Wait is [Account.Wait] of a guest that waits, which may be one of several of the container.
// It calls it again after that time, or when changed is closed, until it gets 0 or calls Stop.
func (s *Stint) Wait() (d time.Duration, changed <-chan struct{}) {
	c := s.account
	c.mu.Lock()
	defer c.mu.Unlock()
	if d = c.wait(true); d == 0 {
		s.stopWaiting()
		return 0, nil
	}
	if !s.waits {
		s.waits = true
		c.waiting++
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return d, c.changed
}

// Stop says that the guest does not wait any more, because it was killed. The container is
// throttled for as long as others do.
func (s *Stint) Stop() {
	c := s.account
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.stopWaiting(); c.waiting == 0 {
		c.stop()
	}
}

// stopWaiting takes the guest out of those that wait. account.mu is held.
func (s *Stint) stopWaiting() {
	if s.waits {
		s.waits = false
		s.account.waiting--
	}
}

// moved takes the container's name off a thread that Go has given to somebody
// else. What that ran meanwhile stays charged to the container: it is bounded by
// the time between two safepoints.
func (s *Stint) moved(t *thread) {
	if cur := atomic.LoadUint32(&t.cur); cur-1 < cells-1 && atomic.LoadUint64(&t.owner[cur-1]) == s.owner {
		atomic.CompareAndSwapUint32(&t.cur, cur, 0)
	}
}
