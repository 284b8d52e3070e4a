package wasip1

import (
	"context"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// aside is what a context may offer besides: ParkAside is Park, but for a guest
// that sleeps long it may not return. The deferred functions of the call run,
// the guest's goroutine ends, and when the guest is to go on restart is called to
// make the call again, with the context that calls have from then on.
type aside interface {
	ParkAside(restart func(ctx context.Context, result *uint64))
}

// longSleep is a timeout for which a guest may be put aside.
const longSleep = time.Second

// maxParams is how many parameters a host function has at most.
const maxParams = 9

// away is what there is to know of the call under way, for making it again.
type away struct {
	call   func(context.Context, *Process, memory, []uint64) Errno
	memory api.Module
	args   []uint64 // on the guest's stack; nil when copied to saved
	saved  [maxParams]uint64

	restart func(context.Context, *uint64)
	context context.Context // of the calls of a guest that has been away
	timer   *time.Timer     // wakes a long sleep

	// When a call on a socket that sleeps long is to give up; zero if it is not.
	deadline time.Time

	// Of a poll_oneoff that sleeps long.
	polling bool
	began   int64     // on the monotonic clock
	asleep  time.Time // since when
}

// park sleeps in a call that has had no effect yet.
func (a *away) park(p *Process, guest aside) {
	if a.args != nil {
		copy(a.saved[:], a.args)
		a.args = nil // or it would hold a stack that is no longer in use
	}
	if a.restart == nil {
		a.restart = p.restart
	}
	guest.ParkAside(a.restart)
}

// restart makes the call again in which the guest was put aside.
func (p *Process) restart(ctx context.Context, result *uint64) {
	p.away.context = ctx
	args := p.away.saved
	errno := p.away.call(ctx, p, guestMemory(p.away.memory), args[:])
	*result = uint64(errno)
	if errno == ErrnoINTR {
		handleSignals(ctx)
	}
	p.away.deadline = time.Time{}
	p.settle(ctx)
}

// parkUntil is the waker's park, which is armed, for a call that gives up at a
// time.
func (a *away) parkUntil(ctx context.Context, p *Process, guest parking, deadline time.Time, rest time.Duration) Errno {
	a.deadline = deadline
	// Not deferred: the timer is to wake a guest that is put aside.
	timer := p.wakeAfter(rest)
	errno := p.wake.park(ctx, guest, p)
	timer.Stop()
	a.deadline = time.Time{}
	return errno
}

// resumed is when the call that begins is to give up, if it is made again; zero
// for others.
func (a *away) resumed() time.Time {
	d := a.deadline
	if !d.IsZero() {
		a.deadline = time.Time{}
	}
	return d
}

// sleep is that of poll_oneoff where the guest may be put aside.
func (a *away) sleep(ctx context.Context, p *Process, guest parking, q *polling, d time.Duration) Errno {
	a.polling, a.began, a.asleep = true, q.began, time.Now()
	if q.next != never {
		if a.timer == nil {
			a.timer = time.AfterFunc(d, p.wake.Wake)
		} else {
			a.timer.Reset(d)
		}
	}
	// Not deferred: the timer is to wake a guest that is put aside.
	errno := p.wake.park(ctx, guest, p)
	if q.next != never {
		a.timer.Stop()
	}
	a.returned(p)
	return errno
}

// returned accounts for the time asleep, and says when the poll_oneoff began.
func (a *away) returned(p *Process) (began int64) {
	a.polling = false
	p.blocked += time.Since(a.asleep)
	return a.began
}

func (a *away) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
