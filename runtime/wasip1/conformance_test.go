package wasip1

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// A scenario is what guests rely on in preview 1 beyond what their libc asks for:
// exact calls and errnos, in an empty directory dir of the container. Where
// implementations may differ it names what Linux does, which is what this one is
// to do.
type scenario func(c *caller, dir int)

const fstMtim = 4 // of path_filestat_set_times

var scenarios = map[string]scenario{
	"paths": func(c *caller, dir int) {
		c.want(0, "path_create_directory", dir, "d")
		c.want(0, "path_create_directory", dir, "d/n")
		c.make(dir, "d/n/f")
		for path, want := range map[string]Errno{
			"d/n/f":                       0,
			"d/.//n/../../d/n/../n///./f": 0,
			"d/n/":                        0,
			"d/n///":                      0,
			"/d/n/f":                      ErrnoNOTCAPABLE, // absolute
			"d/n/../../../d/n/f":          ErrnoNOTCAPABLE, // out of dir and in again
			"..":                          ErrnoNOTCAPABLE,
			"d/n/f/":                      ErrnoNOTDIR,
			"d/n/f///":                    ErrnoNOTDIR,
			"d/n/f/.":                     ErrnoNOTDIR,
			"d/n/f/..":                    ErrnoNOTDIR,
			"d/n/f\x00":                   ErrnoINVAL,
			"d/\xff":                      ErrnoILSEQ,
			"":                            ErrnoNOENT,
			"d/missing":                   ErrnoNOENT,
			"d/missing/..":                ErrnoNOENT,
		} {
			fd, errno := c.openRead(dir, path, 0)
			if errno != want {
				c.t.Errorf("open %q: %v, want %v", path, errno, want)
			}
			if errno == 0 {
				c.want(0, "fd_close", fd)
			}
		}
	},
	"links that dangle": func(c *caller, dir int) {
		c.want(0, "path_symlink", "target", dir, "l")
		c.wantOpen(ErrnoLOOP, dir, 0, "l", 0)
		c.wantOpen(ErrnoNOTDIR, dir, 0, "l", oflagDirectory)
		c.wantOpen(ErrnoNOENT, dir, lookupFollow, "l", 0)
		c.wantOpen(ErrnoEXIST, dir, 0, "l", oflagCreat|oflagExcl)
		c.want(ErrnoNOENT, "path_filestat_get", dir, lookupFollow, "l", 0)
		c.want(0, "path_filestat_get", dir, 0, "l", 0)
		c.want(ErrnoNOENT, "path_link", dir, lookupFollow, "l", dir, "hard")
		c.want(0, "path_link", dir, 0, "l", dir, "hard") // the link itself
		c.wantType(dir, 0, "hard", filetypeSymlink)
		c.wantOpen(0, dir, lookupFollow, "l", oflagCreat)
		c.wantType(dir, 0, "target", filetypeRegular)
		// link(2) with a name that is taken, by whatever.
		c.want(ErrnoEXIST, "path_link", dir, 0, "target", dir, "l")
	},
	"links without following": func(c *caller, dir int) {
		c.want(0, "path_create_directory", dir, "target")
		c.want(0, "path_symlink", "target", dir, "l")
		c.wantOpen(ErrnoLOOP, dir, 0, "l", 0)
		c.wantOpen(ErrnoNOTDIR, dir, 0, "l", oflagDirectory)
		c.wantOpen(0, dir, lookupFollow, "l", oflagDirectory)
		c.want(ErrnoNOTDIR, "path_remove_directory", dir, "l")
		c.want(0, "path_unlink_file", dir, "l")
		c.want(0, "path_remove_directory", dir, "target")
		c.make(dir, "target")
		c.want(0, "path_symlink", "target", dir, "l")
		c.wantOpen(ErrnoLOOP, dir, 0, "l", 0)
		c.wantOpen(0, dir, lookupFollow, "l", 0)
		c.wantOpen(ErrnoNOTDIR, dir, lookupFollow, "l", oflagDirectory)
		c.wantType(dir, 0, "l", filetypeSymlink)
		c.wantType(dir, lookupFollow, "l", filetypeRegular)
		// Times are of what is named.
		c.want(0, "path_filestat_set_times", dir, 0, "l", uint64(0), uint64(1e9), fstMtim)
		if l, target := c.pathFilestat(dir, 0, "l"), c.pathFilestat(dir, lookupFollow, "l"); l.mtim != 1e9 || target.mtim == 1e9 {
			c.t.Errorf("times %d of the link, %d of its target", l.mtim, target.mtim)
		}
	},
	"links in a loop": func(c *caller, dir int) {
		c.want(0, "path_symlink", "b", dir, "a")
		c.want(0, "path_symlink", "a", dir, "b")
		c.want(0, "path_symlink", "self", dir, "self")
		for _, name := range []string{"a", "self", "self/x", "a/.."} {
			c.wantOpen(ErrnoLOOP, dir, lookupFollow, name, 0)
		}
		c.want(ErrnoLOOP, "path_filestat_get", dir, lookupFollow, "a", 0)
		c.want(ErrnoLOOP, "path_create_directory", dir, "self/x")
		c.want(ErrnoEXIST, "path_create_directory", dir, "self")
	},
	"readlink": func(c *caller, dir int) {
		c.want(0, "path_symlink", "target/of/it", dir, "l")
		const buf, used = 1024, 64
		for room, want := range map[int]string{20: "target/of/it", 12: "target/of/it", 3: "tar", 0: ""} {
			c.mem.Write(buf, []byte("####################"))
			c.want(0, "path_readlink", dir, "l", buf, room, used)
			b, _ := c.mem.Read(buf, 20)
			if n := int(c.u32(used)); n != len(want) || string(b[:n]) != want || string(b[n:]) != "####################"[n:] {
				c.t.Errorf("%d bytes of room: %d, %q, want %q", room, c.u32(used), b, want)
			}
		}
		c.make(dir, "f")
		c.want(ErrnoINVAL, "path_readlink", dir, "f", buf, 20, used)
		c.want(ErrnoNOENT, "path_readlink", dir, "missing", buf, 20, used)
	},
	"symlink with slashes": func(c *caller, dir int) {
		c.want(ErrnoNOENT, "path_symlink", "x", dir, "new/")
		c.want(ErrnoNOENT, "path_symlink", "", dir, "new")
		c.want(0, "path_create_directory", dir, "d")
		c.make(dir, "f")
		c.want(ErrnoEXIST, "path_symlink", "x", dir, "d")
		c.want(ErrnoEXIST, "path_symlink", "x", dir, "d/")
		c.want(ErrnoEXIST, "path_symlink", "x", dir, "f")
		c.want(ErrnoEXIST, "path_symlink", "x", dir, "f/")
	},
	"remove with slashes": func(c *caller, dir int) {
		c.want(0, "path_create_directory", dir, "d")
		c.make(dir, "f")
		c.want(ErrnoNOTDIR, "path_remove_directory", dir, "f")
		c.want(ErrnoNOTDIR, "path_remove_directory", dir, "f/")
		c.want(ErrnoNOTDIR, "path_unlink_file", dir, "f/")
		c.want(ErrnoISDIR, "path_unlink_file", dir, "d")
		c.want(ErrnoISDIR, "path_unlink_file", dir, "d/")
		c.want(ErrnoINVAL, "path_remove_directory", dir, "d/.")
		c.make(dir, "d/f")
		c.want(ErrnoNOTEMPTY, "path_remove_directory", dir, "d")
		c.want(ErrnoNOTEMPTY, "path_remove_directory", dir, "d/")
		c.want(0, "path_unlink_file", dir, "d/f")
		c.want(0, "path_remove_directory", dir, "d/")
		c.want(ErrnoNOENT, "path_remove_directory", dir, "d")
		c.want(0, "path_unlink_file", dir, "f")
		c.want(ErrnoNOENT, "path_unlink_file", dir, "f")
	},
	"rename": func(c *caller, dir int) {
		c.want(0, "path_create_directory", dir, "s")
		c.want(0, "path_rename", dir, "s", dir, "t")
		c.wantOpen(ErrnoNOENT, dir, 0, "s", oflagDirectory)
		c.want(0, "path_create_directory", dir, "s")
		c.want(0, "path_rename", dir, "s", dir, "t") // over an empty directory
		c.want(0, "path_rename", dir, "t/", dir, "s")
		c.want(0, "path_rename", dir, "s", dir, "t/")
		c.want(0, "path_rename", dir, "t/", dir, "s/")
		c.want(0, "path_create_directory", dir, "t")
		c.make(dir, "t/f")
		c.want(ErrnoNOTEMPTY, "path_rename", dir, "s", dir, "t")
		c.want(ErrnoNOTDIR, "path_rename", dir, "s", dir, "t/f")
		c.want(ErrnoINVAL, "path_rename", dir, "t", dir, "t/in")
		c.want(ErrnoISDIR, "path_rename", dir, "t/f", dir, "s")
		c.want(ErrnoNOTDIR, "path_rename", dir, "t/f", dir, "new/")
		c.want(ErrnoNOTDIR, "path_rename", dir, "t/f/", dir, "new")
		c.want(ErrnoNOENT, "path_rename", dir, "missing", dir, "new")
		c.want(ErrnoNOENT, "path_rename", dir, "t/f", dir, "missing/new")
		c.make(dir, "a")
		c.want(0, "path_rename", dir, "a", dir, "t/f") // over a file
		c.want(0, "path_rename", dir, "t/f", dir, "t/f")
		c.want(0, "path_link", dir, 0, "t/f", dir, "same")
		c.want(0, "path_rename", dir, "same", dir, "t/f") // two names of one file: nothing happens
		c.wantType(dir, 0, "same", filetypeRegular)
	},
	"hard links": func(c *caller, dir int) {
		c.make(dir, "f")
		c.want(0, "path_create_directory", dir, "d")
		c.want(0, "path_link", dir, 0, "f", dir, "d/l")
		f, l := c.pathFilestat(dir, 0, "f"), c.pathFilestat(dir, 0, "d/l")
		if f != l || f.nlink != 2 {
			c.t.Errorf("a file and its link: %+v and %+v", f, l)
		}
		c.want(ErrnoEXIST, "path_link", dir, 0, "f", dir, "d/l")
		c.want(ErrnoEXIST, "path_link", dir, 0, "f", dir, "d")
		c.want(ErrnoNOENT, "path_link", dir, 0, "f", dir, "new/")
		c.want(ErrnoNOTDIR, "path_link", dir, 0, "f/", dir, "new")
		c.want(ErrnoPERM, "path_link", dir, 0, "d", dir, "new")
		c.want(ErrnoNOENT, "path_link", dir, 0, "missing", dir, "new")
		c.want(0, "path_unlink_file", dir, "f")
		if l := c.pathFilestat(dir, 0, "d/l"); l.nlink != 1 {
			c.t.Errorf("%d links", l.nlink)
		}
	},
	"files that are removed while open": func(c *caller, dir int) {
		for range 2 {
			fd, _ := c.open(dir, "f", int(oflagCreat|oflagExcl))
			c.want(0, "path_unlink_file", dir, "f")
			if errno := c.write(fd, "still"); errno != 0 {
				c.t.Errorf("write: %v", errno)
			}
			c.want(0, "fd_seek", fd, uint64(0), 0, 64)
			if text, errno := c.read(fd); text != "still" || errno != 0 {
				c.t.Errorf("%q, %v", text, errno)
			}
			c.want(0, "fd_filestat_get", fd, 0)
			if nlink := c.u64(24); nlink != 0 {
				c.t.Errorf("%d links", nlink)
			}
			c.want(0, "fd_close", fd)
		}
		c.want(0, "path_create_directory", dir, "d")
		fd, _ := c.openRead(dir, "d", int(oflagDirectory))
		c.want(0, "path_remove_directory", dir, "d")
		c.want(ErrnoNOENT, "path_create_directory", fd, "x")
		c.wantOpen(ErrnoNOENT, fd, 0, "x", oflagCreat)
		c.want(0, "path_create_directory", dir, "d")
		c.want(0, "fd_close", fd)
	},
	"readdir": func(c *caller, dir int) {
		self := c.fdFilestat(dir)
		list := c.entries(dir, 256)
		if len(list) != 2 || list[0].name != "." && list[1].name != "." {
			c.t.Fatalf("empty: %v", list)
		}
		want := []string{".", ".."}
		for i := range 100 {
			c.make(dir, fmt.Sprintf("file.%d", i))
			want = append(want, fmt.Sprintf("file.%d", i))
		}
		c.want(0, "path_create_directory", dir, "d")
		c.want(0, "path_symlink", "x", dir, "l")
		want = append(want, "d", "l")
		slices.Sort(want)
		for _, size := range []int{24 + 8, 100, 256, 1 << 15} {
			var names []string
			list := c.entries(dir, size)
			for i, e := range list {
				names = append(names, e.name)
				kind, ino := filetypeRegular, uint64(0)
				switch e.name {
				case ".":
					kind, ino = filetypeDirectory, self.ino
				case "..":
					kind, ino = filetypeDirectory, e.ino
				case "d":
					kind = filetypeDirectory
				case "l":
					kind = filetypeSymlink
				}
				if ino == 0 {
					ino = c.pathFilestat(dir, 0, e.name).ino
				}
				if e.kind != kind || e.ino != ino {
					c.t.Errorf("%+v, want type %d, inode %d", e, kind, ino)
				}
				// Each cookie goes on after its entry.
				if size == 256 && i%17 == 0 {
					rest := c.entriesFrom(dir, size, e.next)
					if len(rest) != len(list)-i-1 {
						c.t.Errorf("%d entries after %s, want %d", len(rest), e.name, len(list)-i-1)
					}
				}
			}
			if slices.Sort(names); !slices.Equal(names, want) {
				c.t.Errorf("with %d bytes: %d entries: %q", size, len(names), names)
			}
		}
		file, _ := c.open(dir, "file.0", 0)
		c.want(ErrnoNOTDIR, "fd_readdir", file, 1024, 256, uint64(0), 64)
		c.want(ErrnoBADF, "fd_readdir", 999, 1024, 256, uint64(0), 64)
	},
	"directories are no files": func(c *caller, dir int) {
		c.mem.WriteUint32Le(0, 1024)
		c.mem.WriteUint32Le(4, 10)
		c.want(ErrnoISDIR, "fd_read", dir, 0, 1, 64)
		c.want(ErrnoISDIR, "fd_pread", dir, 0, 1, uint64(0), 64)
		c.want(ErrnoBADF, "fd_write", dir, 0, 1, 64)
		c.want(ErrnoBADF, "fd_pwrite", dir, 0, 1, uint64(0), 64)
		for whence := range 3 {
			c.want(ErrnoBADF, "fd_seek", dir, uint64(0), whence, 64)
		}
		c.want(ErrnoBADF, "fd_tell", dir, 64)
		c.want(ErrnoBADF, "fd_allocate", dir, uint64(0), uint64(1))
		c.want(ErrnoBADF, "fd_filestat_set_size", dir, uint64(0))
		c.want(0, "fd_fdstat_get", dir, 0)
		if rights := c.u64(8); rights&rightFdSeek != 0 {
			c.t.Errorf("a directory has the right to seek: %#x", rights)
		}
		c.want(0, "fd_sync", dir)
	},
}

