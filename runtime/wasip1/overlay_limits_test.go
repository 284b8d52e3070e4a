package wasip1

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// purse is an account with a limit.
type purse struct {
	mu          sync.Mutex
	limit, used int64
}

func (p *purse) Charge(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+n > p.limit {
		return false
	}
	p.used += n
	return true
}

func (p *purse) Release(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= n
}

func (c *caller) create(path string) int {
	c.t.Helper()
	fd, errno := c.open(3, path, int(oflagCreat))
	if errno != 0 {
		c.t.Fatalf("create %s: %v", path, errno)
	}
	return fd
}

// TestOverlayLimits: RES-30, OOM-05: what is in memory is paid for, what has no room
// there goes to disk, and what has no room anywhere is ENOSPC after as much as there
// was room for.
func TestOverlayLimits(t *testing.T) {
	t.Run("OOM-05 memory, then disk", func(t *testing.T) {
		account := &purse{limit: 1 << 30}
		dir := t.TempDir()
		o := NewOverlay(OverlayConfig{Dir: dir, MemoryBytes: 16 << 10, Account: account})
		c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
		c.transfer("fd_write", 'a', 10_000, c.create("small"))
		if u := o.Usage(); u.Disk != 0 || u.Memory < 10_000 || u.Memory > 16<<10 || u.Files != 3 || account.used < u.Memory {
			t.Errorf("%+v, paid %d", u, account.used)
		}
		large := c.create("large")
		for range 5 {
			c.transfer("fd_write", 'b', 10_000, large)
		}
		u := o.Usage()
		if u.Disk < 50_000 || u.Disk > 70_000 || u.Memory > 16<<10 {
			t.Errorf("%+v", u)
		}
		c.want(0, "path_unlink_file", 3, "large")
		if o.Usage() != u {
			t.Error("RES-30: a file that is open takes room, with a name or without")
		}
		c.want(0, "fd_close", large)
		if u := o.Usage(); u.Disk != 0 || u.Files != 3 {
			t.Errorf("%+v", u)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("on disk are %v", left)
		}
		c.p.Close()
		o.Close()
		if account.used != 0 {
			t.Errorf("%d bytes stay charged", account.used)
		}
	})
	t.Run("OOM-05 an account without money", func(t *testing.T) {
		account := &purse{limit: 8 << 10}
		o := NewOverlay(OverlayConfig{Dir: t.TempDir(), Account: account})
		c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
		if got := c.transfer("fd_write", 'a', 20_000, c.create("file")); !strings.HasPrefix(got, "20000 ") {
			t.Errorf("%.40s", got)
		}
		if u := o.Usage(); u.Disk < 20_000 || u.Memory != 0 {
			t.Errorf("%+v", u)
		}
		var errno Errno
		made := 0
		for ; errno == 0; made++ {
			errno, _ = c.call("path_create_directory", 3, fmt.Sprint("d", made))
		}
		if errno != ErrnoNOSPC || made < 10 {
			t.Errorf("%v after %d directories", errno, made)
		}
		c.want(0, "path_remove_directory", 3, "d0")
		c.want(0, "path_create_directory", 3, "e0")
	})
	t.Run("VOL-03 a size", func(t *testing.T) {
		o := NewOverlay(OverlayConfig{MemoryBytes: 100_000})
		pays := &purse{limit: 1 << 30}
		o.AddPayer(pays)
		c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/", Overlay: o}}}})
		fd := c.create("f")
		if got := c.transfer("fd_write", 'a', 60_000, fd); !strings.HasPrefix(got, "60000 ") {
			t.Errorf("%.40s", got)
		}
		got := c.transfer("fd_write", 'a', 60_000, fd)
		if n := 0; true {
			if fmt.Sscan(got, &n); n < 30_000 || n > 40_000 {
				t.Errorf("%d bytes of the second half were written", n)
			}
		}
		if got := c.transfer("fd_write", 'a', 60_000, fd); got != ErrnoNOSPC.Error() {
			t.Errorf("%.40s", got)
		}
		c.want(ErrnoNOSPC, "fd_allocate", fd, uint64(0), uint64(1<<40))
		c.want(0, "fd_filestat_set_size", fd, uint64(1<<40)) // holes take nothing
		c.want(0, "fd_filestat_set_size", fd, uint64(10))
		if u := o.Usage(); u.Memory > 5000 || pays.used != u.Memory {
			t.Errorf("%+v, paid %d", u, pays.used)
		}
		heir := &purse{limit: 1 << 30}
		o.AddPayer(heir)
		o.RemovePayer(pays)
		if pays.used != 0 || heir.used != o.Usage().Memory {
			t.Errorf("paid %d and %d", pays.used, heir.used)
		}
		o.RemovePayer(heir)
		if heir.used != 0 {
			t.Errorf("%d bytes stay charged", heir.used)
		}
	})
	t.Run("names made and removed for ever", func(t *testing.T) {
		account := &purse{limit: 64 << 10}
		image := t.TempDir()
		writeFiles(t, image, "d/a")
		o := NewOverlay(OverlayConfig{Lower: lowerOf(t, image), Dir: t.TempDir(), Account: account})
		c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
		c.names("d")
		for i := range 1000 {
			name := fmt.Sprint("d/", i)
			c.want(0, "fd_close", c.create(name))
			c.want(0, "path_rename", 3, name, 3, "d/a")
			if i%100 == 0 {
				c.names("d")
			}
			c.want(0, "path_unlink_file", 3, "d/a")
		}
		if account.used > 8<<10 {
			t.Errorf("%d bytes are charged", account.used)
		}
	})
}

