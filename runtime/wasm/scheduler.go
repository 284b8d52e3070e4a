package wasm

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
	"github.com/wasmpod/wasmpod/runtime/wasm/schedule"
)

// How long guests run. All of it is looked at in safepoints only, which a busy
// guest crosses every few hundred microseconds.
const (
	// sliceLength is how long a guest runs on while others wait.
	sliceLength = 5 * time.Millisecond
	// leastSlice is how long it runs at least, even if one that has just woken
	// up is to go first.
	leastSlice = 500 * time.Microsecond
	// sliceSafepoints ends a slice too: in a synctest bubble the clock stands
	// still while guests run.
	sliceSafepoints = 256
	// wakeCredit is what a guest that was asleep is owed, so that it runs
	// before those that never sleep.
	wakeCredit = sliceLength
	// newDebit is what a newcomer owes. Without it, and with ever more of them,
	// none staying for long, the present would stand still, and guests that have
	// used a little more than that would get nothing.
	newDebit = time.Millisecond
	// mostOwed is what one is owed that could not use all of its share.
	mostOwed = 100 * time.Millisecond
	// interval is how long a guest should run between safepoints, and
	// leastBudget where to stop in pursuit of it.
	interval    = 250 * time.Microsecond
	leastBudget = 16
	// breather is how often a guest that goes on lets Go's own goroutines run,
	// and compileBreather how often while a module is compiled: who compiles
	// runs for 10 ms at a time, and guests would get nothing beside it.
	breather        = 100 * time.Microsecond
	compileBreather = 2 * time.Millisecond
	// spareBreather is how often while there is a slot to spare: Go has a processor
	// of its own then, and with every breath it would wake that one up to look for
	// work, and to take the guest away.
	spareBreather = 5 * time.Millisecond
	// longBreather is for guests that hand a slot to one another while another is
	// free: to yield wakes a thread, which takes longer than a hundred turns.
	longBreather = time.Millisecond
	// pollInterval is how often one of them has Go's scheduler look at the
	// network while guests have all processors.
	pollInterval = 250 * time.Microsecond
)

// scheduler bounds how many guests execute at a time and shares these slots by
// weight. It leaves Go's scheduler with as few busy goroutines as there are
// slots, however many guests are runnable, so that timers, network and garbage
// collection find a processor.
type scheduler struct {
	waiting   atomic.Int32 // tasks in queue, for a look without the lock
	spare     atomic.Int32 // slots that are free
	compiling atomic.Int32 // modules
	polled    atomic.Int64 // when, since epoch

	collection collection

	mu     sync.Mutex
	queue  schedule.Queue
	young  nursery
	idle   idleList
	berths berths
}

// epoch is a time before all others.
var epoch = time.Now()

func newScheduler(slots int) *scheduler {
	s := &scheduler{}
	network() // its descriptors are the process's, not those of the first busy guest
	s.idle.mu = &s.mu
	s.young.most = youngPerSlot * slots
	s.collection.init(slots)
	s.spare.Store(int32(slots))
	return s
}

// clock is the time since epoch in nanoseconds.
func clock() int64 { return int64(time.Since(epoch)) }

// turn is a guest's part in its scheduler. Only unpark, end and usage may be
// called from another goroutine than the guest's.
type turn struct {
	s       *scheduler
	task    *schedule.Task
	granted chan bool    // wakes the guest that waits: with a slot, or without as it is to end
	has     bool         // the guest has a slot
	old     bool         // it has had one before
	began   int64        // of its slice, in so far as not charged yet
	breath  int64        // when Go's goroutines last had their chance
	resumed int64        // when its code last went on from a safepoint; zero if it has slept since
	budget  uint32       // until the next safepoint
	crossed int          // safepoints in this slice
	used    atomic.Int64 // nanoseconds of slices
	waited  atomic.Int64 // nanoseconds in the queue
	queued  int64        // when it was put there; zero if it was not; under s.mu, or its own
	shares  atomic.Int64 // that it is to have, from any goroutine
	weight  int64        // of them, what task has
	permit  atomic.Bool  // the next park does not sleep; set under s.mu
	ended   atomic.Bool  // it gets no slot any more; set under s.mu
	parked  bool         // it sleeps in park, and waits for no slot; under s.mu
	aside   asideState
	young   youngState
	sleep   sleeper

	account CPUAccount // nil: nobody counts
	stint   CPUStint   // of account; under way while has
	done    <-chan struct{}
	timer   *time.Timer
	// exhausted is what the account said when the guest last got its slot.
	exhausted bool
	disowned  int64 // nanoseconds that it had the thread and does not pay for
}

func (s *scheduler) newTurn(shares int64) *turn {
	t := &turn{s: s, granted: make(chan bool, 1), budget: safepoint.Budget}
	t.task = schedule.NewTask(shares, t)
	t.shares.Store(shares)
	t.weight = shares
	return t
}

