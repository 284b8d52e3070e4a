package podnet

import (
	"sync"
	"sync/atomic"
	"time"
)

// deadline is the read or the write deadline of a Conn. When it is reached, the
// watchers of the socket are woken, and find that it is.
type deadline struct {
	expired atomic.Bool

	mu    sync.Mutex
	when  time.Time
	timer *time.Timer
	wake  func()
}

func (d *deadline) set(t time.Time, wake func()) {
	d.mu.Lock()
	d.when = t
	left := time.Until(t)
	past := !t.IsZero() && left <= 0
	d.expired.Store(past)
	switch {
	case t.IsZero() || past:
		if d.timer != nil {
			d.timer.Stop()
		}
	case d.timer == nil:
		d.wake = wake
		d.timer = time.AfterFunc(left, d.fire)
	default:
		d.timer.Reset(left)
	}
	d.mu.Unlock()
	if past {
		wake()
	}
}

func (d *deadline) fire() {
	d.mu.Lock()
	// A timer that fired while it was being set again has nothing to say.
	due := !d.when.IsZero() && !time.Now().Before(d.when)
	if due {
		d.expired.Store(true)
	}
	d.mu.Unlock()
	if due {
		d.wake()
	}
}

func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// waiter is a goroutine that waits for a socket. Its channel is of the Conn, and
// of its synctest bubble, and is used again by whoever waits next.
type waiter struct {
	ch   chan struct{}
	self Waker // w itself
	next *waiter
}

// Wake implements Waker.
func (w *waiter) Wake() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

// waiters are those of one Conn that nobody uses.
type waiters struct {
	mu   sync.Mutex
	free *waiter
}

func (ws *waiters) get() *waiter {
	ws.mu.Lock()
	w := ws.free
	if w != nil {
		ws.free = w.next
	}
	ws.mu.Unlock()
	if w == nil {
		w = &waiter{ch: make(chan struct{}, 1)}
		w.self = w
	}
	return w
}

func (ws *waiters) put(w *waiter) {
	ws.mu.Lock()
	w.next = ws.free
	ws.free = w
	ws.mu.Unlock()
}