// TestOverlayLargeDirectory: 100,000 names of the image, and as many whiteouts.
func TestOverlayLargeDirectory(t *testing.T) {
	entries := 100_000
	if raceEnabled {
		entries = 2000
	}
	l := NewLower()
	content := &LowerContent{Path: os.DevNull}
	if err := l.Add(LowerEntry{Name: "d"}); err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if err := l.Add(LowerEntry{Name: fmt.Sprintf("d/%06d", i), Content: &LowerContent{Path: content.Path}}); err != nil {
			t.Fatal(err)
		}
	}
	o := NewOverlay(OverlayConfig{Lower: l, Dir: t.TempDir()})
	defer o.Close()
	c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
	list := func() (names []string) {
		fd, errno := c.openRead(3, "d", int(oflagDirectory))
		if errno != 0 {
			t.Fatal(errno)
		}
		defer c.want(0, "fd_close", fd)
		for cookie := uint64(0); ; {
			c.want(0, "fd_readdir", fd, 16384, 60_000, cookie, 64)
			b, _ := c.mem.Read(16384, c.u32(64))
			full := len(b) == 60_000
			for len(b) >= 24 && len(b) >= 24+int(le32(b[16:])) {
				n := int(le32(b[16:]))
				if name := string(b[24 : 24+n]); name != "." && name != ".." {
					names = append(names, name)
				}
				cookie++
				b = b[24+n:]
			}
			if !full {
				return names
			}
		}
	}
	all := list()
	if len(all) != entries || all[0] != "000000" || all[entries-1] != fmt.Sprintf("%06d", entries-1) {
		t.Fatalf("%d entries, from %s to %s", len(all), all[0], all[len(all)-1])
	}
	for _, name := range all {
		if name != "000777" {
			c.want(0, "path_unlink_file", 3, "d/"+name)
		}
	}
	if left := list(); len(left) != 1 || left[0] != "000777" {
		t.Errorf("%d are left", len(left))
	}
	c.want(ErrnoNOTEMPTY, "path_remove_directory", 3, "d")
	c.want(0, "path_unlink_file", 3, "d/000777")
	c.want(0, "path_remove_directory", 3, "d")
	c.want(0, "path_create_directory", 3, "d")
	if left := list(); len(left) != 0 {
		t.Errorf("a new directory shows %d old names", len(left))
	}
	if u := o.Usage(); u.Files > 10 {
		t.Errorf("%+v", u)
	}
}

