package wasip1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestOverlayLikeDirectory does random sequences of operations on an overlay and on
// a directory that has what the overlay shows: files stay open over changes by
// other names, contents pass from the image to memory and to disk. Both must answer
// alike, and at the end look alike.
func TestOverlayLikeDirectory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: answers are compared with Linux's")
	}
	image := t.TempDir()
	writeFiles(t, image, "a", "d/a", "d/b", "d/e/a", "e/x")
	big := bytes.Repeat([]byte("0123456789abcdef"), 6000)
	if err := os.WriteFile(filepath.Join(image, "big"), big, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Link(filepath.Join(image, "a"), filepath.Join(image, "d/hard")),
		os.Symlink("d", filepath.Join(image, "l")),
		os.Symlink("../a", filepath.Join(image, "d/l")),
		os.Symlink("loop", filepath.Join(image, "loop")),
		os.Mkdir(filepath.Join(image, "s"), 0o777),
		os.Chmod(filepath.Join(image, "s"), 0o2775|os.ModeSetgid),
		os.Chown(filepath.Join(image, "s"), -1, os.Getegid()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := listTree(t, image)
	lower := lowerOf(t, image)
	rapid.Check(t, func(r *rapid.T) {
		copied := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.Command("cp", "-a", image, copied).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v %s", err, out)
		}
		o := NewOverlay(OverlayConfig{Lower: lower, Dir: t.TempDir(), MemoryBytes: rapid.SampledFrom([]int64{1, 8 << 10, 1 << 20}).Draw(r, "memory")})
		defer o.Close()
		pair := [2]*caller{newCaller(t, ProcessConfig{Root: overlayFS(o)}), newCaller(t, ProcessConfig{Root: rootFS(copied)})}
		defer pair[0].p.Close()
		defer pair[1].p.Close()
		both := func(what string, do func(c *caller) string) {
			if ours, theirs := do(pair[0]), do(pair[1]); ours != theirs {
				r.Fatalf("%s:\nours:   %.500s\ntheirs: %.500s", what, ours, theirs)
			}
		}
		var fds []int
		most := 120
		if raceEnabled {
			most = 20
		}
		for i := range rapid.IntRange(10, most).Draw(r, "operations") {
			overlayStep(r, fmt.Sprint(i), &fds, both)
		}
		both("the whole tree", func(c *caller) string { return c.tree(".", 0) })
	})
	if after := listTree(t, image); after != before {
		t.Errorf("the image was\n%s\nand is\n%s", before, after)
	}
}

var overlayNames = []string{"a", "b", "big", "d", "e", "l", "loop", "s", "d/a", "d/b", "d/hard", "d/l", "d/e", "d/e/a", "e/x", "l/a", "l/new", "s/x", "s/y", "d/../a", "d/", "a/", "e/.", "."}

