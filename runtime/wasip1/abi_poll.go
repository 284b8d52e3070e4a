package wasip1

import "context"

// maxSubscriptions bounds the work and memory of one poll_oneoff.
const maxSubscriptions = 4096

const eventSize = 32

// subscriptionLayout is where things are in a subscription.
type subscriptionLayout struct{ size, clock, timeout, flags uint32 }

// In preview 1:
//
//	| userdata u64 | tag u8 +7 | clock: id u32 +4 | timeout u64 | precision u64 | flags u16 +6 |
//	                           | fd:    fd u32
var previewSubscription = subscriptionLayout{size: 48, clock: 16, timeout: 24, flags: 40}

// poll_oneoff(in, out, nsubscriptions, nevents *u32)
func pollOneoff(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.pollOneoff(ctx, m, a, &previewSubscription)
}

func (p *Process) pollOneoff(ctx context.Context, m memory, a []uint64, l *subscriptionLayout) Errno {
	count := uint32(a[2])
	if count == 0 || count > maxSubscriptions {
		return ErrnoINVAL
	}
	in, errno := m.array(uint32(a[0]), count, l.size)
	if errno != 0 {
		return errno
	}
	out, errno := m.array(uint32(a[1]), count, eventSize)
	if errno != 0 {
		return errno
	}
	res, errno := m.bytes(uint32(a[3]), 4)
	if errno != 0 {
		return errno
	}
	subs := p.subs[:0]
	for ; len(in) > 0; in = in[l.size:] {
		s := subscription{userdata: le64(in), kind: in[8]}
		switch s.kind {
		case eventClock:
			s.clock = le32(in[l.clock:])
			s.timeout = le64(in[l.timeout:])
			flags := uint16(le32(in[l.flags:]))
			if flags > 1 {
				return ErrnoINVAL
			}
			s.absolute = flags == 1
		case eventRead, eventWrite:
			s.fd = le32(in[16:])
		default:
			return ErrnoINVAL
		}
		subs = append(subs, s)
	}
	p.subs = subs
	if errno := p.poll(ctx, subs); errno != 0 {
		return errno
	}
	put32(res, putEvents(out, subs))
	return 0
}

// putEvents writes an event for each subscription that fired:
//
//	| userdata u64 | errno u16 | type u8 +5 | nbytes u64 | flags u16 +6 |
func putEvents(out []byte, subs []subscription) (n uint32) {
	const hangup = 1
	for i := range subs {
		s := &subs[i]
		if !s.fired {
			continue
		}
		e := out[n*eventSize:][:eventSize]
		clear(e)
		put64(e, s.userdata)
		put16(e[8:], uint16(s.errno))
		e[10] = s.kind
		put64(e[16:], s.nbytes)
		if s.hangup {
			put16(e[24:], hangup)
		}
		n++
	}
	return n
}
