package wasm

import "time"

// CPUAccount is what processor time of guests is charged to, usually that of a
// container, and what says that they have had enough for now. Its methods are
// safe for concurrent use and never block.
type CPUAccount interface {
	// Stint returns what one instance says with when it runs.
	Stint() CPUStint
	// Spent says whether the budget was used up when somebody was last charged.
	Spent() bool
}

// CPUStint says when a guest executes. Its methods are called on the guest's
// goroutine. now is what Now returned a moment ago.
type CPUStint interface {
	Begin(now int64)
	// End comes before whatever makes the goroutine sleep or yield.
	End(now int64)
	// HandOver is End, and Begin for a guest whose goroutine goes on on this thread. next
	// is its CPUStint. It says whether that one's account is spent.
	HandOver(next any, now int64) (spent bool)
	// Check charges what has run since Begin and says whether the account is spent.
	Check(now int64) (spent bool)
	// GiveBack takes back what Check is about to charge for what the thread has run since
	// then, all but keep of it and no more than most (ns). It returns how much that is.
	GiveBack(now, since, keep, most int64) (given int64)
	// Wait says how long the guest has to wait before it may run; zero if it may
	// now. One that waits calls it again after that time, or when changed is closed, until
	// it gets zero.
	Wait() (d time.Duration, changed <-chan struct{})
	// Stop says that the guest does not wait any more, because it is to end.
	Stop()
}

const (
	// longStretch is so long after one safepoint that a guest should have come to the
	// next one.
	longStretch = 4 * interval
	// ownStretch is what it pays for in such a case.
	ownStretch = 2 * interval
	// mostDisowned is the share of its time that a guest does not pay for in such cases:
	// it could also have been in a host call that took so long.
	mostDisowned = 100
)

// Now is a monotonic clock in nanoseconds.
func Now() int64 { return clock() }

// charged has the guest's time charged from now on; done is closed when it is
// to end. It comes before the first slot.
func (t *turn) charged(a CPUAccount, done <-chan struct{}) {
	if a != nil {
		t.account, t.stint, t.done = a, a.Stint(), done
	}
}

func (t *turn) beginStint(now int64) {
	if t.stint != nil {
		t.stint.Begin(now)
	}
}

func (t *turn) endStint(now int64) {
	if t.stint != nil {
		t.stint.End(now)
	}
}

// changeStint ends the guest's stint and begins that of the next one, to which the
// thread is about to be switched, if not both have one.
func (t *turn) changeStint(next *turn, now int64) {
	t.endStint(now)
	next.beginStint(now)
	next.exhausted = next.spent()
}

// disown has the guest not pay for what Go's collector did on its thread since the last
// safepoint. Go may take a guest off its thread where the code calls into Go, as at a
// safepoint, have the collector run there for milliseconds, and only then let the guest go
// on: nobody can tell from the thread, but safepoints are not that far apart. It
// says whether it was so.
func (t *turn) disown(now int64) bool {
	if t.stint == nil || !t.s.collection.underway(now) {
		return false
	}
	most := (t.used.Load()+now-t.began)/mostDisowned - t.disowned
	if most <= 0 {
		return false
	}
	given := t.stint.GiveBack(now, t.resumed, int64(ownStretch), most)
	t.disowned += given
	return given > 0
}

func (t *turn) spent() bool { return t.account != nil && t.account.Spent() }

// refilled waits, without a slot, until the guest's account allows it to run. It
// returns false if the guest is to end.
func (t *turn) refilled() bool {
	if !t.spent() {
		return true
	}
	for {
		d, changed := t.stint.Wait()
		if d <= 0 {
			return true
		}
		if t.timer == nil {
			t.timer = time.NewTimer(d)
		} else {
			t.timer.Reset(d)
		}
		select {
		case <-t.timer.C:
		case <-changed:
			t.timer.Stop()
		case <-t.done:
			t.timer.Stop()
			t.stint.Stop()
			return false
		}
	}
}

// throttle gives the slot back and returns with one when the account allows it
// again, or false if the guest is to end.
func (t *turn) throttle() bool {
	t.leave()
	return t.take()
}
