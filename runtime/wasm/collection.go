package wasm

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

// While Go collects garbage it needs its threads to run at once, one after another:
// to stop the world, to have each processor take part, to sweep span by span. With
// guests on all processors three things hold it up, and guests that notice a
// collection give way to each of them.
//
//   - A thread of Go's that yields to the kernel on a processor that executes a guest
//     has it back at the kernel's next tick, after 4 ms. Go's monitor does so when it
//     finds a lock taken, and then keeps whoever else wants that lock waiting as well.
//     So guests yield too.
//   - Who sweeps goes to the end of Go's queue after each span, behind the guests. So
//     guests go there several times.
//   - For fewer than four processors Go has no whole one for marking, but a quarter of
//     each. So one guest leaves its slot to the collector.

const (
	// collectionLook is how often guests look for a collection: 0.13 µs each.
	collectionLook = 100 * time.Microsecond
	// afterPause is how long Go is busy with a collection after it has stopped the
	// world, if it does not mark.
	afterPause = 3 * time.Millisecond
	// sweepYields is how often a guest goes to the end of Go's queue.
	sweepYields = 4
	// mostLent is how long the collector has a slot of guests, and how long it does
	// not have one after that.
	mostLent = time.Millisecond
	// wholeWorker is for how many processors Go has a whole one for marking.
	wholeWorker = 4
)

// collection is what guests see of Go's collections.
type collection struct {
	looked  atomic.Int64 // when, since epoch
	until   atomic.Int64 // when it will be over, unless marking
	marking atomic.Bool

	mu     sync.Mutex // of who looks
	pauses uint64     // of the world, that were seen
	cycles uint64     // that had ended by then
	read   [2]metrics.Sample

	// loan says since when the collector has a slot; zero if it has none. Written
	// under the scheduler's mutex, as the following are.
	loan   atomic.Int64
	repaid int64 // when it last gave one back
	timer  *time.Timer
	lends  bool // constant
}

func (c *collection) init(slots int) {
	c.read[0].Name = "/sched/pauses/total/gc:seconds"
	c.read[1].Name = "/gc/cycles/total:gc-cycles"
	procs := runtime.GOMAXPROCS(0)
	c.lends = procs < wholeWorker && slots > 1 && slots >= procs
	c.look(0)
	c.marking.Store(false) // what has been is no news
	c.until.Store(0)
}

// underway says whether Go collects garbage, or has done so a moment ago.
func (c *collection) underway(now int64) bool {
	last := c.looked.Load()
	if now-last >= int64(collectionLook) && c.looked.CompareAndSwap(last, now) && c.mu.TryLock() {
		c.look(now)
		c.mu.Unlock()
	}
	return c.marking.Load() || now < c.until.Load()
}

// look: the world is stopped to begin to mark, and again to end it (more than once,
// perhaps), with which the cycle counts as done. That other, cheaper number changes
// with the first of these.
func (c *collection) look(now int64) {
	metrics.Read(c.read[:1])
	var pauses uint64
	for _, n := range c.read[0].Value.Float64Histogram().Counts {
		pauses += n
	}
	if pauses == c.pauses {
		return
	}
	c.pauses = pauses
	metrics.Read(c.read[1:])
	cycles := c.read[1].Value.Uint64()
	c.marking.Store(cycles == c.cycles)
	c.cycles = cycles
	c.until.Store(now + int64(afterPause))
}

// giveWay lets a collection go on, if there is one. It returns false if the guest is
// to end, perhaps without a slot.
func (t *turn) giveWay(now int64) bool {
	s := t.s
	c := &s.collection
	if !c.underway(now) {
		if c.loan.Load() != 0 {
			s.repay()
		}
		return true
	}
	t.endStint(now)
	for range sweepYields {
		runtime.Gosched()
	}
	yieldThread()
	now = clock()
	t.beginStint(now)
	if !c.lends {
		return true
	}
	switch since := c.loan.Load(); {
	case since == 0:
		return !c.marking.Load() || t.lend(now)
	case !c.marking.Load() || now-since >= int64(mostLent):
		s.repay()
	}
	return true
}

// lend leaves the slot to the collector and waits for another one. It returns false
// if the guest is to end.
func (t *turn) lend(now int64) bool {
	s := t.s
	c := &s.collection
	s.mu.Lock()
	if t.ended.Load() {
		s.mu.Unlock()
		return false
	}
	// Another guest has to have a slot: it repays this one.
	if c.loan.Load() != 0 || s.spare.Load() > 0 || now-c.repaid < int64(mostLent) {
		s.mu.Unlock()
		return true
	}
	c.loan.Store(now)
	// Should all others be in host calls that keep their slots.
	if c.timer == nil {
		c.timer = time.AfterFunc(mostLent, s.repay)
	} else {
		c.timer.Reset(mostLent)
	}
	t.endStint(now)
	t.line(now)
	return t.handOver(nil, now)
}

// repay gives the collector's slot to a guest.
func (s *scheduler) repay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.collection
	if c.loan.Load() == 0 {
		return
	}
	c.loan.Store(0)
	c.repaid = clock()
	if next := s.next(); next != nil {
		next.resume(true)
	}
}
