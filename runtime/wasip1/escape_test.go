package wasip1

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const secret = "the host's secret"

// rootKinds are what a container's root can be: a directory of the host, and an
// overlay that shows one.
var rootKinds = map[string]func(t testing.TB, dir string) FS{
	"directory": func(_ testing.TB, dir string) FS { return rootFS(dir) },
	"overlay":   func(t testing.TB, dir string) FS { return overlayFS(overlayOf(t, dir)) },
}

// jail is a container's root with a secret beside it.
func jail(t *testing.T) (root, outside string) {
	t.Helper()
	dir := t.TempDir()
	root, outside = filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{root, outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, outside
}

// unharmed fails if anything outside was added, changed or removed.
func unharmed(t *testing.T, outside string) {
	t.Helper()
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside has %v (%v)", entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "secret")); string(text) != secret || err != nil {
		t.Errorf("the secret is now %q (%v)", text, err)
	}
}

func TestEscapeByPath(t *testing.T) {
	for name, root := range rootKinds {
		t.Run(name, func(t *testing.T) { testEscapeByPath(t, root) })
	}
}

func testEscapeByPath(t *testing.T, rootFS func(t testing.TB, dir string) FS) {
	root, outside := jail(t)
	c := newCaller(t, ProcessConfig{Root: rootFS(t, root)})
	c.want(0, "path_create_directory", 3, "d")
	if _, errno := c.open(3, "d", int(oflagDirectory)); errno != ErrnoISDIR {
		t.Errorf("opening a directory for writing: %v", errno)
	}
	dir, errno := c.openRead(3, "d", int(oflagDirectory))
	if errno != 0 {
		t.Fatal(errno)
	}
	long := strings.Repeat("x/", maxPath)
	for _, fd := range []int{3, dir} {
		for path, want := range map[string]Errno{
			"..":                        ErrnoNOTCAPABLE,
			"../outside/secret":         ErrnoNOTCAPABLE,
			"/etc/passwd":               ErrnoNOTCAPABLE,
			"//":                        ErrnoNOTCAPABLE,
			"./../outside/secret":       ErrnoNOTCAPABLE,
			"./././..":                  ErrnoNOTCAPABLE,
			".//..//outside":            ErrnoNOTCAPABLE,
			"":                          ErrnoNOENT,
			"a\x00b":                    ErrnoINVAL,
			"\xff\xfe":                  ErrnoILSEQ,
			"\xc0\xae\xc0\xae/secret":   ErrnoILSEQ, // overlong ".."
			long:                        ErrnoNAMETOOLONG,
			strings.Repeat("n", 256):    ErrnoNAMETOOLONG,
			"..\\outside\\secret":       ErrnoNOENT,
			"missing/../../../outside":  ErrnoNOENT,
			strings.Repeat("../", 1000): ErrnoNOTCAPABLE,
		} {
			if len(path) > maxPath { // the harness has the room
				c.want(want, "path_filestat_get", fd, 0, path, 128)
				continue
			}
			c.want(want, "path_filestat_get", fd, 0, path, 128)
			c.want(want, "path_filestat_get", fd, lookupFollow, path, 128)
			if _, errno := c.openRead(fd, path, 0); errno != want {
				t.Errorf("open %.40q from %d: %v, want %v", path, fd, errno, want)
			}
			for _, name := range []string{"path_unlink_file", "path_remove_directory"} {
				if errno, _ := c.call(name, fd, path); errno != want {
					t.Errorf("%s %.40q: %v, want %v", name, path, errno, want)
				}
			}
			if errno, _ := c.call("path_rename", fd, "d", fd, path); errno == 0 && want != ErrnoNOENT {
				t.Errorf("renamed to %.40q", path)
			} else if errno == 0 {
				c.want(0, "path_rename", fd, path, fd, "d")
			}
		}
	}
	c.want(0, "path_create_directory", 3, "d/e")
	c.want(0, "path_filestat_get", dir, 0, "e/..", 128)
	c.want(ErrnoNOTCAPABLE, "path_filestat_get", dir, 0, "e/../..", 128)
	unharmed(t, outside)
}