// TestOverlayDamage: an image's file that is not what it was, or not there, is EIO
// for the guest.
func TestOverlayDamage(t *testing.T) {
	image := t.TempDir()
	writeFiles(t, image, "gone", "short", "damaged")
	l := NewLower()
	damaged := true
	for name, content := range map[string]*LowerContent{
		"gone":  {Path: filepath.Join(image, "nothing"), Size: 5},
		"short": {Path: filepath.Join(image, "short"), Size: 100},
		"damaged": {Path: filepath.Join(image, "damaged"), Size: 7, Check: func() error {
			if damaged {
				return os.ErrInvalid
			}
			return nil
		}},
	} {
		if err := l.Add(LowerEntry{Name: name, Content: content, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	o := NewOverlay(OverlayConfig{Lower: l, Dir: t.TempDir()})
	defer o.Close()
	c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
	for _, name := range []string{"gone", "damaged"} {
		if _, errno := c.openRead(3, name, 0); errno != ErrnoIO {
			t.Errorf("%s: %v", name, errno)
		}
	}
	fd, errno := c.open(3, "short", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if got := c.transfer("fd_pread", 0, 100, fd, uint64(0)); got != "5 short" {
		t.Errorf("%q", got)
	}
	if got := c.transfer("fd_pwrite", 'x', 1, fd, uint64(2)); got != ErrnoIO.Error() && !strings.HasPrefix(got, "1 ") {
		t.Errorf("%q", got)
	}
	damaged = false // it was unpacked again
	if fd, errno := c.openRead(3, "damaged", 0); errno != 0 {
		t.Error(errno)
	} else if text, _ := c.read(fd); text != "damaged" {
		t.Errorf("%q", text)
	}
}

// TestOverlayFullDisk fills the disk in the middle of a copy-up, and of a file that
// moves from memory to disk: the guest gets ENOSPC, and the file is what it was.
func TestOverlayFullDisk(t *testing.T) {
	dir := smallDisk(t, 256<<10)
	image := t.TempDir()
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	if err := os.WriteFile(filepath.Join(image, "large"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	o := NewOverlay(OverlayConfig{Lower: lowerOf(t, image), Dir: dir})
	defer o.Close()
	c := newCaller(t, ProcessConfig{Root: overlayFS(o)})
	fd, errno := c.open(3, "large", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if got := c.transfer("fd_pwrite", 'x', 10, fd, uint64(100)); got != ErrnoNOSPC.Error() {
		t.Errorf("%q", got)
	}
	if got := c.transfer("fd_pread", 0, 16, fd, uint64(96)); got != "16 0123456789abcdef" {
		t.Errorf("%q", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
	// A part of it fits.
	c.want(0, "fd_filestat_set_size", fd, uint64(100_000))
	if got := c.transfer("fd_pwrite", 'x', 10, fd, uint64(100)); got != "10 xxxxxxxxxx" {
		t.Errorf("%q", got)
	}
	grown := c.create("grown")
	written := 0
	for {
		got := c.transfer("fd_write", 'y', 60_000, grown)
		n := 0
		if got == ErrnoNOSPC.Error() {
			break
		}
		if fmt.Sscan(got, &n); n == 0 {
			t.Fatalf("%.40q", got)
		}
		written += n
	}
	if got := c.transfer("fd_pread", 0, 1, grown, uint64(written-1)); got != "1 y" || written < 60_000 {
		t.Errorf("%q after %d bytes", got, written)
	}
	c.want(0, "fd_close", grown)
	c.want(0, "path_unlink_file", 3, "grown")
	if got := c.transfer("fd_write", 'y', 60_000, c.create("again")); !strings.HasPrefix(got, "60000 ") {
		t.Errorf("there is no room again: %.40q", got)
	}
}
