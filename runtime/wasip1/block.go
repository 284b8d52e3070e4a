package wasip1

import (
	"context"
	"time"
)

// blocking is what a context may offer to host calls that sleep: the engine
// lets another guest execute between Leave and Enter. Enter does not return if
// the guest is to end.
type blocking interface {
	Leave()
	Enter()
}

// interruptible is what a context may offer for signals: Interrupted is closed
// when one waits for the guest's handler, which Safepoint runs. It is nil when
// nothing can interrupt the guest.
type interruptible interface {
	Interrupted() <-chan struct{}
	Safepoint()
}

func leave(ctx context.Context) {
	if b, ok := ctx.(blocking); ok {
		b.Leave()
	}
}

func enter(ctx context.Context) {
	if b, ok := ctx.(blocking); ok {
		b.Enter()
	}
}

func interrupted(ctx context.Context) <-chan struct{} {
	if i, ok := ctx.(interruptible); ok {
		return i.Interrupted()
	}
	return nil
}

// handleSignals has the guest's handlers run for what interrupted a call. The
// call is over by then: a handler may make calls of its own, and they use the
// same scratch space.
func handleSignals(ctx context.Context) {
	if i, ok := ctx.(interruptible); ok {
		i.Safepoint()
	}
}

// waker wakes one sleeping host call. Waking it more than once, or while
// nobody sleeps, is harmless: sleepers look again at what they wait for.
type waker struct{ c chan struct{} }

func newWaker() *waker { return &waker{c: make(chan struct{}, 1)} }

func (w *waker) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// wait sleeps until woken, or until expired sends. It returns EINTR when a
// signal comes first, and panics with killed when ctx is done.
func (w *waker) wait(ctx context.Context, expired <-chan time.Time) Errno {
	select {
	case <-w.c:
		return 0
	default:
	}
	leave(ctx)
	var errno Errno
	select {
	case <-w.c:
	case <-expired:
	case <-interrupted(ctx):
		errno = ErrnoINTR
	case <-ctx.Done():
		panic(killed)
	}
	enter(ctx)
	return errno
}