// request takes a slot if one is free, and else queues the task and is false.
// The caller holds mu.
func (t *turn) request(credit time.Duration) bool {
	s := t.s
	if s.spare.Load() > 0 { // then nobody waits
		s.spare.Add(-1)
		s.queue.Run(t.task, credit)
		return true
	}
	t.queued = clock()
	t.enqueue(credit)
	return false
}

// take waits for a slot. It returns false if the guest is to end, perhaps with a
// slot all the same, which is to be given back.
func (t *turn) take() bool {
	credit := wakeCredit
	if !t.old {
		t.old, credit = true, -newDebit
	}
	if !t.refilled() {
		return false
	}
	s := t.s
	s.mu.Lock()
	switch {
	case t.ended.Load():
		s.mu.Unlock()
		return false
	case !t.request(credit):
		s.mu.Unlock()
		return t.wait()
	}
	s.mu.Unlock()
	t.start()
	return true
}

// park gives the slot back, sleeps until unpark, and returns with a slot. If
// unpark has been called since the last park it returns at once. It returns
// false, perhaps without a slot, if the guest is to end, or to be put aside.
// Only if able says so it can be.
func (t *turn) park(able bool) bool {
	s := t.s
	if t.permit.Load() { // only its own goroutine takes it
		s.mu.Lock()
		t.permit.Store(false)
		s.mu.Unlock()
		return !t.ended.Load() && (t.has || t.take())
	}
	now := clock()
	if t.has {
		// Guests that hand a slot to one another give Go's goroutines their chance as
		// one that goes on does, if less often while there is an idle processor.
		if s.spare.Load() == 0 || now-t.breath > int64(longBreather) {
			now = t.breathe(now)
		}
	}
	s.mu.Lock()
	if t.permit.Load() {
		t.permit.Store(false)
		s.mu.Unlock()
		return !t.ended.Load() && (t.has || t.take())
	}
	t.parked = true
	var next *turn
	if t.has {
		t.sleep.parks(t.began, now)
		t.stop(now)
		// Whoever this guest has woken is its heir, or in the queue already with its
		// credit: the slot goes straight to it.
		if next = t.successor(); next == nil {
			t.endStint(now)
		}
	}
	if able {
		s.idle.add(t, now)
	}
	t.resumed = 0
	if !t.handOver(next, now) {
		return false
	}
	t.sleep.woken(t.began)
	return !t.exhausted || t.throttle()
}