// file scenarios: what becomes of bytes, positions, flags and rights.
var fileScenarios = map[string]scenario{
	"allocate and size": func(c *caller, dir int) {
		fd, _ := c.open(dir, "f", int(oflagCreat))
		size := func(want uint64) {
			c.t.Helper()
			if st := c.fdFilestat(fd); st.size != want {
				c.t.Errorf("size %d, want %d", st.size, want)
			}
		}
		c.want(0, "fd_allocate", fd, uint64(0), uint64(100))
		size(100)
		c.want(0, "fd_allocate", fd, uint64(10), uint64(10))
		size(100)
		c.want(0, "fd_allocate", fd, uint64(90), uint64(20))
		size(110)
		c.want(ErrnoINVAL, "fd_allocate", fd, uint64(0), uint64(0))
		c.want(ErrnoINVAL, "fd_allocate", fd, ^uint64(0), uint64(1))
		c.want(0, "fd_filestat_set_size", fd, uint64(5))
		size(5)
		c.want(0, "fd_filestat_set_size", fd, uint64(50))
		size(50)
		c.want(ErrnoFBIG, "fd_filestat_set_size", fd, ^uint64(0)) // a size is unsigned
		for advice := range 6 {
			c.want(0, "fd_advise", fd, uint64(10), uint64(50), advice)
		}
		c.want(ErrnoINVAL, "fd_advise", fd, uint64(0), uint64(0), 6)
		size(50)
		read, _ := c.openRead(dir, "f", 0)
		c.want(ErrnoBADF, "fd_allocate", read, uint64(0), uint64(100))
		c.want(ErrnoBADF, "fd_filestat_set_size", read, uint64(0))
	},
	"seek and tell": func(c *caller, dir int) {
		fd, _ := c.open(dir, "f", int(oflagCreat))
		c.write(fd, "0123456789")
		const set, cur, end = 0, 1, 2
		for _, step := range []struct {
			offset int64
			whence int
			want   Errno
			at     uint64
		}{
			{0, cur, 0, 10}, {-6, cur, 0, 4}, {-5, cur, ErrnoINVAL, 4}, {0, end, 0, 10}, {1000, end, 0, 1010},
			{-1, set, ErrnoINVAL, 1010}, {0, set, 0, 0}, {3, 3, ErrnoINVAL, 0}, {-1 << 63, cur, ErrnoINVAL, 0}, {7, set, 0, 7},
		} {
			c.want(step.want, "fd_seek", fd, uint64(step.offset), step.whence, 64)
			c.want(0, "fd_tell", fd, 64)
			if at := c.u64(64); at != step.at {
				c.t.Errorf("%+v: at %d", step, at)
			}
		}
		if text, _ := c.read(fd); text != "789" {
			c.t.Errorf("%q", text)
		}
		if text, errno := c.read(fd); text != "" || errno != 0 {
			c.t.Errorf("at the end: %q, %v", text, errno)
		}
	},
	"positions of pread and pwrite": func(c *caller, dir int) {
		fd, _ := c.open(dir, "f", int(oflagCreat))
		c.write(fd, "0123456789")
		// Two vectors, the first empty.
		c.vectors(1024, 0, 2000, 4)
		c.want(0, "fd_pread", fd, 0, 2, uint64(3), 64)
		if b, _ := c.mem.Read(2000, 4); string(b) != "3456" || c.u32(64) != 4 {
			c.t.Errorf("%q, %d", b, c.u32(64))
		}
		c.want(0, "fd_pread", fd, 0, 2, uint64(8), 64)
		if c.u32(64) != 2 {
			c.t.Errorf("%d bytes at the end", c.u32(64))
		}
		c.want(0, "fd_pread", fd, 0, 2, uint64(100), 64)
		if c.u32(64) != 0 {
			c.t.Errorf("%d bytes beyond the end", c.u32(64))
		}
		c.want(ErrnoINVAL, "fd_pread", fd, 0, 2, ^uint64(0), 64)
		c.mem.Write(2000, []byte("abcd"))
		c.vectors(2000, 2, 2002, 2)
		c.want(0, "fd_pwrite", fd, 0, 2, uint64(12), 64)
		c.want(0, "fd_tell", fd, 64)
		if at := c.u64(64); at != 10 {
			c.t.Errorf("at %d", at)
		}
		if text, _ := c.read(fd); text != "\x00\x00abcd" {
			c.t.Errorf("%q", text)
		}
		c.want(0, "fd_read", fd, 0, 0, 64) // nothing to read into
		if c.u32(64) != 0 {
			c.t.Errorf("%d bytes into nothing", c.u32(64))
		}
	},
	"append can be turned off": func(c *caller, dir int) {
		c.want(0, "path_open", dir, 0, "f", int(oflagCreat), uint64(rightsAll), uint64(0), int(fdflagAppend), 64)
		fd := int(c.u32(64))
		for range 2 {
			c.write(fd, "aaaa")
			c.want(0, "fd_seek", fd, uint64(0), 0, 64)
		}
		if text, _ := c.read(fd); text != "aaaaaaaa" {
			c.t.Errorf("%q", text)
		}
		c.want(0, "fd_fdstat_set_flags", fd, 0)
		c.want(0, "fd_fdstat_get", fd, 0)
		if b, _ := c.mem.Read(0, 4); b[0] != filetypeRegular || binary.LittleEndian.Uint16(b[2:]) != 0 {
			c.t.Errorf("type and flags % x", b)
		}
		c.want(0, "fd_seek", fd, uint64(0), 0, 64)
		c.write(fd, "bb")
		c.want(0, "fd_seek", fd, uint64(0), 0, 64)
		if text, _ := c.read(fd); text != "bbaaaaaa" {
			c.t.Errorf("%q", text)
		}
		c.want(ErrnoINVAL, "fd_fdstat_set_flags", fd, 1<<7)
	},
	"times": func(c *caller, dir int) {
		fd, _ := c.open(dir, "f", int(oflagCreat))
		before := c.fdFilestat(fd)
		for _, flags := range []int{1 | 2, 4 | 8, 1 << 4} {
			c.want(ErrnoINVAL, "fd_filestat_set_times", fd, uint64(100), uint64(200), flags)
			c.want(ErrnoINVAL, "path_filestat_set_times", dir, 0, "f", uint64(100), uint64(200), flags)
		}
		if st := c.fdFilestat(fd); st != before {
			c.t.Errorf("%+v, want %+v", st, before)
		}
		c.want(0, "fd_filestat_set_times", fd, uint64(100), uint64(200), fstMtim)
		if st := c.fdFilestat(fd); st.mtim != 200 || st.atim != before.atim {
			c.t.Errorf("%+v", st)
		}
		c.want(0, "path_filestat_set_times", dir, 0, "f", uint64(300), uint64(400), 1|8)
		if st := c.pathFilestat(dir, 0, "f"); st.atim != 300 || st.mtim < before.mtim {
			c.t.Errorf("%+v", st)
		}
		c.want(0, "fd_filestat_set_times", fd, uint64(1), uint64(2), 0)
		if st := c.fdFilestat(fd); st.atim != 300 {
			c.t.Errorf("%+v", st)
		}
	},
	"rights": func(c *caller, dir int) {
		fd, _ := c.open(dir, "f", int(oflagCreat))
		c.write(fd, "0123")
		// Opened for one way, the other is not there; nor is it given on demand.
		for _, test := range []struct {
			rights      uint64
			read, write Errno
		}{{rightFdRead, 0, ErrnoBADF}, {rightFdWrite, ErrnoBADF, 0}, {rightFdRead | rightFdWrite, 0, 0}, {0, ErrnoBADF, ErrnoBADF}} {
			c.want(0, "path_open", dir, 0, "f", 0, test.rights, uint64(0), 0, 64)
			fd := int(c.u32(64))
			c.want(0, "fd_fdstat_get", fd, 0)
			if base := c.u64(8) & (rightFdRead | rightFdWrite); base != test.rights {
				c.t.Errorf("rights %#x, want %#x", base, test.rights)
			}
			if _, errno := c.read(fd); errno != test.read {
				c.t.Errorf("read with %#x: %v", test.rights, errno)
			}
			if errno := c.write(fd, "x"); errno != test.write {
				c.t.Errorf("write with %#x: %v", test.rights, errno)
			}
			c.want(ErrnoNOTCAPABLE, "fd_fdstat_set_rights", fd, ^uint64(0), uint64(0))
		}
		c.wantOpen(ErrnoEXIST, dir, 0, "f", oflagCreat|oflagExcl)
		c.wantOpen(ErrnoINVAL, dir, 0, "f", 1<<4)
		c.wantOpen(ErrnoINVAL, dir, 1<<1, "f", 0)
		c.want(ErrnoINVAL, "path_open", dir, 0, "f", 0, uint64(0), uint64(0), 1<<5, 64)
		c.wantOpen(ErrnoNOTDIR, fd, 0, "f", 0) // below a file
		c.wantOpen(ErrnoBADF, 999, 0, "f", 0)
		c.wantOpen(ErrnoNOTDIR, 1, 0, "f", 0)
		// Truncating needs the right to write.
		c.want(0, "path_open", dir, 0, "f", int(oflagTrunc), rightFdRead|rightFdWrite, uint64(0), 0, 64)
		if st := c.pathFilestat(dir, 0, "f"); st.size != 0 {
			c.t.Errorf("size %d", st.size)
		}
	},
	"descriptors": func(c *caller, dir int) {
		a, _ := c.open(dir, "a", int(oflagCreat))
		b, _ := c.open(dir, "b", int(oflagCreat))
		c.write(a, "a")
		ino := c.fdFilestat(a).ino
		c.want(0, "fd_renumber", a, b)
		c.want(ErrnoBADF, "fd_fdstat_get", a, 0)
		if got := c.fdFilestat(b).ino; got != ino {
			c.t.Errorf("inode %d, want %d", got, ino)
		}
		c.want(0, "fd_tell", b, 64)
		if at := c.u64(64); at != 1 {
			c.t.Errorf("at %d", at)
		}
		c.want(0, "fd_renumber", b, b)
		c.want(ErrnoBADF, "fd_renumber", a, b)
		c.want(ErrnoBADF, "fd_renumber", b, a) // preview 1: only onto what is open
		c.want(0, "fd_prestat_get", 3, 0)
		if tag, n := c.u32(0), c.u32(4); tag != 0 || n != 1 {
			c.t.Errorf("prestat %d, %d", tag, n)
		}
		c.want(ErrnoNAMETOOLONG, "fd_prestat_dir_name", 3, 0, 0)
		c.want(0, "fd_prestat_dir_name", 3, 0, 10)
		c.want(ErrnoBADF, "fd_prestat_get", b, 0)
		c.want(0, "fd_renumber", dir, 3) // over the preopened one
		c.want(ErrnoBADF, "fd_fdstat_get", dir, 0)
		c.wantType(3, 0, "a", filetypeRegular)
		c.want(0, "fd_close", 3)
		c.want(ErrnoBADF, "fd_close", 3)
		c.want(ErrnoBADF, "fd_prestat_get", 3, 0)
	},
}

