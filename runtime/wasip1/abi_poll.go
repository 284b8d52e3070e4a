package wasip1

import "context"

// maxSubscriptions bounds how long one poll_oneoff takes. It uses no memory of
// the host's.
const maxSubscriptions = 1 << 20

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
	n, errno := p.poll(ctx, &polling{in: in, out: out, layout: l})
	if errno == 0 {
		put32(res, uint32(n))
	}
	return errno
}

// pollEvent is what came of a subscription.
type pollEvent struct {
	errno  Errno
	nbytes uint64
	hangup bool
}

// putEvent writes event number n, of a subscription that has fired:
//
//	| userdata u64 | errno u16 | type u8 +5 | nbytes u64 | flags u16 +6 |
func putEvent(out []byte, n int, userdata uint64, kind uint8, e pollEvent) {
	const hangup = 1
	b := out[n*eventSize:][:eventSize]
	put64(b, userdata)
	put64(b[8:], uint64(e.errno)|uint64(kind)<<16)
	put64(b[16:], e.nbytes)
	flags := uint64(0)
	if e.hangup {
		flags = hangup
	}
	put64(b[24:], flags)
}
