package wasip1

import "context"

// This file has what snapshot 0, wasi_unstable, lays out in another way.

// fd_seek(fd, offset, whence, newoffset *u64), where whence is cur, end, set.
func fdSeekUnstable(_ context.Context, p *Process, m memory, a []uint64) Errno {
	whence := uint32(a[2])
	if whence <= 2 {
		whence = (whence + 1) % 3
	}
	return p.seek(m, a[0], int64(a[1]), whence, a[3])
}

func fdFilestatGetUnstable(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.fdFilestat(m, a, putFilestatUnstable)
}

func pathFilestatGetUnstable(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.pathFilestat(ctx, m, a, putFilestatUnstable)
}

// putFilestatUnstable has a link count of 32 bits:
//
//	| dev u64 | ino u64 | filetype u8 +3 | nlink u32 | size u64 | atim u64 | mtim u64 | ctim u64 |
func putFilestatUnstable(m memory, ptr uint64, st filestat) Errno {
	b, errno := m.bytes(uint32(ptr), 56)
	if errno != 0 {
		return errno
	}
	put64(b, st.dev)
	put64(b[8:], st.ino)
	put32(b[16:], uint32(st.filetype))
	put32(b[20:], uint32(min(st.nlink, 1<<32-1)))
	put64(b[24:], st.size)
	put64(b[32:], uint64(st.atim))
	put64(b[40:], uint64(st.mtim))
	put64(b[48:], uint64(st.ctime))
	return 0
}

// A clock subscription begins with an identifier of its own:
//
//	| userdata u64 | tag u8 +7 | identifier u64 | id u32 +4 | timeout u64 | precision u64 | flags u16 +6 |
var unstableSubscription = subscriptionLayout{size: 56, clock: 24, timeout: 32, flags: 48}

func pollOneoffUnstable(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.pollOneoff(ctx, m, a, &unstableSubscription)
}
