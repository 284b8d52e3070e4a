package wasip1

import (
	"context"
	"sync/atomic"
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

// parking is what a context may offer besides: a shorter way to sleep than Leave,
// a channel, and Enter. Park returns after Unpark, for a signal, or for nothing;
// it does not return if the guest is to end.
type parking interface {
	Park()
	Unpark()
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

// A call that moves much is made in pieces of largestPiece. A guest that has its
// calls do as much as strideBytes are gives others a turn: it comes to no safepoint
// while the host works for it, and to none before many calls, as its own code is
// all that is counted.
const (
	largestPiece = 1 << 20
	strideBytes  = 256 << 10
	// pathBytesWorth is what a call with a path counts for.
	pathBytesWorth = 8 << 10
)

// breathe gives others a turn in the middle of a call. It does not return if the
// guest is to end.
func breathe(ctx context.Context) {
	if ctx.Err() != nil {
		panic(killed)
	}
	leave(ctx)
	enter(ctx)
}

// work notes that a call has done as much as moving so many bytes is.
func (p *Process) work(ctx context.Context, bytes int) {
	if p.worked += bytes; p.worked >= strideBytes {
		p.worked = 0
		breathe(ctx)
	}
}

// inPieces calls op for parts of bufs until it does less than a part, or fails.
func inPieces(ctx context.Context, bufs [][]byte, op func(b []byte) (int, error)) (n int, err error) {
	for _, b := range bufs {
		for len(b) > 0 {
			if n >= largestPiece {
				breathe(ctx)
			}
			piece := b[:min(len(b), largestPiece)]
			m, err := op(piece)
			if n += max(m, 0); err != nil || m < len(piece) {
				return n, err
			}
			b = b[m:]
		}
	}
	return n, nil
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

// waker wakes one sleeping host call. Who sleeps calls arm, then looks once
// more at what it waits for, and then calls either wait or disarm: what happens
// after the look wakes it. A wake while nobody is armed does nothing and costs
// next to nothing, which is the rule when two busy guests talk.
type waker struct {
	state atomic.Uint32
	c     chan struct{} // one token for each change from armed to fired

	parked parking // who sleeps, while the state is wakerParked

	// So that a sleep has one channel to wait for only, the end of the context
	// is a wake too.
	done  <-chan struct{} // of the context that is watched
	unset func() bool
}

// States of a waker.
const (
	wakerIdle uint32 = iota
	wakerArmed
	wakerParked
	wakerFired
)

func newWaker() *waker { return &waker{c: make(chan struct{}, 1)} }

func (w *waker) arm() { w.state.Store(wakerArmed) }

// Wake implements Waker.
func (w *waker) Wake() {
	for {
		switch s := w.state.Load(); s {
		case wakerArmed:
			if w.state.CompareAndSwap(s, wakerFired) {
				w.c <- struct{}{} // has room: who armed it took the last one
				return
			}
		case wakerParked:
			parked := w.parked
			if w.state.CompareAndSwap(s, wakerFired) {
				parked.Unpark()
				return
			}
		default:
			return
		}
	}
}

func (w *waker) disarm() {
	if !w.state.CompareAndSwap(wakerArmed, wakerIdle) {
		<-w.c
	}
}

// watch makes the end of ctx a wake.
func (w *waker) watch(ctx context.Context) {
	if done := ctx.Done(); done != w.done {
		w.unwatch()
		w.done = done
		if done != nil {
			w.unset = context.AfterFunc(ctx, w.Wake)
		}
	}
}

func (w *waker) unwatch() {
	if w.unset != nil {
		w.unset()
		w.unset = nil
	}
}

// wait sleeps until woken, or until expired sends. It returns EINTR when a
// signal comes first, and panics with killed when ctx is done. The waker is
// armed before, and not after.
func (w *waker) wait(ctx context.Context, expired <-chan time.Time) Errno {
	if p, ok := ctx.(parking); ok && expired == nil {
		return w.park(ctx, p, nil)
	}
	w.watch(ctx)
	if ctx.Err() != nil {
		panic(killed)
	}
	leave(ctx)
	var errno Errno
	if signal := interrupted(ctx); signal == nil && expired == nil {
		<-w.c
	} else {
		select {
		case <-w.c:
		case <-expired:
			w.disarm()
		case <-signal:
			w.disarm()
			errno = ErrnoINTR
		}
	}
	if ctx.Err() != nil {
		panic(killed)
	}
	enter(ctx)
	return errno
}

// park is wait in a context that offers it. If the call may be made again,
// process is the one that makes it.
func (w *waker) park(ctx context.Context, p parking, process *Process) Errno {
	if ctx.Err() != nil {
		panic(killed)
	}
	w.parked = p
	if !w.state.CompareAndSwap(wakerArmed, wakerParked) {
		<-w.c // it has fired already
		return 0
	}
	if a, ok := p.(aside); ok && process != nil {
		process.away.park(process, a)
	} else {
		p.Park()
	}
	w.state.Store(wakerIdle)
	return signalled(ctx)
}

// signalled is EINTR when a signal waits for the guest's handler.
func signalled(ctx context.Context) Errno {
	if signal := interrupted(ctx); signal != nil {
		select {
		case <-signal:
			return ErrnoINTR
		default:
		}
	}
	return 0
}
