package wasip1

import (
	"context"
	"io"
	"runtime"

	"github.com/tetratelabs/wazero/sys"
)

// args_get(argv, argv_buf): pointers at argv, NUL-terminated strings at argv_buf.
func argsGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return putStrings(m, p.args, uint32(a[0]), uint32(a[1]))
}

// args_sizes_get(argc *u32, argv_buf_size *u32)
func argsSizesGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return putSizes(m, p.args, uint32(a[0]), uint32(a[1]))
}

// environ_get(environ, environ_buf)
func environGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return putStrings(m, p.env, uint32(a[0]), uint32(a[1]))
}

// environ_sizes_get(count *u32, buf_size *u32)
func environSizesGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return putSizes(m, p.env, uint32(a[0]), uint32(a[1]))
}

func sizeOf(list []string) (n uint32) {
	for _, s := range list {
		n += uint32(len(s)) + 1
	}
	return n
}

func putSizes(m memory, list []string, count, size uint32) Errno {
	c, errno := m.bytes(count, 4)
	if errno != 0 {
		return errno
	}
	s, errno := m.bytes(size, 4)
	if errno != 0 {
		return errno
	}
	put32(c, uint32(len(list)))
	put32(s, sizeOf(list))
	return 0
}

func putStrings(m memory, list []string, pointers, buf uint32) Errno {
	ptrs, errno := m.array(pointers, uint32(len(list)), 4)
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(buf, sizeOf(list))
	if errno != 0 {
		return errno
	}
	for i, s := range list {
		put32(ptrs[4*i:], buf)
		n := copy(b, s)
		b[n] = 0
		b = b[n+1:]
		buf += uint32(n) + 1
	}
	return 0
}

// clock_res_get(id, resolution *u64)
func clockResGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	if _, errno := p.now(uint32(a[0])); errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[1]), 8)
	if errno == 0 {
		put64(b, resolution)
	}
	return errno
}

// clock_time_get(id, precision, time *u64)
func clockTimeGet(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	t, errno := p.time(ctx, uint32(a[0]))
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[2]), 8)
	if errno == 0 {
		put64(b, uint64(t))
	}
	return errno
}

// random_get(buf, len) fills all of buf.
func randomGet(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	b, errno := m.bytes(uint32(a[0]), uint32(a[1]))
	if errno != 0 {
		return errno
	}
	for len(b) > 0 {
		n := min(len(b), maxDeviceRead)
		if _, err := io.ReadFull(p.rand, b[:n]); err != nil {
			return ErrnoIO
		}
		b = b[n:]
		p.work(ctx, n)
	}
	return 0
}

// sched_yield()
func schedYield(ctx context.Context, _ *Process, _ memory, _ []uint64) Errno {
	if ctx.Err() != nil {
		panic(killed)
	}
	runtime.Gosched()
	return 0
}

// proc_exit(code) ends the guest. Like wait(2), and so like a container
// status, it keeps the low eight bits.
func procExit(_ context.Context, _ *Process, _ memory, a []uint64) Errno {
	panic(sys.NewExitError(uint32(a[0]) & 0xff))
}

// proc_raise(sig) gives the signal to the descriptor that takes it, and else
// takes its default action at once: preview 1 has no handlers. Numbers are
// WASI's; exit codes are 128 + Linux's number.
func procRaise(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	const (
		none, chld, cont, stop, ttou, urg, winch, sys_ = 0, 16, 17, 18, 21, 22, 27, 30
	)
	sig := uint8(a[0])
	linux := int(sig)
	if sig >= chld {
		linux++ // Linux has SIGSTKFLT at 16, WASI has not
	}
	switch {
	case sig > sys_:
		return ErrnoINVAL
	case sig != none && p.Signal(linux):
		return 0
	case sig == none, sig == chld, sig == cont, sig == urg, sig == winch:
		return 0
	case sig >= stop && sig <= ttou:
		return ErrnoNOTSUP // nothing could continue a stopped guest
	}
	panic(sys.NewExitError(128 + uint32(linux)))
}
