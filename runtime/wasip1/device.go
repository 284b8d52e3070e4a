package wasip1

import (
	"context"
	"io"
	"time"
)

// Device is a device node of a container.
type Device uint8

// The devices; the zero Device is none.
const (
	DeviceNull Device = iota + 1
	DeviceZero
	DeviceFull
	DeviceRandom
	DeviceURandom
	DeviceStdin  // opening it gives what fd 0 was at the start
	DeviceStdout // writing to it is like writing to fd 1 at the start
	DeviceStderr
)

// maxDeviceRead keeps one read of an endless device short enough for a kill to
// be noticed; a short read is what Linux does, too.
const maxDeviceRead = 1 << 20

// device is an open device node.
type device struct {
	noFile
	kind  Device
	rand  io.Reader
	dev   uint64
	ino   uint64
	since time.Time
}

func (p *Process) openDevice(m *mount, n *node) file {
	switch m.device {
	case DeviceStdin:
		return p.stdin
	case DeviceStdout:
		return p.stdout
	case DeviceStderr:
		return p.stderr
	}
	return &device{kind: m.device, rand: p.rand, dev: m.dev, ino: n.ino, since: p.ns.created}
}

func (d *device) filetype() uint8 { return filetypeCharacterDevice }

func (d *device) stat() (filestat, Errno) {
	st := streamStat(filetypeCharacterDevice, d.ino, d.since)
	st.dev = d.dev
	return st, 0
}

func (d *device) read(ctx context.Context, bufs [][]byte, _ bool) (int, Errno) {
	return d.pread(ctx, bufs, 0)
}

func (d *device) pread(_ context.Context, bufs [][]byte, _ int64) (n int, errno Errno) {
	if d.kind == DeviceNull {
		return 0, 0
	}
	for _, b := range bufs {
		b = b[:min(len(b), maxDeviceRead-n)]
		if d.kind == DeviceRandom || d.kind == DeviceURandom {
			if _, err := io.ReadFull(d.rand, b); err != nil {
				return n, ErrnoIO
			}
		} else {
			clear(b)
		}
		n += len(b)
	}
	return n, 0
}

func (d *device) write(ctx context.Context, bufs [][]byte, _ bool) (int, Errno) {
	return d.pwrite(ctx, bufs, 0)
}

func (d *device) pwrite(_ context.Context, bufs [][]byte, _ int64) (n int, errno Errno) {
	n = total(bufs)
	if d.kind == DeviceFull && n > 0 {
		return 0, ErrnoNOSPC
	}
	return n, 0
}

// seek does nothing, successfully, as on Linux.
func (d *device) seek(int64, uint8) (int64, Errno) { return 0, 0 }
