package wasip1

import (
	"context"
	"math"
	"time"
)

// Kinds of subscriptions and events.
const (
	eventClock uint8 = iota
	eventRead
	eventWrite
)

// foreverTimeout and beyond is no timeout at all: the sleep ends with its
// context only. No timer is set for it, so that a fake clock never jumps there.
const foreverTimeout = 1 << 62

const never = int64(math.MaxInt64)

// polling is one poll_oneoff. Its subscriptions stay in guest memory, which
// nothing changes during the call: they are looked at there, time and again.
// Sockets remember what is known of them and are always watched, so that an
// idle one costs a few nanoseconds. Other files are watched for the call.
type polling struct {
	in, out []byte
	layout  *subscriptionLayout

	began   int64 // on the monotonic clock
	next    int64 // the first clock that is due, likewise
	watched []watched
	lasting bool // all of watched can be watched by a guest that is put aside
}

// watched is a file that is watched for the duration of a call.
type watched struct {
	f     file
	write bool
}

// poll waits until at least one subscription fires, and writes an event for
// each that did. It returns EINTR when a signal comes first.
func (p *Process) poll(ctx context.Context, q *polling) (n int, errno Errno) {
	if ctx.Err() != nil {
		panic(killed)
	}
	if q.began, _ = p.now(clockMonotonic); p.away.polling {
		q.began = p.away.returned(p)
	}
	q.watched = p.watched[:0]
	// From here on whatever changes is a wake.
	p.wake.arm()
	n, errno = p.check(ctx, q, true)
	if !holdGrown(p, p.watched, q.watched) {
		errno, q.watched = ErrnoNOMEM, p.watched[:0]
	}
	p.watched = q.watched
	if n > 0 || errno != 0 {
		p.wake.disarm()
		return n, errno
	}
	_, q.lasting = ctx.(parking)
	if len(q.watched) == 0 {
		return p.await(ctx, q)
	}
	for _, w := range q.watched {
		w.f.watch(p.wake, w.write)
		switch w.f.(type) {
		case *input, *signalFile:
		default:
			q.lasting = false
		}
	}
	if !q.lasting {
		defer q.unwatch(p.wake)
	}
	if n, errno = p.check(ctx, q, false); n > 0 || errno != 0 {
		p.wake.disarm()
	} else {
		n, errno = p.await(ctx, q)
	}
	if q.lasting { // not deferred: what wakes a guest that is put aside stays
		q.unwatch(p.wake)
	}
	return n, errno
}

func (q *polling) unwatch(w *waker) {
	for _, f := range q.watched {
		f.f.unwatch(w)
	}
	clear(q.watched)
}

// await sleeps until a subscription fires. The waker is armed before.
func (p *Process) await(ctx context.Context, q *polling) (n int, errno Errno) {
	for {
		if errno := p.sleep(ctx, q); errno != 0 {
			return 0, errno
		}
		p.wake.arm()
		if n, errno = p.check(ctx, q, false); n > 0 || errno != 0 {
			p.wake.disarm()
			return n, errno
		}
	}
}

// check looks at every subscription once, and writes events. first collects
// the files that have to be watched.
func (p *Process) check(ctx context.Context, q *polling, first bool) (n int, errno Errno) {
	now := q.began
	if !first {
		now, _ = p.now(clockMonotonic)
	}
	q.next = never
	l := q.layout
	for i, in := 0, q.in; len(in) > 0; i, in = i+1, in[l.size:] {
		if i%4096 == 4095 {
			breathe(ctx)
		}
		kind := in[8]
		var e pollEvent
		var fired bool
		switch kind {
		case eventRead, eventWrite:
			fired = p.checkFile(q, le32(in[16:]), kind == eventWrite, first, &e)
		case eventClock:
			flags := uint16(le32(in[l.flags:]))
			if flags > 1 {
				return 0, ErrnoINVAL
			}
			var due int64
			if due, e.errno = p.due(q, le32(in[l.clock:]), le64(in[l.timeout:]), flags == 1); due > now {
				q.next = min(q.next, due)
			} else {
				fired = true
			}
		default:
			return 0, ErrnoINVAL
		}
		if fired {
			putEvent(q.out, n, le64(in), kind, e)
			n++
		}
	}
	return n, 0
}

// checkFile says whether a subscription to a file has fired.
func (p *Process) checkFile(q *polling, fd uint32, write, first bool, e *pollEvent) (fired bool) {
	right := rightFdRead
	if write {
		right = rightFdWrite
	}
	if uint64(fd) >= uint64(len(p.fds.entries)) {
		e.errno = ErrnoBADF
		return true
	}
	d := &p.fds.entries[fd]
	switch f := d.file.(type) {
	case *socket:
		if d.rights&right == 0 {
			break
		}
		fired, e.nbytes, e.hangup = f.poll(write)
		return fired
	case nil:
	default:
		if d.rights&right == 0 {
			break
		}
		fired, e.nbytes, e.hangup = f.poll(write)
		if first && !fired && p.isNew(q, fd, write) {
			q.watched = append(q.watched, watched{f, write})
		}
		return fired
	}
	e.errno = ErrnoBADF
	return true
}

// isNew says whether q does not watch a descriptor yet, and notes that it does. One
// poll may have a million subscriptions to thousands of descriptors.
func (p *Process) isNew(q *polling, fd uint32, write bool) bool {
	if len(q.watched) == 0 {
		clear(p.polled)
	}
	bit := uint64(2) * uint64(fd)
	if write {
		bit++
	}
	word := int(bit / 64)
	if word >= len(p.polled) { // two bits each are part of what descriptors take
		p.polled = append(p.polled, make([]uint64, word+1-len(p.polled))...)
	}
	before := p.polled[word]
	p.polled[word] |= 1 << (bit % 64)
	return p.polled[word] != before
}

// due computes when a clock subscription is due, on the monotonic clock. One
// with an error has fired.
func (p *Process) due(q *polling, clock uint32, timeout uint64, absolute bool) (int64, Errno) {
	switch clock {
	case clockRealtime, clockMonotonic:
	case clockProcessCPU, clockThreadCPU:
		return 0, ErrnoNOTSUP
	default:
		return 0, ErrnoINVAL
	}
	switch {
	case timeout >= foreverTimeout:
		return never, 0
	case !absolute:
		return q.began + int64(timeout), 0
	case clock == clockMonotonic:
		return int64(timeout), 0
	}
	mono, _ := p.now(clockMonotonic)
	real, _ := p.now(clockRealtime)
	return mono + int64(timeout) - real, 0
}

// alarm sets the timer of the calls that sleep. The caller stops it.
func (p *Process) alarm(d time.Duration) *time.Timer {
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	return p.timer
}

// sleep returns when woken or at the time until on the monotonic clock, and
// with EINTR for a signal. The waker is armed before.
func (p *Process) sleep(ctx context.Context, q *polling) Errno {
	now, _ := p.now(clockMonotonic)
	until := q.next
	if guest, ok := ctx.(parking); ok && q.lasting && time.Duration(until-now) >= longSleep {
		return p.away.sleep(ctx, p, guest, q, time.Duration(until-now))
	}
	began := time.Now()
	defer func() { p.blocked += time.Since(began) }()
	if until == never {
		return p.wake.wait(ctx, nil)
	}
	timer := p.alarm(time.Duration(until - now))
	defer timer.Stop()
	return p.wake.wait(ctx, timer.C)
}
