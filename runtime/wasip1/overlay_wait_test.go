package wasip1

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// leavingContext calls leaving each time that a guest gives its place to others.
type leavingContext struct {
	context.Context
	leaving func()
}

func (c *leavingContext) Leave() { c.leaving() }
func (c *leavingContext) Enter() {}

// A file of the image that is large is copied while other guests have the place, and
// while others read it, change it, and open it anew. A guest that is killed meanwhile
// leaves nothing.
func TestCopyingIsNotWaitedFor(t *testing.T) {
	image := t.TempDir()
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // 256 KiB
	if err := os.WriteFile(filepath.Join(image, "large"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	large := func(c *caller) int {
		fd, errno := c.open(3, "large", 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return fd
	}
	for name, change := range map[string]func(c *caller, fd int) (Errno, int){
		"fd_pwrite": func(c *caller, fd int) (Errno, int) {
			c.mem.Write(0, []byte{0, 32, 0, 0, 1, 0, 0, 0}) // an iovec: one byte at 8192
			c.mem.Write(8192, []byte("x"))
			return c.call("fd_pwrite", fd, 0, 1, uint64(5), 64)
		},
		"fd_allocate":          func(c *caller, fd int) (Errno, int) { return c.call("fd_allocate", fd, uint64(5), uint64(1)) },
		"fd_filestat_set_size": func(c *caller, fd int) (Errno, int) { return c.call("fd_filestat_set_size", fd, uint64(200_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			account := &purse{limit: 1 << 30}
			o := NewOverlay(OverlayConfig{Lower: lowerOf(t, image), Dir: dir, Account: account})
			c, other := newCaller(t, ProcessConfig{Root: overlayFS(o)}), newCaller(t, ProcessConfig{Root: overlayFS(o)})
			fd, fd2 := large(c), large(other)

			ctx, cancel := context.WithCancel(t.Context())
			c.ctx = &leavingContext{WithProcess(ctx, c.p), cancel}
			if errno, exit := change(c, fd); exit != 137 {
				t.Errorf("it goes on although it is to end: %v, exit %d", errno, exit)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left on disk: %v", left)
			}

			left := 0
			c.ctx = &leavingContext{WithProcess(t.Context(), c.p), func() {
				if left++; left > 1 {
					return
				}
				if got := other.transfer("fd_pread", 0, 3, fd2, uint64(4)); got != "3 456" {
					t.Errorf("read %q meanwhile", got)
				}
				if got := other.transfer("fd_pwrite", 'y', 1, fd2, uint64(4)); !strings.HasPrefix(got, "1 ") {
					t.Errorf("wrote %q meanwhile", got)
				}
				other.want(0, "fd_close", large(other))
			}}
			if errno, exit := change(c, fd); errno != 0 || exit >= 0 {
				t.Errorf("%v, exit %d", errno, exit)
			}
			if left == 0 {
				t.Error("others have no turn while a file is copied")
			}
			// Both changes are there.
			want := "4 3y56"
			if name == "fd_pwrite" {
				want = "4 3yx6"
			}
			if got := other.transfer("fd_pread", 0, 4, fd2, uint64(3)); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if files, _ := os.ReadDir(dir); len(files) != 1 {
				t.Errorf("on disk are %v", files)
			}
			c.want(0, "fd_close", fd)
			other.want(0, "fd_close", fd2)
			c.want(0, "path_unlink_file", 3, "large")
			if files, _ := os.ReadDir(dir); len(files) != 0 {
				t.Errorf("on disk stay %v", files)
			}
			c.p.Close()
			other.p.Close()
			if o.Close(); account.used != 0 {
				t.Errorf("%d bytes stay charged", account.used)
			}
		})
	}
}

// A large file of an image is checked while other guests have the place, and
// without a lock that they need. A kill does not wait for it.
func TestCheckingIsNotWaitedFor(t *testing.T) {
	image := t.TempDir()
	path := filepath.Join(image, "large")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	var damaged atomic.Bool
	checking := make(chan func(), 1) // what the next check does meanwhile
	content := &LowerContent{Path: path, Size: longCheck, Check: func() error {
		select {
		case f := <-checking:
			f()
		default:
		}
		if damaged.Load() {
			return errors.New("damaged")
		}
		return nil
	}}
	l := NewLower()
	if err := l.Add(LowerEntry{Name: "large", Content: content, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	o := NewOverlay(OverlayConfig{Lower: l, Dir: t.TempDir()})
	defer o.Close()
	c, other := newCaller(t, ProcessConfig{Root: overlayFS(o)}), newCaller(t, ProcessConfig{Root: overlayFS(o)})

	ctx, cancel := context.WithCancel(t.Context())
	release, released := make(chan struct{}), make(chan struct{})
	checking <- func() {
		defer close(released)
		cancel()
		<-release
	}
	left := 0
	c.ctx = &leavingContext{WithProcess(ctx, c.p), func() { left++ }}
	if errno, exit := c.call("path_open", 3, 0, "large", 0, rightFdRead, uint64(0), 0, 64); exit != 137 || left != 1 {
		t.Errorf("%v, exit %d, left %d times", errno, exit, left)
	}
	other.want(0, "path_create_directory", 3, "d") // nobody has the lock
	close(release)
	<-released

	damaged.Store(true)
	content.checked.Store(false)
	if _, errno := other.openRead(3, "large", 0); errno != ErrnoIO {
		t.Errorf("%v, want EIO", errno)
	}
	damaged.Store(false)
	// Also where its attributes have been changed first.
	other.want(0, "path_filestat_set_times", 3, 0, "large", uint64(1), uint64(1), 5)
	checking <- func() {}
	fd, errno := other.openRead(3, "large", 0)
	if errno != 0 || len(checking) != 0 {
		t.Errorf("%v, checked %v", errno, len(checking) == 0)
	}
	if text, _ := other.read(fd); text != "content" {
		t.Errorf("%q", text)
	}
}

// Offsets at the very end of what a file can be.
func TestOverlayLargestFile(t *testing.T) {
	account := &purse{limit: 1 << 20}
	o := NewOverlay(OverlayConfig{Account: account})
	defer o.Close()
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/", Overlay: o}}}})
	fd := c.create("f")
	// In the last block of all.
	c.want(0, "fd_allocate", fd, uint64(math.MaxInt64-4100), uint64(4100))
	if u := o.Usage(); u.Memory > 32<<10 {
		t.Errorf("%+v", u)
	}
	c.want(ErrnoFBIG, "fd_allocate", fd, uint64(math.MaxInt64), uint64(1))
	if got := c.transfer("fd_pwrite", 'x', 10, fd, uint64(math.MaxInt64-5)); got != ErrnoFBIG.Error() {
		t.Errorf("%.40q", got)
	}
	if got := c.transfer("fd_pwrite", 'x', 10, fd, uint64(math.MaxInt64-10)); !strings.HasPrefix(got, "10 ") {
		t.Errorf("%.40q", got)
	}
	c.want(0, "fd_fdstat_set_flags", fd, int(fdflagAppend))
	if errno := c.write(fd, "more"); errno != ErrnoFBIG {
		t.Errorf("appended beyond the largest size: %v", errno)
	}
	c.want(0, "fd_filestat_set_size", fd, uint64(0))
	if errno := c.write(fd, "again"); errno != 0 {
		t.Error(errno)
	}
	if u := o.Usage(); u.Memory > 2048 {
		t.Errorf("%+v", u)
	}
	// What there is no room for takes none, in pieces neither.
	c.want(ErrnoNOSPC, "fd_allocate", fd, uint64(0), uint64(1<<40))
	if u := o.Usage(); u.Memory > 8192 {
		t.Errorf("%+v", u)
	}
	if text := c.transfer("fd_pread", 0, 10, fd, uint64(0)); text != "5 again" {
		t.Errorf("%q", text)
	}
}
