package wasip1

import (
	"io"
	"testing"
)

func benchmark(b *testing.B, c ProcessConfig, name string, prepare func(*caller) []uint64) {
	h := newCaller(b, c)
	args := prepare(h)
	f := hostFunction(lookupFunction(name))
	stack := make([]uint64, len(args))
	b.ReportAllocs()
	for b.Loop() {
		copy(stack, args)
		f(h.ctx, h.mod, stack)
		if stack[0] != 0 {
			b.Fatal(Errno(stack[0]))
		}
	}
}

// iovec puts one buffer of n bytes into an array of iovecs at 0.
func (c *caller) iovec(n uint32) {
	c.mem.WriteUint32Le(0, 8192)
	c.mem.WriteUint32Le(4, n)
}

func BenchmarkClockTimeGet(b *testing.B) {
	benchmark(b, ProcessConfig{}, "clock_time_get", func(*caller) []uint64 { return []uint64{1, 0, 64} })
}

func BenchmarkRandomGet(b *testing.B) {
	benchmark(b, ProcessConfig{}, "random_get", func(*caller) []uint64 { return []uint64{64, 32} })
}

func BenchmarkFdWriteStdout(b *testing.B) {
	benchmark(b, ProcessConfig{Stdout: io.Discard}, "fd_write", func(c *caller) []uint64 {
		c.iovec(100)
		return []uint64{1, 0, 1, 64}
	})
}

func BenchmarkFdWriteFile(b *testing.B) {
	benchmark(b, ProcessConfig{Root: rootFS(b.TempDir())}, "fd_pwrite", func(c *caller) []uint64 {
		fd, _ := c.open(3, "f", int(oflagCreat))
		c.iovec(4096)
		return []uint64{uint64(fd), 0, 1, 0, 64}
	})
}

func BenchmarkFdReadFile(b *testing.B) {
	benchmark(b, ProcessConfig{Root: rootFS(b.TempDir())}, "fd_pread", func(c *caller) []uint64 {
		fd, _ := c.open(3, "f", int(oflagCreat))
		c.iovec(4096)
		c.want(0, "fd_write", fd, 0, 1, 64)
		return []uint64{uint64(fd), 0, 1, 0, 64}
	})
}

func BenchmarkFdReadFileEnd(b *testing.B) {
	benchmark(b, ProcessConfig{Root: rootFS(b.TempDir())}, "fd_read", func(c *caller) []uint64 {
		fd, _ := c.open(3, "f", int(oflagCreat))
		c.iovec(4096)
		return []uint64{uint64(fd), 0, 1, 64}
	})
}

func BenchmarkFdReadStdin(b *testing.B) {
	benchmark(b, ProcessConfig{Stdin: zeros{}}, "fd_read", func(c *caller) []uint64 {
		c.iovec(4096)
		return []uint64{0, 0, 1, 64}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func BenchmarkPollOneoffZero(b *testing.B) {
	benchmark(b, ProcessConfig{}, "poll_oneoff", func(c *caller) []uint64 {
		c.mem.Write(0, clockSub(1, clockMonotonic, 0, 0))
		return []uint64{0, 128, 1, 64}
	})
}

func BenchmarkPollOneoffSleep(b *testing.B) {
	benchmark(b, ProcessConfig{}, "poll_oneoff", func(c *caller) []uint64 {
		c.mem.Write(0, clockSub(1, clockMonotonic, 1000, 0))
		return []uint64{0, 128, 1, 64}
	})
}

func BenchmarkStat(b *testing.B) {
	benchmark(b, ProcessConfig{Root: rootFS(b.TempDir())}, "path_filestat_get", func(c *caller) []uint64 {
		c.want(0, "path_create_directory", 3, "a")
		c.want(0, "path_create_directory", 3, "a/b")
		c.mem.Write(4096, []byte("a/b"))
		return []uint64{3, 1, 4096, 3, 64}
	})
}

func BenchmarkNewProcess(b *testing.B) {
	fs := rootFS(b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		p, err := NewProcess(ProcessConfig{Root: fs})
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
