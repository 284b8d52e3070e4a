package wasip1

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// heapBytes is what Go's heap takes, and goroutines: the runtime counts their
// stacks by the 32 KiB.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC() // what had a finalizer, and what pools have kept once more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) + int64(runtime.NumGoroutine())<<11
}

// OOM-06: what is charged for what the host keeps is not less than it takes. Each
// kind of object is made many times by the guest's own calls.
func TestChargesAreWhatThingsTake(t *testing.T) {
	if raceEnabled || testing.Short() || testing.CoverMode() != "" {
		t.Skip("skipped: objects are larger there, or takes seconds")
	}
	long := strings.Repeat("n", 200)
	silent, _ := io.Pipe()
	defer silent.Close()
	image := t.TempDir()
	for i := range 300 {
		writeFiles(t, image, fmt.Sprint("image/", i))
	}
	lower := lowerOf(t, image)
	for _, test := range []struct {
		name  string
		n     int
		setup func(c *caller)
		each  func(c *caller, i int)
	}{
		{name: "descriptors of a device", n: 2100, each: func(c *caller, _ int) {
			c.want(0, "path_open", 3, 0, "dev/null", 0, uint64(rightsAll), rightsAll, 0, atResult)
		}},
		{name: "descriptors of a directory of the host", n: 400, each: func(c *caller, _ int) { c.openRead(3, "host", 0) }},
		{name: "descriptors of a file of the host", n: 400, setup: func(c *caller) { c.make(3, "host/f") }, each: func(c *caller, _ int) { c.open(3, "host/f", 0) }},
		{name: "descriptors of a directory of the root", n: 2100, each: func(c *caller, _ int) { c.openRead(3, ".", 0) }},
		{name: "descriptors of a file of the root", n: 2100, setup: func(c *caller) { c.make(3, "f") }, each: func(c *caller, _ int) { c.open(3, "f", 0) }},
		{name: "descriptors of nested directories", n: 300, setup: func(c *caller) { c.openRead(3, ".", 0) }, each: func(c *caller, i int) {
			c.want(0, "path_create_directory", 4+i, long)
			c.openRead(4+i, long, 0)
		}},
		{name: "descriptors of removed directories", n: 900, each: func(c *caller, _ int) {
			c.want(0, "path_create_directory", 3, "d")
			c.openRead(3, "d", 0)
			c.want(0, "path_remove_directory", 3, "d")
		}},
		{name: "duplicates", n: 2100, each: func(c *caller, _ int) { c.want(0, "fd_dup", 3, atResult) }},
		{name: "duplicates of their own", n: 2100, each: func(c *caller, _ int) {
			c.want(0, "path_open", 3, 0, "dev/null", 0, uint64(rightsAll), rightsAll, 0, atResult)
			c.want(0, "fd_dup", int(c.u32(atResult)), atResult)
		}},
		{name: "signal descriptors", n: 60, each: func(c *caller, _ int) { c.want(0, "signal_open", uint64(1), atResult) }},
		{name: "poll sets", n: maxPollSets, each: func(c *caller, _ int) { c.want(0, "poll_open", atResult) }},
		{name: "interests in sockets", n: 2100, setup: func(c *caller) {
			c.want(0, "poll_open", atResult)
			for range 2100 {
				c.socket(KindDatagram)
			}
		}, each: func(c *caller, i int) { c.want(0, "poll_control", 4, 5+i, 3, uint64(0)) }},
		{name: "interests in one socket", n: maxPollSets, setup: func(c *caller) {
			c.socket(KindDatagram)
			for range maxPollSets {
				c.want(0, "poll_open", atResult)
			}
		}, each: func(c *caller, i int) { c.want(0, "poll_control", 5+i, 4, 3, uint64(0)) }},
		{name: "interests in streams", n: 3 * maxPollSets, setup: func(c *caller) {
			for range maxPollSets {
				c.want(0, "poll_open", atResult)
			}
		}, each: func(c *caller, i int) { c.want(0, "poll_control", 4+i/3, i%3, 3, uint64(0)) }},
		{name: "interests, and as many that were left", n: 1500, setup: func(c *caller) {
			c.want(0, "poll_open", atResult)
			for range 1500 {
				c.socket(KindDatagram)
			}
		}, each: func(c *caller, i int) {
			c.want(0, "poll_control", 4, 5+i, 3, uint64(0))
			c.want(0, "poll_control", 4, 5+i, 0, uint64(0))
			c.want(0, "poll_control", 4, 5+i, 3, uint64(0))
		}},
		{name: "sleeping on stdin", n: 1, each: func(c *caller, _ int) {
			c.poll(fdSub(1, eventRead, 0), clockSub(2, clockMonotonic, 1, 0))
		}},
		{name: "writing to stdout", n: 1, each: func(c *caller, _ int) { c.write(1, strings.Repeat("x", 4000)) }},
		{name: "writing much to stdout", n: 1, each: func(c *caller, _ int) {
			c.vectors(8192, 100_000)
			c.want(0, "fd_write", 1, 0, 1, atResult)
		}},
		{name: "vectors", n: 1, each: func(c *caller, _ int) {
			c.mem.Write(0, make([]byte, 8*maxIovecs))
			c.want(0, "fd_write", 2, 0, maxIovecs, atResult)
		}},
		{name: "subscriptions", n: 1, each: func(c *caller, _ int) {
			c.mem.Write(0, make([]byte, 48*1000))
			for i := range 999 { // and a clock that has passed
				c.mem.WriteUint64Le(uint32(48*i+8), uint64(eventRead))
			}
			c.want(0, "poll_oneoff", 0, 50_000, 1000, 120_000)
		}},
		{name: "files", n: 2100, each: func(c *caller, i int) { c.make(3, fmt.Sprint("f", i)) }},
		{name: "files with long names", n: 2100, each: func(c *caller, i int) { c.make(3, fmt.Sprint(long, i)) }},
		{name: "files of a byte", n: 1000, each: func(c *caller, i int) { c.fill(fmt.Sprint("f", i), 0, 1) }},
		{name: "files of a block", n: 100, each: func(c *caller, i int) { c.fill(fmt.Sprint("f", i), 0, blockSize) }},
		{name: "files of some blocks", n: 40, each: func(c *caller, i int) { c.fill(fmt.Sprint("f", i), 0, 5*blockSize) }},
		{name: "files with holes", n: 100, each: func(c *caller, i int) { c.fill(fmt.Sprint("f", i), 1<<40, 1) }},
		{name: "one file with many holes", n: 1000, each: func(c *caller, i int) { c.fill("memory/f", uint64(2*i+1)*blockSize, 1) }},
		{name: "one file that was large", n: 1000, each: func(c *caller, i int) {
			c.fill("memory/f", uint64(i+1)*blockSize, 1)
			if i == 999 {
				fd, _ := c.open(3, "memory/f", 0)
				c.want(0, "fd_filestat_set_size", fd, uint64(5*blockSize))
				c.want(0, "fd_close", fd)
			}
		}},
		{name: "files on disk", n: 200, each: func(c *caller, i int) { c.fill(fmt.Sprint("f", i), maxMemoryFile, 1) }},
		{name: "one file of many blocks", n: 15, each: func(c *caller, i int) { c.fill("f", uint64(i)*blockSize, blockSize) }},
		{name: "directories", n: 2100, each: func(c *caller, i int) { c.want(0, "path_create_directory", 3, fmt.Sprint("d", i)) }},
		{name: "nested directories", n: 100, each: func(c *caller, i int) {
			c.want(0, "path_create_directory", 3, strings.Repeat("d/", i)+"d")
		}},
		{name: "links", n: 2100, each: func(c *caller, i int) { c.want(0, "path_symlink", "t", 3, fmt.Sprint("l", i)) }},
		{name: "long links", n: 600, each: func(c *caller, i int) { c.want(0, "path_symlink", long+long, 3, fmt.Sprint("l", i)) }},
		{name: "hard links", n: 2100, setup: func(c *caller) { c.make(3, "f") }, each: func(c *caller, i int) {
			c.want(0, "path_link", 3, 0, "f", 3, fmt.Sprint("l", i))
		}},
		{name: "removed files that are open", n: 600, each: func(c *caller, i int) {
			c.open(3, "f", int(oflagCreat|oflagExcl))
			c.want(0, "path_unlink_file", 3, "f")
		}},
		{name: "files that came and went", n: 2100, each: func(c *caller, i int) {
			c.make(3, fmt.Sprint(long, i))
			c.want(0, "path_unlink_file", 3, fmt.Sprint(long, i))
		}},
		{name: "files that came, and went together", n: 2000, each: func(c *caller, i int) {
			const half = 1000
			if i < half {
				c.make(3, fmt.Sprint(long, i))
			} else if i < half+half-5 {
				c.want(0, "path_unlink_file", 3, fmt.Sprint(long, i-half))
			}
		}},
		{name: "files that were listed, and went", n: 2000, each: func(c *caller, i int) {
			const half = 1000
			switch {
			case i < half:
				c.make(3, fmt.Sprint(long, i))
			case i == half:
				c.entries(3, 4096)
			case i < half+half*2/3:
				c.want(0, "path_unlink_file", 3, fmt.Sprint(long, i-half))
			}
		}},
		{name: "files that are listed again and again", n: 1000, each: func(c *caller, i int) {
			c.make(3, fmt.Sprint("f", i))
			c.want(0, "fd_readdir", 3, 8192, 256, uint64(0), atResult)
		}},
		{name: "owners", n: 600, each: func(c *caller, i int) {
			c.make(3, fmt.Sprint("f", i))
			c.want(0, "path_chmod", 3, 0, fmt.Sprint("f", i), 0o600)
		}},
		{name: "changed files of the image", n: 300, each: func(c *caller, i int) {
			c.want(0, "path_filestat_set_times", 3, 0, fmt.Sprint("image/", i), uint64(1), uint64(1), 5)
		}},
		{name: "removed files of the image", n: 300, each: func(c *caller, i int) {
			c.want(0, "path_unlink_file", 3, fmt.Sprint("image/", i))
		}},
		{name: "listings", n: maxListed, setup: func(c *caller) {
			for i := range maxWindow + 100 {
				c.make(3, fmt.Sprint("host/", long[:i%200], i))
			}
			for range maxListed {
				c.openRead(3, "host", 0)
			}
		}, each: func(c *caller, i int) { c.entries(4+i, 4096) }},
		{name: "listings of the root", n: maxListed, setup: func(c *caller) {
			for i := range maxWindow + 100 {
				c.make(3, fmt.Sprint(long[:i%200], "f", i))
			}
			for range maxListed {
				c.openRead(3, ".", 0)
			}
		}, each: func(c *caller, i int) { c.entries(4+i, 4096) }},
	} {
		t.Run("OOM-06 "+test.name, func(t *testing.T) {
			account := &purse{limit: 1 << 40}
			o := NewOverlay(OverlayConfig{Lower: lower, Dir: t.TempDir(), Account: account})
			memory := NewOverlay(OverlayConfig{Account: account})
			defer o.Close()
			defer memory.Close()
			c := newCaller(t, ProcessConfig{
				Root:   FS{Mounts: append([]Mount{{GuestPath: "/", Overlay: o}, {GuestPath: "/host", Host: t.TempDir()}, {GuestPath: "/memory", Overlay: memory}}, Devices()...)},
				Memory: account, Stdin: silent, Stdout: io.Discard, Stderr: io.Discard, MaxFDs: 1 << 14, Network: newFakeNet(),
			})
			if test.setup != nil {
				test.setup(c)
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			c.openRead(3, strings.Repeat("missing/", 500), 0) // buffers that any process comes to have
			paid, took := account.used, heapBytes()
			for i := range test.n {
				test.each(c, i)
			}
			took, paid = heapBytes()-took, account.used-paid
			t.Logf("%d: %d bytes each, charged %d", test.n, took/int64(test.n), paid/int64(test.n))
			const once = 4 << 10 // what any process comes to have: a timer, lists
			if took > paid+once {
				t.Errorf("%d take %d bytes, charged are %d", test.n, took, paid)
			}
			if t.Failed() {
				return
			}
			c.p.Close()
			runtime.KeepAlive(memory)
		})
	}
}

// fill writes zeros into a file.
func (c *caller) fill(path string, at uint64, n uint32) {
	c.t.Helper()
	fd, errno := c.open(3, path, int(oflagCreat))
	if errno != 0 {
		c.t.Fatalf("create %s: %v", path, errno)
	}
	c.vectors(16384, n)
	c.want(0, "fd_pwrite", fd, 0, 1, at, atResult)
	c.want(0, "fd_close", fd)
}
