package wasip1

import "context"

// Calls of the module wasmpod that wait for many descriptors: see docs/abi.md.

const (
	pollEventSize = 16
	maxPollEvents = 1 << 16
)

// poll_open(new *u32)
func pollOpen(_ context.Context, p *Process, m memory, a []uint64) Errno {
	res, errno := m.bytes(uint32(a[0]), 4)
	if errno != 0 {
		return errno
	}
	if p.pollSets >= maxPollSets {
		return ErrnoMFILE
	}
	if !p.hold(pollSetBytes) {
		return ErrnoNOMEM
	}
	fd, errno := p.fds.insert(descriptor{file: &pollSet{p: p}, rights: rightPollFdReadwrite})
	if errno == 0 {
		p.pollSets++
		put32(res, fd)
	} else {
		p.drop(pollSetBytes)
	}
	return errno
}

func (p *Process) pollSet(fd uint64) (*pollSet, Errno) {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return nil, errno
	}
	s, ok := d.file.(*pollSet)
	if !ok {
		return nil, ErrnoINVAL
	}
	return s, 0
}

// poll_control(set, fd, interest, userdata u64)
func pollControl(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	s, errno := p.pollSet(a[0])
	if errno != 0 {
		return errno
	}
	return s.control(uint32(a[1]), uint32(a[2]), a[3])
}

// poll_wait(set, events, room, timeout i64, n *u32), where an event is
//
//	| userdata u64 | events u32 | fd u32 |
func pollWait(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	s, errno := p.pollSet(a[0])
	if errno != 0 {
		return errno
	}
	room := uint32(a[2])
	if room == 0 || room > maxPollEvents {
		return ErrnoINVAL
	}
	out, errno := m.array(uint32(a[1]), room, pollEventSize)
	if errno != 0 {
		return errno
	}
	res, errno := m.bytes(uint32(a[4]), 4)
	if errno != 0 {
		return errno
	}
	n, errno := s.wait(ctx, int64(a[3]), int(room), func(n int, i *interest, events uint32) {
		b := out[n*pollEventSize:][:pollEventSize]
		put64(b, i.userdata)
		put32(b[8:], events)
		put32(b[12:], i.fd)
	})
	if errno == 0 {
		put32(res, uint32(n))
	}
	return errno
}