func TestEscapeByLink(t *testing.T) {
	for name, root := range rootKinds {
		t.Run(name, func(t *testing.T) { testEscapeByLink(t, root) })
	}
}

func testEscapeByLink(t *testing.T, rootFS func(t testing.TB, dir string) FS) {
	root, outside := jail(t)
	// Links that the host put there, or an image: a guest may make the same.
	for name, target := range map[string]string{
		"abs":      outside + "/secret",
		"absdir":   outside,
		"rel":      "../outside/secret",
		"reldir":   "../outside",
		"far":      strings.Repeat("../", 50) + outside[1:] + "/secret",
		"chain1":   "chain2/secret",
		"chain2":   "chain3",
		"chain3":   "../outside",
		"self":     ".",
		"up":       "..",
		"root":     "/",
		"proc":     "/proc/self/root" + outside,
		"d/up":     "..",
		"d/out":    "../../outside",
		"d/abs":    "/d/../../outside",
		"slash":    outside + "/secret/",
		"loop1":    "loop2",
		"loop2":    "loop1",
		"newlink":  "../outside/created",
		"newlink2": outside + "/created",
	} {
		path := filepath.Join(root, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	c := newCaller(t, ProcessConfig{Root: rootFS(t, root)})
	sub, errno := c.openRead(3, "d", int(oflagDirectory))
	if errno != 0 {
		t.Fatal(errno)
	}
	paths := []string{"abs", "absdir/secret", "rel", "reldir/secret", "far", "chain1", "chain2/secret", "chain3/secret",
		"up/outside/secret", "up/up/up/outside/secret", "self/up/outside/secret", "root/" + outside[1:] + "/secret",
		"root/../outside/secret", "proc/secret", "d/up/up/outside/secret", "d/out/secret", "d/abs/secret", "slash",
		"loop1", "self/self/reldir/secret"}
	for _, fd := range []int{3, sub} {
		for _, path := range paths {
			if fd == sub {
				path = strings.TrimPrefix(path, "d/")
			}
			if fd, errno := c.openRead(fd, path, 0); errno == 0 {
				text, _ := c.read(fd)
				t.Errorf("opened %q: %q", path, text)
			}
			c.want0not(t, "path_filestat_get", fd, lookupFollow, path, 128)
			c.want0not(t, "path_filestat_set_times", fd, lookupFollow, path, uint64(1), uint64(1), 1|4)
			c.want0not(t, "path_link", fd, lookupFollow, path, 3, "stolen")
		}
	}
	// Where a link leads nowhere in the container, creating goes there, inside.
	for _, path := range []string{"newlink", "newlink2"} {
		if fd, errno := c.open(3, path, int(oflagCreat)); errno == 0 {
			c.write(fd, "overwritten")
		}
	}
	// ".." at the root stays there, in links.
	c.want(0, "path_filestat_get", 3, lookupFollow, "up/up/root/up/d", 128)
	// Hard links and renames through directories that are links.
	c.want0not(t, "path_link", 3, 0, "reldir/secret", 3, "stolen")
	c.want0not(t, "path_rename", 3, "reldir/secret", 3, "stolen")
	c.want0not(t, "path_unlink_file", 3, "absdir/secret")
	c.want0not(t, "path_symlink", "x", 3, "reldir/x")
	c.want0not(t, "path_create_directory", 3, "chain2/x")
	unharmed(t, outside)
}

func (c *caller) want0not(t *testing.T, name string, args ...any) {
	t.Helper()
	if errno, _ := c.call(name, args...); errno == 0 {
		t.Errorf("%s%q succeeded", name, args)
	}
}

// TestEscapeByRace changes directories into links and back while a guest walks
// through them.
func TestEscapeByRace(t *testing.T) {
	root, outside := jail(t)
	const rounds = 2000
	mustDir := func(name string) {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Error(err)
		}
	}
	mustDir("a/b")
	if err := os.WriteFile(filepath.Join(root, "a/b/secret"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, ProcessConfig{Root: rootFS(root)})
	stop := make(chan struct{})
	var mutator sync.WaitGroup
	mutator.Go(func() {
		at := func(name string) string { return filepath.Join(root, name) }
		for {
			select {
			case <-stop:
				return
			default:
			}
			// a/b: directory, nothing, link to the outside, nothing, directory
			os.Rename(at("a/b"), at("kept"))
			os.Rename(at("link"), at("a/b"))
			os.Rename(at("a/b"), at("link"))
			os.Rename(at("kept"), at("a/b"))
			// a itself moves away and back, so that ".." of b changes
			os.Rename(at("a"), at("moved"))
			os.Rename(at("moved"), at("a"))
		}
	})
	opened := 0
	for i := range rounds {
		if fd, errno := c.openRead(3, "a/b/secret", 0); errno == 0 {
			opened++
			if text, _ := c.read(fd); text != "inside" {
				t.Fatalf("round %d: read %q", i, text)
			}
			c.want(0, "fd_close", fd)
		}
		if fd, errno := c.open(3, "a/b/new", int(oflagCreat)); errno == 0 {
			c.write(fd, "new")
			c.want(0, "fd_close", fd)
		}
		c.call("path_create_directory", 3, "a/b/../b/dir")
		c.call("path_rename", 3, "a/b/new", 3, "a/b/secret2")
		c.call("path_unlink_file", 3, "a/b/secret2")
		c.call("path_link", 3, lookupFollow, "a/b/secret", 3, "a/b/hard")
		if fd, errno := c.openRead(3, "a/b/hard", 0); errno == 0 {
			if text, _ := c.read(fd); text != "inside" {
				t.Fatalf("round %d: read %q through a hard link", i, text)
			}
			c.want(0, "fd_close", fd)
		}
		c.call("path_unlink_file", 3, "a/b/hard")
		c.call("path_filestat_set_times", 3, lookupFollow, "a/b/secret", uint64(1), uint64(1), 1|4)
		c.call("path_remove_directory", 3, "a/b/dir")
	}
	close(stop)
	mutator.Wait()
	if opened == 0 {
		t.Error("the race never let a file be opened")
	}
	unharmed(t, outside)
	if info, err := os.Stat(filepath.Join(outside, "secret")); err != nil || info.ModTime().Unix() < 1000 {
		t.Errorf("times outside changed: %v %v", info, err)
	}
}

// TestDeepPaths keeps the number of open host directories small and the time
// of hostile paths bounded.
func TestDeepPaths(t *testing.T) {
	for name, root := range rootKinds {
		t.Run(name, func(t *testing.T) { testDeepPaths(t, root) })
	}
}

func testDeepPaths(t *testing.T, rootFS func(t testing.TB, dir string) FS) {
	root := t.TempDir()
	c := newCaller(t, ProcessConfig{Root: rootFS(t, root)})
	path := "x"
	for range 500 {
		c.want(0, "path_create_directory", 3, path)
		path += "/x"
	}
	deep := strings.Repeat("x/", 499) + "x"
	c.want(0, "path_filestat_get", 3, 0, deep, 128)
	if c.p.walk.held != 0 || len(c.p.walk.frames) != 0 {
		t.Errorf("the walk holds %d directories in %d frames", c.p.walk.held, len(c.p.walk.frames))
	}
	c.want(0, "path_filestat_get", 3, 0, deep+strings.Repeat("/..", 499), 128)
	c.want(0, "path_filestat_get", 3, 0, deep+strings.Repeat("/../x", 400), 128)
	c.want(ErrnoNOTCAPABLE, "path_filestat_get", 3, 0, deep+strings.Repeat("/..", 501), 128)
	c.want(0, "path_symlink", strings.Repeat("x/", 400)+strings.Repeat("../", 400)+"bomb", 3, "bomb")
	c.want(ErrnoLOOP, "path_filestat_get", 3, lookupFollow, "bomb", 128)
}