func overlayStep(r *rapid.T, label string, fds *[]int, both func(string, func(*caller) string)) {
	name := rapid.SampledFrom(overlayNames).Draw(r, label+"a")
	other := rapid.SampledFrom(overlayNames).Draw(r, label+"b")
	num := rapid.SampledFrom([]int{0, 1, 7, 100, 4095, 4096, 5000, 66_000}).Draw(r, label+"n")
	follow := num % 2
	fd := -1
	if len(*fds) > 0 {
		fd = (*fds)[rapid.IntRange(0, len(*fds)-1).Draw(r, label+"fd")]
	}
	op := rapid.SampledFrom([]string{"mkdir", "rmdir", "unlink", "rename", "rename", "link", "symlink", "readlink", "open", "open", "open", "write", "write",
		"pwrite", "read", "pread", "seek", "size", "allocate", "append", "close", "stat", "fstat", "utimes", "futimes", "chmod", "chown", "list"}).Draw(r, label+"op")
	what := fmt.Sprintf("%s: %s %s %s fd %d, %d", label, op, name, other, fd, num)
	call := func(name string, args ...any) {
		both(what, func(c *caller) string {
			errno, _ := c.call(name, args...)
			return errno.Error()
		})
	}
	data := func(name string, args ...any) {
		both(what, func(c *caller) string { return c.transfer(name, byte('a'+num%26), num, args...) })
	}
	switch op {
	case "mkdir":
		call("path_create_directory", 3, name)
	case "rmdir":
		call("path_remove_directory", 3, name)
	case "unlink":
		call("path_unlink_file", 3, name)
	case "rename":
		call("path_rename", 3, name, 3, other)
	case "link":
		call("path_link", 3, 0, name, 3, other)
	case "symlink":
		call("path_symlink", other, 3, name)
	case "readlink":
		both(what, func(c *caller) string {
			errno, _ := c.call("path_readlink", 3, name, 8192, 4096, 64)
			if errno != 0 {
				return errno.Error()
			}
			b, _ := c.mem.Read(8192, c.u32(64))
			return string(b)
		})
	case "open":
		oflags := rapid.SampledFrom([]uint16{0, oflagCreat, oflagCreat, oflagCreat | oflagTrunc, oflagTrunc, oflagCreat | oflagExcl, oflagDirectory}).Draw(r, label+"oflags")
		fdflags := rapid.SampledFrom([]uint16{0, 0, fdflagAppend}).Draw(r, label+"fdflags")
		rights := rapid.SampledFrom([]uint64{rightsAll, rightsAll, rightsAll &^ rightFdWrite}).Draw(r, label+"rights")
		opened := -1
		both(what, func(c *caller) string {
			errno, _ := c.call("path_open", 3, follow, name, int(oflags), rights, rights, int(fdflags), 64)
			if errno != 0 {
				return errno.Error()
			}
			opened = int(c.u32(64))
			return fmt.Sprint(opened)
		})
		if opened >= 0 {
			*fds = append(*fds, opened)
		}
	case "write":
		data("fd_write", fd)
	case "pwrite":
		data("fd_pwrite", fd, uint64(num*3))
	case "read":
		data("fd_read", fd)
	case "pread":
		data("fd_pread", fd, uint64(num/2))
	case "seek":
		whence := rapid.IntRange(0, 2).Draw(r, label+"whence")
		both(what, func(c *caller) string {
			errno, _ := c.call("fd_seek", fd, uint64(num-10), whence, 64)
			if errno != 0 {
				return errno.Error()
			}
			return fmt.Sprint(c.u64(64))
		})
	case "size":
		call("fd_filestat_set_size", fd, uint64(num*2))
	case "allocate":
		call("fd_allocate", fd, uint64(num), uint64(num*2))
	case "append":
		call("fd_fdstat_set_flags", fd, follow)
	case "close":
		if fd >= 0 {
			call("fd_close", fd)
			for i := range *fds {
				if (*fds)[i] == fd {
					*fds = append((*fds)[:i], (*fds)[i+1:]...)
					break
				}
			}
		}
	case "stat":
		both(what, func(c *caller) string { return c.describe("path_stat_get", 3, follow, name) })
	case "fstat":
		both(what, func(c *caller) string { return c.describe("fd_stat_get", fd) })
	case "utimes":
		call("path_filestat_set_times", 3, follow, name, uint64(1), uint64(num)*1e9+5, 1|4)
		both(what, func(c *caller) string { return c.mtime(3, follow, name) })
	case "futimes":
		call("fd_filestat_set_times", fd, uint64(1), uint64(num)*1e9+7, 4)
	case "chmod":
		call("path_chmod", 3, 1, name, 0o700|num%0o100)
	case "chown":
		if os.Geteuid() == 0 {
			call("path_chown", 3, follow, name, num, 5)
		}
	case "list":
		both(what, func(c *caller) string { return c.listing(name) })
	}
}

// transfer reads or writes, and returns what was moved.
func (c *caller) transfer(name string, fill byte, n int, args ...any) string {
	const iovec, result, buf = 0, 64, 8192
	c.mem.Write(buf, bytes.Repeat([]byte{fill}, n))
	c.mem.Write(iovec, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, buf), uint32(n)))
	args = append([]any{args[0], iovec, 1}, args[1:]...)
	errno, _ := c.call(name, append(args, result)...)
	if errno != 0 {
		return errno.Error()
	}
	b, _ := c.mem.Read(buf, c.u32(result))
	return fmt.Sprintf("%d %s", len(b), b)
}

// describe has what of a stat is alike on all file systems.
func (c *caller) describe(name string, args ...any) string {
	const at = 16384
	errno, _ := c.call(name, append(args, at)...)
	if errno != 0 {
		return errno.Error()
	}
	mode := c.u32(at + 16)
	s := fmt.Sprintf("mode %o owner %d:%d", mode, c.u32(at+20), c.u32(at+24))
	if mode&0o170000 != 0o040000 {
		s += fmt.Sprintf(" links %d size %d", c.u64(at+32), c.u64(at+48))
	}
	return s
}

func (c *caller) mtime(args ...any) string {
	errno, _ := c.call("path_stat_get", append(args, 16384)...)
	if errno != 0 {
		return errno.Error()
	}
	return fmt.Sprint(c.u64(16384 + 72))
}

func (c *caller) listing(dir string) string {
	fd, errno := c.openRead(3, dir, int(oflagDirectory))
	if errno != 0 {
		return errno.Error()
	}
	c.call("fd_close", fd)
	return strings.Join(c.names(dir), " ")
}

func (c *caller) tree(dir string, depth int) string {
	if depth > 8 {
		return "too deep"
	}
	var s strings.Builder
	for _, name := range c.names(dir) {
		path := dir + "/" + name
		if path == "./dev" {
			continue
		}
		text := c.describe("path_stat_get", 3, 0, path)
		fmt.Fprintf(&s, "%s %s", path, text)
		switch {
		case strings.HasPrefix(text, "mode 4"):
			s.WriteString("\n" + c.tree(path, depth+1))
		case strings.HasPrefix(text, "mode 10"):
			fd, errno := c.openRead(3, path, 0)
			if errno != 0 {
				fmt.Fprint(&s, errno)
				continue
			}
			for at := 0; ; at += 60_000 {
				part := c.transfer("fd_pread", 0, 60_000, fd, uint64(at))
				if strings.HasPrefix(part, "0 ") {
					break
				}
				s.WriteString(part)
			}
			c.call("fd_close", fd)
		}
		s.WriteString("\n")
	}
	return s.String()
}
