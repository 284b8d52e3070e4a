package wasm

import (
	"context"
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
	// mostOwed is what one is owed that could not use all of its share.
	mostOwed = 100 * time.Millisecond
	// interval is how long a guest should run between safepoints, and
	// leastBudget where to stop in pursuit of it.
	interval    = 250 * time.Microsecond
	leastBudget = safepoint.Budget >> 6
	// breather is how often a guest that goes on lets Go's own goroutines run,
	// and compileBreather how often while a module is compiled: who compiles
	// runs for 10 ms at a time, and guests would get nothing beside it.
	breather        = 100 * time.Microsecond
	compileBreather = 2 * time.Millisecond
	// pollInterval is how often one of them sleeps for a moment while guests
	// have all processors: Go's scheduler looks at the network when it has
	// nothing else to do, and otherwise every 10 ms.
	pollInterval = 250 * time.Microsecond
	poll         = 2 * time.Microsecond
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

	mu    sync.Mutex
	queue schedule.Queue
}

// epoch is a time before all others.
var epoch = time.Now()

func newScheduler(slots int) *scheduler {
	s := &scheduler{}
	s.spare.Store(int32(slots))
	return s
}

// turn is a guest's part in its scheduler. Only usage may be called from
// another goroutine than the guest's.
type turn struct {
	s       *scheduler
	task    *schedule.Task
	granted chan struct{} // a slot, from whoever gave it up
	has     bool          // the guest has a slot
	began   time.Time     // of its slice, in so far as not charged yet
	breath  time.Time     // when Go's goroutines last had their chance
	resumed time.Time     // when its code last went on from a safepoint; zero if it has slept since
	budget  uint32        // until the next safepoint
	crossed int           // safepoints in this slice
	used    atomic.Int64  // nanoseconds of slices
	shares  atomic.Int64  // that it is to have, from any goroutine
	weight  int64         // of them, what task has
}

func (s *scheduler) newTurn(shares int64) *turn {
	t := &turn{s: s, granted: make(chan struct{}, 1), budget: safepoint.Budget}
	t.task = schedule.NewTask(shares, t)
	t.shares.Store(shares)
	t.weight = shares
	return t
}

// take waits for a slot. It returns false, without one, if done is closed first.
func (t *turn) take(done <-chan struct{}) bool {
	s := t.s
	s.mu.Lock()
	if s.spare.Load() > 0 { // then nobody waits
		s.spare.Add(-1)
		s.queue.Run(t.task, wakeCredit)
		s.mu.Unlock()
		t.start()
		return true
	}
	s.queue.Push(t.task, wakeCredit)
	s.waiting.Store(int32(s.queue.Len()))
	s.mu.Unlock()
	return t.wait(done)
}

// wait sleeps until the task, which is queued, has been given a slot.
func (t *turn) wait(done <-chan struct{}) bool {
	select {
	case <-t.granted:
		t.start()
		return true
	case <-done:
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.Remove(t.task) {
		s.waiting.Store(int32(s.queue.Len()))
		return false
	}
	<-t.granted // it had just been given one
	s.next()
	return false
}

func (t *turn) start() {
	t.has = true
	t.crossed = 0
	t.began = time.Now()
	t.breath = t.began
}

// leave gives the slot back, if the guest has one.
func (t *turn) leave() {
	if !t.has {
		return
	}
	t.charge(time.Now())
	t.has = false
	t.resumed = time.Time{}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.next()
}

// charge notes what the guest has run since it was last called.
func (t *turn) charge(now time.Time) {
	d := now.Sub(t.began)
	t.began = now
	t.used.Add(int64(d))
	// At least something, where the clock stands still.
	t.task.Charge(max(d, time.Microsecond))
	if shares := t.shares.Load(); shares != t.weight {
		t.weight = shares
		t.task.SetShares(shares)
	}
}

// next passes a slot on. The caller holds mu.
func (s *scheduler) next() {
	task := s.queue.Pop()
	if task == nil {
		s.spare.Add(1)
		return
	}
	s.waiting.Store(int32(s.queue.Len()))
	task.Value.(*turn).granted <- struct{}{} // has room: one grant per Push
}

// safepoint lets others run who are to go first. It returns false, without a
// slot, if done is closed meanwhile.
func (t *turn) safepoint(done <-chan struct{}) bool {
	t.crossed++
	now := time.Now()
	if !t.resumed.IsZero() {
		t.adapt(now.Sub(t.resumed))
	}
	if t.s.waiting.Load() > 0 && t.over(now) {
		if !t.pass(now, done) {
			return false
		}
		t.resumed = t.began
		return true
	}
	t.resumed = t.breathe(now)
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
func (t *turn) breathe(now time.Time) time.Time {
	s := t.s
	pause := breather
	if s.compiling.Load() > 0 {
		pause = compileBreather
	}
	if now.Sub(t.breath) < pause {
		return now
	}
	since, last := int64(now.Sub(epoch)), s.polled.Load()
	// With a slot to spare there is an idle processor, or goroutines that need it.
	if s.spare.Load() > 0 || since-last < int64(pollInterval) || !s.polled.CompareAndSwap(last, since) {
		runtime.Gosched()
	} else {
		time.Sleep(poll)
	}
	t.breath = time.Now()
	return t.breath
}

// over says whether to let a waiting guest go first.
func (t *turn) over(now time.Time) bool {
	switch ran := now.Sub(t.began); {
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
func (t *turn) pass(now time.Time, done <-chan struct{}) bool {
	t.charge(now)
	s := t.s
	s.mu.Lock()
	s.queue.Push(t.task, mostOwed)
	t.has = false
	s.next()
	s.mu.Unlock()
	return t.wait(done)
}

// usage is how long the guest has had a slot, up to its last slice.
func (t *turn) usage() time.Duration { return time.Duration(t.used.Load()) }

// Leave implements [Blocking].
func (c *guestContext) Leave() { c.instance.turn.leave() }

// Enter implements [Blocking].
func (c *guestContext) Enter() { c.instance.enter(c) }

// enter waits for a slot, and does not return if the guest is to end.
func (i *Instance) enter(ctx context.Context) {
	if !i.turn.has && !i.turn.take(ctx.Done()) {
		i.killed()
	}
}

// killed ends a guest whose context is done while it waited.
func (i *Instance) killed() {
	i.Kill() // should it be the context of its creator that has ended
	i.unwind()
}