// unpark ends the guest's park, or the next one if it is not parked.
func (t *turn) unpark() {
	if t.permit.Load() {
		return
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.parked {
		t.permit.Store(true)
		t.recall()
		return
	}
	t.parked = false
	s.idle.remove(t)
	if s.spare.Load() > 0 && s.bequeath(t) {
		return
	}
	if t.request(wakeCredit) {
		t.resume(true)
	}
}

// end keeps the guest from getting a slot, and wakes it if it waits for one or
// is parked.
func (t *turn) end() {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ended.Store(true)
	switch {
	case s.forget(t):
		t.resume(false)
	case t.parked:
		t.parked = false
		s.idle.remove(t)
		t.resume(false)
	default:
		t.permit.Store(true)
		t.recall()
	}
}

// wait sleeps until the guest has been given a slot, or is to end: then it is
// false, perhaps with a slot.
func (t *turn) wait() bool {
	if !<-t.granted {
		return false
	}
	t.start()
	return !t.ended.Load()
}

func (t *turn) start() {
	t.began = clock()
	t.breath = t.began
	t.goOn()
	t.exhausted = t.spent()
	t.beginStint(t.began)
}

// goOn is start at a time that is known, in a stint that is under way.
func (t *turn) goOn() {
	t.has = true
	t.crossed = 0
	if t.queued != 0 {
		t.waited.Add(t.began - t.queued)
		t.queued = 0
	}
}

// stop is the opposite of goOn. The caller holds s.mu.
func (t *turn) stop(now int64) {
	t.sleep.thread = 0
	t.charge(now)
	t.has = false
}

// leave gives the slot back, if the guest has one.
func (t *turn) leave() {
	if !t.has {
		return
	}
	t.resumed = 0
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	now := clock()
	t.endStint(now)
	t.stop(now)
	if next := t.successor(); next != nil {
		next.resume(true)
	}
}

// charge notes what the guest has run since it was last called.
func (t *turn) charge(now int64) {
	d := time.Duration(now - t.began)
	t.began = now
	t.used.Add(int64(d))
	if d == 0 { // the clock stands still: as long as that should take
		d = max(time.Microsecond, time.Duration(t.crossed)*interval)
	}
	t.task.Charge(d)
	if shares := t.shares.Load(); shares != t.weight {
		t.weight = shares
		t.task.SetShares(shares)
	}
}

// successor is who gets the slot of a guest that leaves; nil if nobody wants it,
// so that it is free. The caller holds mu.
func (t *turn) successor() *turn {
	if h := t.inherit(); h != nil {
		return h
	}
	return t.s.next()
}

// next takes the one out of the queue that goes next; if there is none, the slot
// is free. The caller holds mu.
func (s *scheduler) next() *turn {
	t := s.dequeue()
	if t == nil {
		s.spare.Add(1)
	}
	return t
}

// safepoint lets others run who are to go first. It returns false, perhaps
// without a slot, if the guest is to end.
func (t *turn) safepoint() bool {
	t.crossed++
	t.breakPromise()
	now := clock()
	if t.resumed != 0 {
		if lasted := time.Duration(now - t.resumed); lasted < longStretch || !t.disown(now) {
			t.adapt(lasted)
		}
	}
	if t.stint != nil && t.stint.Check(now) {
		if !t.throttle() {
			return false
		}
		t.resumed = t.began
		return true
	}
	if t.s.waiting.Load() > 0 && t.over(now) {
		if !t.pass(now) {
			return false
		}
		t.resumed = t.began
		return true
	}
	if !t.giveWay(now) {
		return false
	}
	t.resumed = t.breathe(clock())
	return true
}

// adapt sets the next budget by how long the last one has lasted: what units
// cost differs a thousandfold, between an empty loop and one that misses the
// caches with every instruction.
func (t *turn) adapt(lasted time.Duration) {
	switch {
	case lasted > 2*interval:
		t.budget = max(leastBudget, uint32(int64(t.budget)*int64(interval)/int64(lasted)))
	case lasted < interval/2:
		t.budget = min(safepoint.Budget, t.budget+t.budget/4)
	}
}

// breathe lets Go's own goroutines run, timers fire, and the network be looked
// at. It returns the time.
func (t *turn) breathe(now int64) int64 {
	s := t.s
	pause := breather
	if s.compiling.Load() > 0 {
		pause = compileBreather
	}
	if s.spare.Load() > 0 {
		pause = spareBreather
	}
	if now-t.breath < int64(pause) {
		return now
	}
	t.endStint(now)
	last := s.polled.Load()
	// With a slot to spare there is an idle processor, or goroutines that need it.
	if s.spare.Load() > 0 || now-last < int64(pollInterval) || !s.polled.CompareAndSwap(last, now) {
		runtime.Gosched()
	} else if !network().now() {
		runtime.Gosched()
	}
	t.breath = clock()
	t.beginStint(t.breath)
	return t.breath
}

// over says whether to let a waiting guest go first.
func (t *turn) over(now int64) bool {
	switch ran := time.Duration(now - t.began); {
	case ran >= sliceLength, t.crossed >= sliceSafepoints:
		return true
	case ran < leastSlice:
		return false
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	// Those who waited when this slice began are not before the task; one that
	// is has woken up since, and has credit.
	next := s.queue.Next()
	return next != nil && next.Before(t.task)
}

// pass ends the slice: whoever is furthest behind goes next.
func (t *turn) pass(now int64) bool {
	s := t.s
	s.mu.Lock()
	if t.ended.Load() {
		s.mu.Unlock()
		return false
	}
	t.line(now)
	next := s.next()
	if next == t { // nobody goes before it after all
		t.endStint(now)
		t.granted <- true
		s.mu.Unlock()
		return t.wait()
	}
	return t.handOver(next, now)
}

// line ends the slice, and puts the guest into the queue. The caller holds mu.
func (t *turn) line(now int64) {
	t.stop(now)
	t.provide()
	t.queued = now
	t.s.queue.Push(t.task, mostOwed)
	t.s.waiting.Store(int32(t.s.queue.Len()))
}

// usage is how long the guest has had a slot, up to its last slice.
func (t *turn) usage() time.Duration { return time.Duration(t.used.Load()) }

// CPUTime implements [Timed].
func (c *guestContext) CPUTime() time.Duration {
	t := c.instance.turn
	used := t.usage()
	if t.has {
		used += time.Duration(clock() - t.began)
	}
	return used
}

// Leave implements [Blocking].
func (c *guestContext) Leave() { c.instance.turn.leave() }

// Enter implements [Blocking].
func (c *guestContext) Enter() {
	if i := c.instance; !i.turn.has && !i.turn.take() {
		i.killed()
	}
}

// Park implements [Parking].
func (c *guestContext) Park() {
	if i := c.instance; !i.turn.park(false) {
		i.killed()
	}
}

// Unpark implements [Parking].
func (c *guestContext) Unpark() { c.instance.turn.unpark() }

// killed ends a guest whose context is done while it waited.
func (i *Instance) killed() {
	i.Kill() // should it be the context of its creator that has ended
	i.unwind()
}
