package wasip1

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// names lists a directory of the container.
func (c *caller) names(path string) []string {
	c.t.Helper()
	fd, errno := c.openRead(3, path, int(oflagDirectory))
	if errno != 0 {
		c.t.Errorf("open %s: %v", path, errno)
		return nil
	}
	defer c.want(0, "fd_close", fd)
	const buf, used = 16384, 64
	c.want(0, "fd_readdir", fd, buf, 32768, uint64(0), used)
	var names []string
	b, _ := c.mem.Read(buf, c.u32(used))
	for len(b) >= 24 {
		n := int(le32(b[16:]))
		if name := string(b[24 : 24+n]); name != "." && name != ".." {
			names = append(names, name)
		}
		b = b[24+n:]
	}
	slices.Sort(names)
	return names
}

func writeFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMountOrder: a later mount shadows earlier ones at and below its path.
func TestMountOrder(t *testing.T) {
	root, a, b, inner := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	writeFiles(t, root, "data/root", "top")
	writeFiles(t, a, "a")
	writeFiles(t, b, "b")
	writeFiles(t, inner, "inner")
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{
		{GuestPath: "/", Host: root},
		{GuestPath: "/data", Host: a},
		{GuestPath: "/data/sub", Host: inner},
		{GuestPath: "/data", Host: b, ReadOnly: true},
		{GuestPath: "/data/sub/", Host: inner}, // on a read-only mount, without a directory to lie on
		{GuestPath: "/data/b", Host: filepath.Join(a, "a")},
	}}})
	for path, want := range map[string][]string{
		".": {"data", "top"}, "data": {"b", "sub"}, "data/sub": {"inner"}, "data/sub/..": {"b", "sub"},
	} {
		if got := c.names(path); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	fd, _ := c.openRead(3, "data/b", 0)
	if text, errno := c.read(fd); text != "a" || errno != 0 {
		t.Errorf("the mounted file has %q, %v", text, errno)
	}
	// Shadowed: made as the first mount's mount point, the later one's content shows.
	if _, err := os.Stat(filepath.Join(a, "sub")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b, "sub")); err == nil {
		t.Error("a mount point was made in a read-only mount")
	}
}

// TestMountBeneath VOL-30: a part of a directory is mounted, and links that lead
// out of the directory are not.
func TestMountBeneath(t *testing.T) {
	vol, outside := t.TempDir(), t.TempDir()
	writeFiles(t, vol, "sub/in", "version/key")
	writeFiles(t, outside, "secret")
	for name, target := range map[string]string{
		"..data": "version", "key": "..data/key", "up": "..data/../sub/in", "dirlink": "sub",
		"abs": outside + "/secret", "rel": "../" + filepath.Base(outside) + "/secret", "outdir": outside, "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(vol, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(vol, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"key": "version/key", "up": "sub/in", "sub/in": "sub/in", "dirlink/in": "sub/in"} {
		c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/f", Host: vol, Beneath: name}}}})
		fd, errno := c.openRead(3, "f", 0)
		if text, _ := c.read(fd); text != want || errno != 0 {
			t.Errorf("%s: %q, %v", name, text, errno)
		}
	}
	for _, name := range []string{"sub", "dirlink", "version/../sub"} {
		c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/d", Host: vol, Beneath: name}}}})
		if got := c.names("d"); !slices.Equal(got, []string{"in"}) {
			t.Errorf("%s has %q", name, got)
		}
	}
	for _, name := range []string{"abs", "rel", "outdir", "outdir/secret", "..", "../x", "loop", "missing", "fifo/x"} {
		p, err := NewProcess(ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/f", Host: vol, Beneath: name}}}})
		if err == nil {
			t.Errorf("%s was mounted", name)
			p.Close()
		}
	}
}

// TestNoRoot: without a root mount there is an empty read-only one.
func TestNoRoot(t *testing.T) {
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: append(Devices(), Mount{GuestPath: "/a/b", Host: t.TempDir()})}})
	if got := c.names("."); !slices.Equal(got, []string{"a", "dev"}) {
		t.Errorf("root has %q", got)
	}
	c.want(ErrnoROFS, "path_create_directory", 3, "new")
	c.want(ErrnoROFS, "path_create_directory", 3, "a/new")
	c.want(0, "path_create_directory", 3, "a/b/new")
	c.want(ErrnoNOENT, "path_filestat_get", 3, 0, "missing", 0)
	c.want(ErrnoNOENT, "path_filestat_get", 3, 0, "missing/x", 0)
	c.want(ErrnoBUSY, "path_remove_directory", 3, "a")
	c.want(ErrnoBUSY, "path_rename", 3, "a", 3, "c")
	c.want(ErrnoNOTDIR, "path_filestat_get", 3, 0, "dev/null/", 0)
	c.want(ErrnoNOTDIR, "path_filestat_get", 3, 0, "dev/null/x", 0)
	c.want(0, "path_filestat_set_times", 3, 0, "dev/null", uint64(1), uint64(1), 5)
	c.want(ErrnoINVAL, "path_readlink", 3, "dev/null", 1024, 10, 64)
	if _, errno := c.open(3, "new", int(oflagCreat)); errno != ErrnoROFS {
		t.Errorf("create in an empty root: %v", errno)
	}
	c.want(ErrnoXDEV, "path_link", 3, 0, "dev", 3, "a/b/dev")
}

