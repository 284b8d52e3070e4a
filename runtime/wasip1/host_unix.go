//go:build unix

package wasip1

import (
	"strings"

	"golang.org/x/sys/unix"
)

// This file is all that touches host files by name. Each function takes an open
// directory and one component, and never follows a link in it.

type openFlags struct {
	read, write, create, excl, trunc, append, directory bool
	sync, dsync                                         bool
}

// component refuses whatever could make a host call leave its directory. The
// walk never passes such a name; this is the second lock.
func component(name string) Errno {
	if name == "" || name == ".." || strings.IndexByte(name, '/') >= 0 {
		return ErrnoNOTCAPABLE
	}
	if strings.IndexByte(name, 0) >= 0 {
		return ErrnoINVAL
	}
	return 0
}

// retry repeats a host call that a signal interrupted, and translates its error.
func retry(call func() error) Errno {
	for {
		if err := call(); err != unix.EINTR {
			return toErrno(err)
		}
	}
}

// hostOpenDir opens a directory only to start further calls from it.
func hostOpenDir(dir int, name string) (fd int, errno Errno) {
	if errno := component(name); errno != 0 {
		return -1, errno
	}
	for {
		fd, err := unix.Openat(dir, name, searchFlags|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, toErrno(err)
		}
	}
}

// hostOpen opens what name is, without blocking on a FIFO and without making a
// terminal ours. A link is ELOOP.
func hostOpen(dir int, name string, f openFlags) (fd int, errno Errno) {
	if errno := component(name); errno != 0 {
		return -1, errno
	}
	flags := unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	switch {
	case f.read && f.write:
		flags |= unix.O_RDWR
	case f.write:
		flags |= unix.O_WRONLY
	}
	for _, b := range []struct {
		set  bool
		flag int
	}{
		{f.create, unix.O_CREAT}, {f.excl, unix.O_EXCL}, {f.trunc, unix.O_TRUNC}, {f.append, unix.O_APPEND},
		{f.directory, unix.O_DIRECTORY}, {f.sync, unix.O_SYNC}, {f.dsync, unix.O_DSYNC},
	} {
		if b.set {
			flags |= b.flag
		}
	}
	for {
		fd, err := unix.Openat(dir, name, flags, 0o666)
		if err != unix.EINTR {
			return fd, toErrno(err)
		}
	}
}

func hostClose(fd int) { unix.Close(fd) } // like Go, ignore an interrupted close: the descriptor is gone

func hostStat(fd int) (filestat, Errno) {
	var st unix.Stat_t
	errno := retry(func() error { return unix.Fstat(fd, &st) })
	return fromStat(&st), errno
}

func hostStatAt(dir int, name string) (filestat, Errno) {
	if errno := component(name); errno != 0 {
		return filestat{}, errno
	}
	var st unix.Stat_t
	errno := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return fromStat(&st), errno
}

func fromStat(st *unix.Stat_t) filestat {
	f := filestat{
		dev:   uint64(st.Dev),
		ino:   st.Ino,
		nlink: uint64(st.Nlink),
		size:  uint64(st.Size),
		atim:  st.Atim.Nano(),
		mtim:  st.Mtim.Nano(),
		ctime: st.Ctim.Nano(),

		mode:    uint32(st.Mode),
		uid:     st.Uid,
		gid:     st.Gid,
		rdev:    uint64(st.Rdev),
		blksize: uint32(st.Blksize),
		blocks:  uint64(st.Blocks),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.filetype = filetypeRegular
	case unix.S_IFDIR:
		f.filetype = filetypeDirectory
	case unix.S_IFLNK:
		f.filetype = filetypeSymlink
	case unix.S_IFCHR:
		f.filetype = filetypeCharacterDevice
	case unix.S_IFBLK:
		f.filetype = filetypeBlockDevice
	case unix.S_IFSOCK:
		f.filetype = filetypeSocketStream
	}
	return f
}

