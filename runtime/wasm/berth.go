package wasm

import (
	"iter"
	"slices"
	"sync/atomic"
	"time"
	_ "unsafe" // for linkname
)

// Two guests that talk wake each other in turn. Through channels every turn goes
// through Go's scheduler, which wakes another thread for each goroutine that is
// made runnable, though its waker is about to sleep. A coroutine switch does not:
// who parks goes on as the guest that it has woken, on the same thread, with the
// slot and the reading of the clock. (Go has coroutines in iter.Pull only.)
//
// A berth is a coroutine in which a guest sleeps: whoever switches to it goes to
// sleep there, and who slept there goes on. So a guest that hands its slot over
// takes the berth of the one that gets it. Each berth has a goroutine of its own,
// its warden, which is in it while no guest is, and which otherwise waits for
// somebody to want the guest woken who does not go to sleep himself.
type berth struct {
	s    *scheduler
	wake chan struct{} // one for each guest that is woken; has room

	// Under s.mu, which who goes to sleep holds, and who goes on releases: nobody
	// may switch to a berth before the guest is in it.
	next  func() (struct{}, bool)
	yield func(struct{}) bool
	odd   bool // yield is next: the two functions of iter.Pull take turns
	end   bool // of the warden
}

const (
	// mostBerths bounds the berths of a scheduler: a goroutine each.
	mostBerths = 256
	// shortSleep is what a guest sleeps that is worth a berth, briefSleeps times
	// in a row.
	shortSleep  = 100 * time.Microsecond
	briefSleeps = 8
	// soon is within what time a guest parks that has woken another, for the other
	// one to wait for that: it is less than waking a thread takes. It is expected
	// of a guest that has done so promises times in a row.
	soon     = 3 * time.Microsecond
	promises = 3
	// heirPatience is how often heirs are looked after: one whose waker is in a host
	// call that keeps its slot would wait for its end.
	heirPatience = 5 * time.Millisecond
)

// berths are those of a scheduler, under its mutex. There are as many as guests
// that are members, and as many are vacant as members do not sleep in one.
type berths struct {
	made   int
	vacant []*berth

	wakers  []*turn // that have an heir; no more than there are slots
	wills   uint64  // how often a guest has become an heir
	looked  uint64  // wills when lookAtHeirs last ran
	looking bool    // it will run
}

// sleeper is a turn's part. It is under s.mu, unless said otherwise.
type sleeper struct {
	berth  *berth // in which the guest sleeps, and has not been woken yet
	got    bool   // what it has been woken with
	handed bool   // and that somebody has gone to sleep for it
	member bool
	late   bool    // it had its heir when heirs were last looked after
	heir   *turn   // has been woken by this guest, and gets the slot once that parks
	giver  *turn   // whose heir this guest is
	thread uintptr // on which it has come out of a berth; zero without a slot

	// Only the guest uses the following.
	brief int   // short sleeps in a row
	since int64 // when it last parked

	kept  atomic.Int32 // promises to park soon in a row
	short atomic.Bool  // all of its last stint was: no need to read the clock
	woke  atomic.Int64 // when the guest last woke another; zero if it has parked since
}

// parks notes that the guest goes to sleep, and whether that was soon.
func (p *sleeper) parks(began, now int64) {
	p.since = now
	short := now-began <= int64(soon)
	if p.short.Load() != short {
		p.short.Store(short)
	}
	woke := p.woke.Load()
	if woke == 0 {
		return
	}
	p.woke.Store(0)
	switch {
	case now-woke > int64(soon):
		p.kept.Store(0)
	case p.kept.Load() < promises:
		p.kept.Add(1)
	}
}

// woken notes that it goes on.
func (p *sleeper) woken(now int64) {
	switch {
	case now-p.since > int64(shortSleep):
		p.brief = 0
	case p.brief < briefSleeps:
		p.brief++
	}
}

// getm is the identity of the calling thread as Go knows it.
//
//go:linkname getm runtime.getm
func getm() uintptr

// running has guests that have come out of a berth, by thread. An entry may be out of date.
var running [64]atomic.Pointer[turn]

func seat(thread uintptr) *atomic.Pointer[turn] {
	return &running[(thread>>9^thread>>15)%uintptr(len(running))]
}

// caller is the guest that the calling thread executes, if that can be told: if
// Go has moved its goroutine since it has got its slot, another may be taken for
// it. The caller holds s.mu: that guest has not stopped yet.
func (s *scheduler) caller() *turn {
	m := getm()
	if t := seat(m).Load(); t != nil && t.s == s && t.sleep.thread == m {
		return t
	}
	return nil
}

// appear says that the guest executes on this thread. The caller holds s.mu.
func (t *turn) appear() {
	m := getm()
	t.sleep.thread = m
	if at := seat(m); at.Load() != t {
		at.Store(t)
	}
}

// bequeath makes a guest that has been woken wait for the one that wakes it to
// park. It is false if that is not to be expected soon. The caller holds s.mu.
func (s *scheduler) bequeath(t *turn) bool {
	w := s.caller()
	if w == nil {
		return false
	}
	if !w.sleep.short.Load() {
		w.sleep.woke.Store(clock())
	}
	if w.sleep.kept.Load() < promises || t.sleep.berth == nil || w.sleep.heir != nil {
		return false
	}
	w.sleep.heir, t.sleep.giver = t, w
	s.berths.wakers = append(s.berths.wakers, w)
	if s.berths.wills++; !s.berths.looking {
		s.berths.looking = true
		time.AfterFunc(heirPatience, s.lookAtHeirs)
	}
	return true
}