func TestConformance(t *testing.T) {
	for kind, root := range rootKinds {
		for _, list := range []map[string]scenario{scenarios, fileScenarios} {
			for name, run := range list {
				t.Run(kind+"/"+name, func(t *testing.T) {
					c := newCaller(t, ProcessConfig{Root: root(t, t.TempDir())})
					c.want(0, "path_create_directory", 3, "scratch")
					dir, errno := c.openRead(3, "scratch", int(oflagDirectory))
					if errno != 0 {
						t.Fatal(errno)
					}
					run(c, dir)
				})
			}
		}
	}
}

// make makes an empty file.
func (c *caller) make(dir int, path string) {
	c.t.Helper()
	fd, errno := c.open(dir, path, int(oflagCreat|oflagExcl))
	if errno != 0 {
		c.t.Errorf("create %s: %v", path, errno)
	}
	c.want(0, "fd_close", fd)
}

// wantOpen opens for reading, without any rights, and closes again.
func (c *caller) wantOpen(want Errno, dir int, lookup uint32, path string, oflags uint16) {
	c.t.Helper()
	const result = 64
	c.want(want, "path_open", dir, int(lookup), path, int(oflags), uint64(0), uint64(0), 0, result)
	if want == 0 {
		c.want(0, "fd_close", int(c.u32(result)))
	}
}

