package wasm

import (
	"sync"
	"time"
)

// Spare is how many slots are free.
func (e *Engine) Spare() int { return int(e.scheduler.spare.Load()) }

// Holder has a slot, or waits for one, without a guest.
type Holder struct{ t *turn }

func (e *Engine) NewHolder() Holder { return Holder{e.scheduler.newTurn(0)} }

func (h Holder) Take() { h.t.take() }

// Push makes it wait; whoever leaves a slot gives it to the holder.
func (h Holder) Push() {
	h.t.s.mu.Lock()
	defer h.t.s.mu.Unlock()
	h.t.request(0)
	h.t.has = true
}

// LeaveAndEnd passes the slot on to a guest that waits or is parked, and ends the
// guest before it has noticed.
func (h Holder) LeaveAndEnd(i *Instance) {
	s, t := h.t.s, i.turn
	i.stop.Store(&Exit{Code: codeKill, Reason: ReasonError})
	i.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.parked {
		t.parked = false
		t.request(0)
	}
	if next := s.next(); next != nil {
		next.resume(true)
	}
	// As end does for one that neither waits nor is parked.
	t.ended.Store(true)
	t.permit.Store(true)
}

// Compete lets guests of these shares spin on so many slots for a time, each from
// one safepoint to the next in the time given, and returns what each has had.
func Compete(slots int, length, each time.Duration, shares ...int64) []time.Duration {
	s := newScheduler(slots)
	var turns []*turn
	var all sync.WaitGroup
	for _, n := range shares {
		t := s.newTurn(n)
		turns = append(turns, t)
		all.Go(func() {
			defer t.leave()
			for ok := t.take(); ok && !t.ended.Load(); ok = t.safepoint() {
				time.Sleep(each)
			}
		})
	}
	time.Sleep(length)
	for _, t := range turns {
		t.end()
	}
	all.Wait()
	used := make([]time.Duration, len(turns))
	for i, t := range turns {
		used[i] = t.usage()
	}
	return used
}

// Stretch has the holder come to a safepoint so long after the last one, having run for so
// long before. It returns whether the time between safepoints is to become shorter.
func (h Holder) Stretch(ran, lasted time.Duration) (shorter bool) {
	h.t.used.Store(int64(ran))
	const budget = 10_000
	h.t.budget = budget
	h.t.began = clock()
	h.t.resumed = h.t.began - int64(lasted)
	h.t.safepoint()
	return h.t.budget < budget
}

// NewCharged is NewHolder, with an account.
func (e *Engine) NewCharged(cpu CPUAccount) Holder {
	h := e.NewHolder()
	h.t.charged(cpu, nil)
	return h
}

// Leave gives the slot back.
func (h Holder) Leave() { h.t.leave() }

// Berths is how many coroutines there are for guests to sleep in.
func (e *Engine) Berths() int {
	e.scheduler.mu.Lock()
	defer e.scheduler.mu.Unlock()
	return e.scheduler.berths.made
}

// ReadFaster is readFaster.
var ReadFaster = readFaster

// Mark has the engine's guests believe, from now on, that Go marks, or that it does
// not, and that there are so few processors that it needs one of them.
func (e *Engine) Mark(marking bool) {
	c := &e.scheduler.collection
	c.mu.Lock() // nobody looks any more
	c.lends = true
	c.marking.Store(marking)
	c.until.Store(0)
}

// Marked changes what Mark has said.
func (e *Engine) Marked(marking bool) { e.scheduler.collection.marking.Store(marking) }

// Lent says whether the collector has a slot of guests.
func (e *Engine) Lent() bool { return e.scheduler.collection.loan.Load() != 0 }

// Collection sees Go's collections as guests do.
type Collection struct{ c collection }

func NewCollection() *Collection {
	c := &Collection{}
	c.c.init(2)
	return c
}

// Look says what there is to see now.
func (c *Collection) Look(now int64) (underway, marking bool) {
	underway = c.c.underway(now)
	return underway, c.c.marking.Load()
}
