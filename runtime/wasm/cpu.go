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
	// Wait says how long a guest has to wait before it may run; zero if it may
	// now. One that waits calls it again after that time, until it gets zero.
	Wait() time.Duration
	// Stop says that a guest does not wait any more, because it is to end.
	Stop()
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
}

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

func (t *turn) spent() bool { return t.account != nil && t.account.Spent() }

// refilled waits, without a slot, until the guest's account allows it to run. It
// returns false if the guest is to end.
func (t *turn) refilled() bool {
	if !t.spent() {
		return true
	}
	for d := t.account.Wait(); d > 0; d = t.account.Wait() {
		if t.timer == nil {
			t.timer = time.NewTimer(d)
		} else {
			t.timer.Reset(d)
		}
		select {
		case <-t.timer.C:
		case <-t.done:
			t.timer.Stop()
			t.account.Stop()
			return false
		}
	}
	return true
}

// throttle gives the slot back and returns with one when the account allows it
// again, or false if the guest is to end.
func (t *turn) throttle() bool {
	t.leave()
	return t.take()
}