// hostReadlink is EINVAL for what is not a link.
func hostReadlink(dir int, name string) (string, Errno) {
	if errno := component(name); errno != 0 {
		return "", errno
	}
	var small [256]byte
	for buf := small[:]; ; buf = make([]byte, 2*len(buf)) {
		var n int
		errno := retry(func() (err error) { n, err = unix.Readlinkat(dir, name, buf); return })
		if errno != 0 {
			return "", errno
		}
		if n < len(buf) {
			return string(buf[:n]), 0
		}
	}
}

func hostMkdir(dir int, name string) Errno {
	if errno := component(name); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Mkdirat(dir, name, 0o777) })
}

func hostUnlink(dir int, name string) Errno {
	if errno := component(name); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Unlinkat(dir, name, 0) })
}

func hostRmdir(dir int, name string) Errno {
	if errno := component(name); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

func hostSymlink(target string, dir int, name string) Errno {
	if errno := component(name); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Symlinkat(target, dir, name) })
}

func hostRename(fromDir int, from string, toDir int, to string) Errno {
	if errno := component(from); errno != 0 {
		return errno
	}
	if errno := component(to); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Renameat(fromDir, from, toDir, to) })
}

func hostLink(fromDir int, from string, toDir int, to string) Errno {
	if errno := component(from); errno != 0 {
		return errno
	}
	if errno := component(to); errno != 0 {
		return errno
	}
	return retry(func() error { return unix.Linkat(fromDir, from, toDir, to, 0) })
}

// timesUpdate are the times to set; a nil one stays as it is.
type timesUpdate struct{ atim, mtim *int64 }

// spec has both times in full, taking those that stay from now: not every host
// has UTIME_OMIT.
func (t timesUpdate) spec(now filestat) [2]unix.Timespec {
	if t.atim != nil {
		now.atim = *t.atim
	}
	if t.mtim != nil {
		now.mtim = *t.mtim
	}
	return [2]unix.Timespec{unix.NsecToTimespec(now.atim), unix.NsecToTimespec(now.mtim)}
}

func hostSetTimesAt(dir int, name string, t timesUpdate) Errno {
	st, errno := hostStatAt(dir, name)
	if errno != 0 {
		return errno
	}
	ts := t.spec(st)
	return retry(func() error { return unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW) })
}

func hostSetTimes(fd int, t timesUpdate) Errno {
	st, errno := hostStat(fd)
	if errno != 0 {
		return errno
	}
	ts := t.spec(st)
	return retry(func() error { return futimens(fd, &ts) })
}

// hostPoll says whether a read or write of fd would not block, how much there is
// at least, and whether the other end is gone.
func hostPoll(fd int, write bool) (ready bool, nbytes uint64, hangup bool) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if write {
		p[0].Events = unix.POLLOUT
	}
	for {
		if _, err := unix.Poll(p, 0); err == nil {
			break
		} else if err != unix.EINTR {
			return true, 1, false // and the call says what is wrong
		}
	}
	if p[0].Revents&(unix.POLLIN|unix.POLLOUT) != 0 {
		nbytes = 1
	}
	return p[0].Revents != 0, nbytes, p[0].Revents&unix.POLLHUP != 0
}

// hostSetAppend changes O_APPEND of an open file.
func hostSetAppend(fd int, on bool) Errno {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		flags &^= unix.O_APPEND
		if on {
			flags |= unix.O_APPEND
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
	return toErrno(err)
}

// hostReadDir reads raw directory entries; 0 is the end.
func hostReadDir(fd int, buf []byte) (n int, errno Errno) {
	errno = retry(func() (err error) { n, err = unix.ReadDirent(fd, buf); return })
	return max(n, 0), errno
}

// hostRewindDir makes hostReadDir start again.
func hostRewindDir(fd int) Errno {
	_, err := unix.Seek(fd, 0, 0)
	return toErrno(err)
}

// fromDirentType maps the type of a directory entry.
func fromDirentType(t uint8) uint8 {
	switch t {
	case unix.DT_REG:
		return filetypeRegular
	case unix.DT_DIR:
		return filetypeDirectory
	case unix.DT_LNK:
		return filetypeSymlink
	case unix.DT_CHR:
		return filetypeCharacterDevice
	case unix.DT_BLK:
		return filetypeBlockDevice
	case unix.DT_SOCK:
		return filetypeSocketStream
	}
	return filetypeUnknown
}