// lookAtHeirs finds other slots for those that wait for too long. It runs as long as
// there are new ones.
func (s *scheduler) lookAtHeirs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := s.berths.looked != s.berths.wills
	s.berths.looked = s.berths.wills
	for i := len(s.berths.wakers) - 1; i >= 0; i-- {
		if t := s.berths.wakers[i]; t.sleep.late {
			t.provide()
		} else {
			t.sleep.late, again = true, true
		}
	}
	if s.berths.looking = again; again {
		time.AfterFunc(heirPatience, s.lookAtHeirs)
	}
}

// inherit takes the heir of a guest that leaves its slot. The caller holds s.mu.
func (t *turn) inherit() *turn {
	h := t.sleep.heir
	if h == nil {
		return nil
	}
	t.disinherit()
	s := t.s
	if s.queue.Len() == 0 {
		s.queue.Run(h.task, wakeCredit)
		return h
	}
	h.enqueue(wakeCredit)
	return s.dequeue()
}

func (t *turn) disinherit() {
	b := &t.s.berths
	i := slices.Index(b.wakers, t)
	b.wakers = slices.Delete(b.wakers, i, i+1)
	t.sleep.heir.sleep.giver, t.sleep.heir, t.sleep.late = nil, nil, false
}

// breakPromise wakes the heir of a guest that has not parked.
func (t *turn) breakPromise() {
	if t.sleep.kept.Load() < promises {
		return // then it has none
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.provide()
}

// provide has an heir wait for another slot, if there is one. The caller holds
// s.mu.
func (t *turn) provide() {
	h := t.sleep.heir
	if h == nil {
		return
	}
	t.sleep.kept.Store(0)
	t.disinherit()
	if h.request(wakeCredit) {
		h.resume(true)
	}
}

// resume wakes a guest that waits, with got for wait's result. The caller holds
// s.mu.
func (t *turn) resume(got bool) {
	b := t.sleep.berth
	if b == nil {
		t.granted <- got // has room: one for each wait
		return
	}
	t.sleep.berth, t.sleep.got = nil, got
	b.wake <- struct{}{}
}

// handOver has the guest sleep and the next one, if any, go on with its slot. The
// caller has stopped it, ended its stint if there is no next one, made that one run as the
// queue sees it, and holds s.mu, which is released. The result is wait's.
func (t *turn) handOver(next *turn, now int64) bool {
	s := t.s
	p := &t.sleep
	var b *berth
	switch {
	case next == nil:
	case next.sleep.berth != nil:
		if t.stint != nil && next.stint != nil {
			next.exhausted = t.stint.HandOver(next.stint, now)
		} else {
			t.changeStint(next, now)
		}
		n := &next.sleep
		b, n.berth = n.berth, nil
		n.got, n.handed = true, true
		next.began, next.breath = now, t.breath
		if !p.member { // the berth is its from now on
			p.member, n.member = true, false
		}
	default:
		t.endStint(now)
		next.granted <- true
	}
	if b == nil && p.brief >= briefSleeps {
		b = s.berth(t)
	}
	if b == nil {
		s.mu.Unlock()
		return t.wait()
	}
	p.berth = b
	b.change()
	got, handed := p.got, p.handed
	p.handed = false
	if got {
		t.appear()
	}
	s.mu.Unlock()
	if !got {
		return false
	}
	if handed {
		t.goOn() // its stint has been begun
	} else {
		t.start()
	}
	return !t.ended.Load()
}

// berth returns a vacant berth for a guest; nil if there are too many already.
func (s *scheduler) berth(t *turn) *berth {
	if !t.sleep.member {
		if s.berths.made == mostBerths {
			return nil
		}
		t.sleep.member = true
		s.berths.made++
		return newBerth(s)
	}
	last := len(s.berths.vacant) - 1
	if last < 0 {
		return nil
	}
	b := s.berths.vacant[last]
	s.berths.vacant[last] = nil
	s.berths.vacant = s.berths.vacant[:last]
	return b
}

func newBerth(s *scheduler) *berth {
	b := &berth{s: s, wake: make(chan struct{}, 1)}
	b.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		b.yield = yield
		b.guard()
	})
	return b
}

// change has the caller sleep in the berth, and who slept there go on.
func (b *berth) change() {
	if b.odd = !b.odd; b.odd {
		b.next()
	} else {
		b.yield(struct{}{})
	}
}

// guard is what the warden does. It begins when the first guest comes.
func (b *berth) guard() {
	for s := b.s; !b.end; {
		s.mu.Unlock()
		<-b.wake
		s.mu.Lock()
		s.berths.vacant = append(s.berths.vacant, b)
		b.change()
	}
}

// checkOut gives up what a guest that ends, or is put aside, has of berths.
func (t *turn) checkOut() {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.sleep.member {
		return
	}
	b := s.berth(t)
	t.sleep.member = false
	t.sleep.brief = 0
	s.berths.made--
	if b != nil { // as ever
		b.end = true
		b.change()
	}
}
