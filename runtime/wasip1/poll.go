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

// subscription is one thing that poll_oneoff waits for, and then what came of it.
type subscription struct {
	userdata uint64
	kind     uint8
	fd       uint32
	clock    uint32
	absolute bool
	timeout  uint64 // nanoseconds

	due    int64 // on the monotonic clock
	fired  bool
	errno  Errno
	nbytes uint64
	hangup bool
}

// poll waits until at least one subscription fires, and marks all that did. It
// returns EINTR when a signal comes first.
func (p *Process) poll(ctx context.Context, subs []subscription) Errno {
	if ctx.Err() != nil {
		panic(killed)
	}
	next := never
	asleep := false // somebody may have to wake us
	for i := range subs {
		s := &subs[i]
		if s.kind == eventClock {
			p.arm(s)
			next = min(next, s.due)
		} else {
			asleep = true
		}
	}
	if p.check(subs) {
		return 0
	}
	if asleep {
		p.watch(subs)
		defer p.unwatch(subs)
	}
	for !p.check(subs) {
		if errno := p.sleep(ctx, next); errno != 0 {
			return errno
		}
	}
	return 0
}

// arm computes when a clock subscription is due.
func (p *Process) arm(s *subscription) {
	if s.clock != clockRealtime && s.clock != clockMonotonic {
		s.fired, s.due, s.errno = true, never, ErrnoINVAL
		if s.clock == clockProcessCPU || s.clock == clockThreadCPU {
			s.errno = ErrnoNOTSUP
		}
		return
	}
	if s.timeout >= foreverTimeout {
		s.due = never
		return
	}
	mono, _ := p.now(clockMonotonic)
	wait := int64(s.timeout)
	if s.absolute {
		now, _ := p.now(s.clock)
		wait -= now
	}
	s.due = mono + wait
}

// check looks at every subscription once.
func (p *Process) check(subs []subscription) (fired bool) {
	now, _ := p.now(clockMonotonic)
	for i := range subs {
		s := &subs[i]
		if s.kind == eventClock {
			s.fired = s.fired || s.due <= now
			fired = fired || s.fired
			continue
		}
		right, write := rightFdRead, s.kind == eventWrite
		if write {
			right = rightFdWrite
		}
		d, errno := p.fds.get(s.fd)
		switch {
		case errno != 0 || d.rights&right == 0:
			s.fired, s.errno = true, ErrnoBADF
		default:
			s.fired, s.nbytes, s.hangup = d.file.poll(write)
		}
		fired = fired || s.fired
	}
	return fired
}

func (p *Process) watch(subs []subscription) {
	for i := range subs {
		if s := &subs[i]; s.kind != eventClock {
			if d, errno := p.fds.get(s.fd); errno == 0 {
				d.file.watch(p.wake, s.kind == eventWrite)
			}
		}
	}
}

func (p *Process) unwatch(subs []subscription) {
	for i := range subs {
		if s := &subs[i]; s.kind != eventClock {
			if d, errno := p.fds.get(s.fd); errno == 0 {
				d.file.unwatch(p.wake)
			}
		}
	}
}

// sleep returns when woken or at the time until on the monotonic clock, and
// with EINTR for a signal.
func (p *Process) sleep(ctx context.Context, until int64) Errno {
	began := time.Now()
	defer func() { p.blocked += time.Since(began) }()
	if until == never {
		return p.wake.wait(ctx, nil)
	}
	now, _ := p.now(clockMonotonic)
	d := time.Duration(until - now)
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	defer p.timer.Stop()
	return p.wake.wait(ctx, p.timer.C)
}
