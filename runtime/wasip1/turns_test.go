package wasip1

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// turnsContext counts how often a guest gives others a turn.
type turnsContext struct {
	context.Context
	left  bool
	turns int
	each  func()
}

func (c *turnsContext) Leave() { c.left = true }

func (c *turnsContext) Enter() {
	if c.left {
		c.left = false
		if c.turns++; c.each != nil {
			c.each()
		}
	}
}

// A guest comes to no safepoint while the host works for it, nor for as long as it
// makes few instructions of its own between calls: so calls that do much, and many
// that do little, give others a turn, and notice that the guest is to end.
func TestLongCallsGiveOthersATurn(t *testing.T) {
	const large = 4 << 20
	huge := func(c *caller) { // 1024 buffers over the same memory: 64 MiB
		for i := range uint32(1024) {
			c.mem.Write(8*i, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 1<<16), 1<<16))
		}
	}
	file := func(dir int) func(c *caller) int {
		return func(c *caller) int {
			fd, errno := c.open(dir, "file", int(oflagCreat))
			if errno != 0 {
				t.Fatal(errno)
			}
			huge(c)
			return fd
		}
	}
	for _, test := range []struct {
		name  string
		setUp func(c *caller) int
		call  func(c *caller, arg int) (Errno, int)
		least int
	}{
		{"fd_write", file(3), func(c *caller, fd int) (Errno, int) { return c.call("fd_write", fd, 0, 1024, 60000) }, 60},
		{"fd_pwrite", file(3), func(c *caller, fd int) (Errno, int) { return c.call("fd_pwrite", fd, 0, 1024, 0, 60000) }, 60},
		{"fd_pread", func(c *caller) int {
			fd := file(3)(c)
			c.want(0, "fd_pwrite", fd, 0, 1024, 0, 60000)
			return fd
		}, func(c *caller, fd int) (Errno, int) { return c.call("fd_pread", fd, 0, 1024, 0, 60000) }, 60},
		{"fd_sync", file(3), func(c *caller, fd int) (Errno, int) { return c.call("fd_sync", fd) }, 1},
		{"random_get", nil, func(c *caller, _ int) (errno Errno, exit int) {
			for range large >> 16 {
				if errno, exit = c.call("random_get", 1<<16, 1<<16); exit >= 0 {
					break
				}
			}
			return errno, exit
		}, 16},
		{"many small writes", file(3), func(c *caller, fd int) (errno Errno, exit int) {
			for range 100 {
				if errno, exit = c.call("fd_pwrite", fd, 0, 1, 0, 60000); exit >= 0 {
					break
				}
			}
			return errno, exit
		}, 25},
		{"paths", nil, func(c *caller, _ int) (errno Errno, exit int) {
			for range 100 {
				if errno, exit = c.call("path_filestat_get", 3, 0, "nothing", 60000); exit >= 0 {
					break
				}
			}
			return errno, exit
		}, 3},
		{"a long path", func(c *caller) int {
			c.want(0, "path_create_directory", 3, "d")
			return 0
		}, func(c *caller, _ int) (Errno, int) {
			return c.call("path_filestat_get", 3, 0, strings.Repeat("d/../", 800), 60000)
		}, 5},
		{"a large directory", func(c *caller) int {
			for i := range 5000 {
				if fd, errno := c.open(3, fmt.Sprint(i), int(oflagCreat)); errno != 0 || c.p.fds.close(uint32(fd)) != 0 {
					t.Fatal(errno)
				}
			}
			fd, errno := c.openRead(3, ".", int(oflagDirectory))
			if errno != 0 {
				t.Fatal(errno)
			}
			return fd
		}, func(c *caller, fd int) (Errno, int) { return c.call("fd_readdir", fd, 8192, 8192, 4900, 60000) }, 4},
		{"poll_oneoff", nil, func(c *caller, _ int) (Errno, int) {
			for range 2 {
				if _, more := c.mem.Grow(2); !more {
					break
				}
			}
			for i := range 5000 {
				c.mem.Write(uint32(48*i), clockSub(1, clockMonotonic, foreverTimeout, 0))
			}
			c.mem.Write(48*4999, clockSub(1, clockMonotonic, 0, 0))
			return c.call("poll_oneoff", 0, 0, 5000, 250000)
		}, 1},
	} {
		for _, overlay := range []bool{false, true} {
			if overlay && test.setUp == nil {
				continue
			}
			t.Run(fmt.Sprintf("%s, overlay %v", test.name, overlay), func(t *testing.T) {
				mount := Mount{GuestPath: "/", Host: t.TempDir()}
				if overlay {
					o := NewOverlay(OverlayConfig{Dir: t.TempDir()})
					defer o.Close()
					mount = Mount{GuestPath: "/", Overlay: o}
				}
				c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{mount}}})
				arg := 0
				if test.setUp != nil {
					arg = test.setUp(c)
				}
				ctx, cancel := context.WithCancel(t.Context())
				turns := &turnsContext{Context: WithProcess(ctx, c.p)}
				c.ctx = turns
				if errno, exit := test.call(c, arg); exit >= 0 || errno == ErrnoFAULT || errno == ErrnoINVAL {
					t.Fatalf("%v, exit %d", errno, exit)
				}
				if turns.turns < test.least {
					t.Errorf("others had %d turns, want %d at least", turns.turns, test.least)
				}
				cancel()
				if errno, exit := test.call(c, arg); exit != 137 && test.name != "fd_sync" && test.name != "a large directory" {
					t.Errorf("it goes on although it is to end: %v, exit %d", errno, exit)
				}
			})
		}
	}
}