// TestMountPointReplaced: what the host does to the directory below a mount
// point does not matter to the mount.
func TestMountPointReplaced(t *testing.T) {
	root, vol, outside := t.TempDir(), t.TempDir(), t.TempDir()
	writeFiles(t, vol, "in")
	writeFiles(t, outside, "secret")
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{
		{GuestPath: "/", Host: root}, {GuestPath: "/x/vol", Host: vol},
	}}})
	if err := os.RemoveAll(filepath.Join(root, "x")); err != nil {
		t.Fatal(err)
	}
	c.want(0, "path_filestat_get", 3, 0, "x/vol/in", 0)
	if got := c.names("."); !slices.Equal(got, []string{"x"}) {
		t.Errorf("root has %q", got)
	}
	if err := os.Symlink(outside, filepath.Join(root, "x")); err != nil {
		t.Fatal(err)
	}
	c.want(0, "path_filestat_get", 3, lookupFollow, "x/vol/in", 0)
	c.want(ErrnoNOENT, "path_filestat_get", 3, lookupFollow, "x/secret", 0)
	if got := c.names("x"); !slices.Equal(got, []string{"vol"}) {
		t.Errorf("x has %q", got)
	}
}

// TestFIFO: a read of a FIFO that the host put there waits, and can be killed.
func TestFIFO(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Skipf("skipped: no FIFOs here: %v", err)
	}
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/", Host: root}}}})
	if _, errno := c.open(3, "fifo", 0); errno != 0 { // both ways, so that it has a writer
		t.Fatal(errno)
	}
	fd, errno := c.openRead(3, "fifo", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	c.want(0, "fd_fdstat_set_flags", fd, int(fdflagNonblock))
	if _, errno := c.read(fd); errno != ErrnoAGAIN {
		t.Errorf("nothing there: %v, want EAGAIN", errno)
	}
	if errno := c.write(fd-1, "text"); errno != 0 {
		t.Error(errno)
	}
	if text, errno := c.read(fd); text != "text" || errno != 0 {
		t.Errorf("%q, %v", text, errno)
	}
	c.want(0, "fd_fdstat_set_flags", fd, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	c.ctx = WithProcess(ctx, c.p)
	c.mem.WriteUint32Le(4, 10)
	if errno, exit := c.call("fd_read", fd, 0, 1, 64); exit != 137 {
		t.Errorf("%v, exit %d, want exit 137", errno, exit)
	}
}

// TestListingMemory: however many directories a guest lists, few remember entries.
func TestListingMemory(t *testing.T) {
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/", Host: t.TempDir()}}}})
	var fds []int
	for range 3 * maxListed {
		fd, errno := c.openRead(3, ".", int(oflagDirectory))
		if errno != 0 {
			t.Fatal(errno)
		}
		fds = append(fds, fd)
		c.want(0, "fd_readdir", fd, 8192, 1000, uint64(0), 64)
	}
	remembering := 0
	for _, fd := range fds {
		if c.p.fds.entries[fd].file.(*openDir).list.window != nil {
			remembering++
		}
	}
	if remembering != maxListed {
		t.Errorf("%d remember entries, want %d", remembering, maxListed)
	}
	c.want(0, "fd_readdir", fds[0], 8192, 1000, uint64(1), 64) // and it goes on where it was
	if name, _ := c.mem.Read(8192+24, 2); string(name) != ".." {
		t.Errorf("after forgetting: %q", name)
	}
}

// TestNoHostDescriptorLeaks: whatever calls a guest makes, closing its process
// leaves nothing open on the host.
func TestNoHostDescriptorLeaks(t *testing.T) {
	root := t.TempDir()
	// What else this process opens and closes is not asked for.
	open := func() (files []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("skipped: cannot list open descriptors: %v", err)
		}
		for _, e := range entries {
			if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(name, root) {
				files = append(files, name)
			}
		}
		return files
	}
	writeFiles(t, root, "a/b/c/d/file", "x")
	if err := os.Symlink("/a/b/../b/c", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p, err := NewProcess(ProcessConfig{Root: rootFS(root)})
		if err != nil {
			t.Fatal(err)
		}
		b := p.ns.base()
		ctx := context.Background()
		for _, path := range []string{".", "a/b", "a/b/c/d/file", "link", "link/d/file", "link/../../x", "link/missing", "missing/x", "x/y", "..", "a/b/c/../../..", "dev/null", "dev"} {
			for _, oflags := range []uint16{0, oflagCreat, oflagDirectory, oflagCreat | oflagExcl, oflagTrunc} {
				for _, write := range []bool{false, true} {
					f, errno := p.openPath(ctx, b, path, openArgs{follow: true, oflags: oflags, read: true, write: write})
					if errno == 0 {
						if _, errno := p.fds.insert(descriptor{file: f}); errno != 0 {
							t.Fatal(errno)
						}
					}
				}
			}
			p.statPath(ctx, b, path, followAlways)
			p.rename(ctx, b, path, b, "a/b/c/d/moved")
			p.rename(ctx, b, "a/b/c/d/moved", b, path)
			p.link(ctx, b, path, followAlways, b, path)
			p.readlink(ctx, b, path)
			p.setTimesPath(ctx, b, path, followAlways, timesUpdate{})
		}
		if len(open()) == 0 {
			t.Error("open files are not seen")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := open(); len(left) != 0 {
		t.Errorf("open are %q", left)
	}
}
