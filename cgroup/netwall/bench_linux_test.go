//go:build linux && (amd64 || arm64)

package netwall

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

// variants runs a benchmark without a Wall, for a marked socket, and for one that is
// not a pod's in a process that has a Wall; in turns.
func variants(b *testing.B, run func(b *testing.B, p *Pod)) {
	for range 5 {
		b.Run("without", func(b *testing.B) { run(b, nil) })
		b.Run("marked", func(b *testing.B) {
			w := open(b)
			run(b, newPod(b, w, to("127.0.0.0/8", 1, 65535), to("127.0.0.0/9", 1, 65535)))
		})
		b.Run("beside", func(b *testing.B) {
			open(b)
			run(b, nil)
		})
	}
}

// serve has every connection answered by f.
func serve(b *testing.B, f func(net.Conn)) (address string) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
		}
	}()
	return l.Addr().String()
}

func dial(b *testing.B, p *Pod, address string) net.Conn {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if p == nil {
			return nil
		}
		return control(c, p.MarkDialer)
	}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkConnect(b *testing.B) {
	address := serve(b, func(c net.Conn) { c.Close() })
	variants(b, func(b *testing.B, p *Pod) {
		for b.Loop() {
			c := dial(b, p, address)
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
}

// One byte there and one back: what the programs at packets cost.
func BenchmarkRoundTrip(b *testing.B) {
	address := serve(b, func(c net.Conn) {
		go func() {
			defer c.Close()
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		}()
	})
	variants(b, func(b *testing.B, p *Pod) {
		c := dial(b, p, address)
		defer c.Close()
		one := make([]byte, 1)
		for b.Loop() {
			if _, err := c.Write(one); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(one); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStream(b *testing.B) {
	address := serve(b, func(c net.Conn) {
		go func() {
			defer c.Close()
			io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c})
		}()
	})
	variants(b, func(b *testing.B, p *Pod) {
		c := dial(b, p, address)
		defer c.Close()
		buf := make([]byte, 64<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What it takes to have a Wall: a group, the process moved there, programs loaded
// and attached.
func BenchmarkOpen(b *testing.B) {
	var group, programs, end time.Duration
	state := b.TempDir()
	for b.Loop() {
		began := time.Now()
		m, err := cgroupfs.Open(cgroupfs.Config{Parent: cgroupfs.Auto, State: state, PID: os.Getpid(), Bare: true})
		if err != nil {
			missing(b, err)
		}
		made := time.Now()
		w, err := Open(m.Unified())
		if err != nil {
			missing(b, err)
		}
		opened := time.Now()
		if err := errors.Join(w.Close(), m.Close()); err != nil {
			b.Fatal(err)
		}
		group, programs, end = group+made.Sub(began), programs+opened.Sub(made), end+time.Since(opened)
	}
	b.ReportMetric(float64(group.Microseconds())/float64(b.N), "µs-group")
	b.ReportMetric(float64(programs.Microseconds())/float64(b.N), "µs-programs")
	b.ReportMetric(float64(end.Microseconds())/float64(b.N), "µs-close")
}

// A socket that is made, marked and closed.
func BenchmarkMark(b *testing.B) {
	variants(b, func(b *testing.B, p *Pod) {
		for b.Loop() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			if err := p.MarkDialer(uintptr(fd)); err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		}
	})
}