func (c *caller) wantType(dir int, lookup uint32, path string, want uint8) {
	c.t.Helper()
	if got := c.pathFilestat(dir, lookup, path).filetype; got != want {
		c.t.Errorf("%s is of type %d, want %d", path, got, want)
	}
}

func (c *caller) pathFilestat(dir int, lookup uint32, path string) filestat {
	c.t.Helper()
	c.want(0, "path_filestat_get", dir, int(lookup), path, 0)
	return c.filestat()
}

func (c *caller) fdFilestat(fd int) filestat {
	c.t.Helper()
	c.want(0, "fd_filestat_get", fd, 0)
	return c.filestat()
}

// filestat decodes what lies at address 0, without the time of the last change
// of attributes, which nobody sets.
func (c *caller) filestat() filestat {
	return filestat{dev: c.u64(0), ino: c.u64(8), filetype: uint8(c.u32(16)), nlink: c.u64(24), size: c.u64(32),
		atim: int64(c.u64(40)), mtim: int64(c.u64(48))}
}

// vectors puts an array of buffers, each an address and a length, at address 0.
func (c *caller) vectors(words ...uint32) {
	for i, w := range words {
		c.mem.WriteUint32Le(uint32(4*i), w)
	}
}

type dirEntry struct {
	next, ino uint64
	kind      uint8
	name      string
}

// entries lists a directory by calls with room for this many bytes each, which may
// be less than an entry takes.
func (c *caller) entries(fd, size int) []dirEntry { return c.entriesFrom(fd, size, 0) }

func (c *caller) entriesFrom(fd, size int, cookie uint64) (list []dirEntry) {
	c.t.Helper()
	const buf, used = 8192, 64
	for range 1000 {
		c.want(0, "fd_readdir", fd, buf, size, cookie, used)
		n := int(c.u32(used))
		b, _ := c.mem.Read(buf, uint32(n))
		for len(b) >= 24 {
			e := dirEntry{next: le64(b), ino: le64(b[8:]), kind: b[20]}
			length := int(le32(b[16:]))
			if len(b) < 24+length {
				break // cut off; it comes again with the cookie before it
			}
			e.name = string(b[24 : 24+length])
			list, cookie, b = append(list, e), e.next, b[24+length:]
		}
		if n < size {
			return list
		}
	}
	c.t.Errorf("the listing does not end")
	return list
}
