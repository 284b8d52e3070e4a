package wasm

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

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
	// breather is how often a guest that goes on lets Go's own goroutines run.
	breather = time.Millisecond
)

// scheduler bounds how many guests execute at a time and shares these slots by
// weight. It leaves Go's scheduler with as few busy goroutines as there are
// slots, however many guests are runnable, so that timers, network and garbage
// collection find a processor.
type scheduler struct {
	waiting atomic.Int32 // tasks in queue, for a look without the lock

	mu    sync.Mutex
	queue schedule.Queue
	free  int
}

func newScheduler(slots int) *scheduler { return &scheduler{free: slots} }

// turn is a guest's part in its scheduler. Only usage may be called from
// another goroutine than the guest's.
type turn struct {
	s       *scheduler
	task    *schedule.Task
	granted chan struct{} // a slot, from whoever gave it up
	has     bool          // the guest has a slot
	began   time.Time     // of its slice, in so far as not charged yet
	breath  time.Time     // when Go's goroutines last had their chance
	crossed int           // safepoints in this slice
	used    atomic.Int64  // nanoseconds of slices
}

func (s *scheduler) newTurn(shares int64) *turn {
	t := &turn{s: s, granted: make(chan struct{}, 1)}
	t.task = schedule.NewTask(shares, t)
	return t
}

// take waits for a slot. It returns false, without one, if done is closed first.
func (t *turn) take(done <-chan struct{}) bool {
	s := t.s
	s.mu.Lock()
	if s.free > 0 { // then nobody waits
		s.free--
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
}

// next passes a slot on. The caller holds mu.
func (s *scheduler) next() {
	task := s.queue.Pop()
	if task == nil {
		s.free++
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
	if t.s.waiting.Load() > 0 && t.over(now) {
		return t.pass(now, done)
	}
	if now.Sub(t.breath) >= breather {
		runtime.Gosched()
		t.breath = now
	}
	return true
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
