package wasip1

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// stat returns mode, uid and gid of a path.
func (c *caller) stat(path string, flags int) (mode, uid, gid uint32) {
	c.t.Helper()
	c.want(0, "path_stat_get", 3, flags, path, 16384)
	return c.u32(16384 + 16), c.u32(16384 + 20), c.u32(16384 + 24)
}

const keep = 1<<32 - 1

// SEC-04: modes are the host's, owners are virtual where they cannot be real. In an
// overlay both are its own.
func TestModeAndOwner(t *testing.T) {
	for name, root := range rootKinds {
		t.Run(name, func(t *testing.T) { testModeAndOwner(t, root) })
	}
}

func testModeAndOwner(t *testing.T, rootFS func(t testing.TB, dir string) FS) {
	root, ro := t.TempDir(), t.TempDir()
	for _, f := range []string{root + "/f", ro + "/f"} {
		if err := os.WriteFile(f, nil, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("f", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	fs := rootFS(t, root)
	fs.Mounts = append(fs.Mounts, Mount{GuestPath: "/ro", Host: ro, ReadOnly: true})
	c := newCaller(t, ProcessConfig{Root: fs})
	if mode, uid, gid := c.stat("f", 0); mode != 0o100640 || uid != 0 || gid != 0 {
		t.Errorf("%o %d:%d", mode, uid, gid)
	}
	if mode, _, _ := c.stat("link", 0); mode&0o170000 != 0o120000 {
		t.Errorf("link: mode %o", mode)
	}
	c.want(0, "path_chmod", 3, lookupFollow, "link", 0o6755)
	if mode, _, _ := c.stat("f", 0); mode != 0o100755 {
		t.Errorf("after chmod: %o, without set-ID bits", mode)
	}
	c.want(ErrnoNOTSUP, "path_chmod", 3, 0, "link", 0o700)
	c.want(ErrnoROFS, "path_chmod", 3, 0, "ro/f", 0o700)
	c.want(ErrnoROFS, "path_chown", 3, 0, "ro/f", 1, 1)
	c.want(ErrnoPERM, "path_chmod", 3, 0, "dev/null", 0o700)
	c.want(ErrnoNOTCAPABLE, "path_chmod", 3, 0, "../f", 0o700)
	fd, errno := c.open(3, "f", 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	c.want(0, "fd_chmod", fd, 0o600)
	if os.Geteuid() != 0 {
		if err := unix.Setxattr(root+"/f", "user.wasmpod.test", nil, 0); err != nil {
			t.Skipf("the file system of %s keeps no attributes (%v), so owners cannot be noted there", root, err)
		}
	}
	c.want(0, "fd_chown", fd, 1001, keep)
	c.want(0, "path_chown", 3, 0, "f", keep, 2002)
	c.want(0, "fd_stat_get", fd, 1024)
	if mode, uid, gid := c.stat("f", 0); mode != 0o100600 || uid != 1001 || gid != 2002 || c.u32(1024+20) != uid || c.u32(1024+24) != gid {
		t.Errorf("%o %d:%d", mode, uid, gid)
	}
	c.want(0, "fd_statfs_get", fd, 1024)
	c.want(0, "path_statfs_get", 3, 0, "ro", 2048)
	if c.u64(1024+8) == 0 || c.u64(1024+64) != 0 || c.u64(2048+64) != 1 {
		t.Error("statfs: block size 0, or read-only where it is not, or not where it is")
	}

	user := newCaller(t, ProcessConfig{Root: fs, UID: 1001, GID: 1001, Groups: []uint32{7}})
	if _, errno := user.open(3, "new", int(oflagCreat)); errno != 0 {
		t.Fatal(errno)
	}
	user.want(0, "path_create_directory", 3, "dir")
	for _, name := range []string{"new", "dir"} {
		if _, uid, gid := user.stat(name, 0); uid != 1001 || gid != 1001 {
			t.Errorf("%s belongs to %d:%d", name, uid, gid)
		}
	}
	c.want(0, "path_create_directory", 3, "shared")
	c.want(0, "path_chown", 3, 0, "shared", keep, 77)
	c.want(0, "path_chmod", 3, 0, "shared", 0o2777)
	if _, errno := user.open(3, "shared/file", int(oflagCreat)); errno != 0 {
		t.Fatal(errno)
	}
	user.want(0, "path_create_directory", 3, "shared/dir")
	for _, name := range []string{"shared/file", "shared/dir"} {
		if mode, uid, gid := user.stat(name, 0); uid != 1001 || gid != 77 || mode&0o040000 != 0 && mode&0o2000 == 0 {
			t.Errorf("SEC-05: %s belongs to %d:%d, mode %o", name, uid, gid, mode)
		}
	}
	user.want(ErrnoPERM, "path_chown", 3, 0, "new", 0, keep)
	user.want(ErrnoPERM, "path_chown", 3, 0, "new", keep, 8)
	user.want(0, "path_chown", 3, 0, "new", keep, 7)
	c.want(0, "path_chown", 3, 0, "new", 0, 0)
	user.want(ErrnoPERM, "path_chmod", 3, 0, "new", 0o777)
}
