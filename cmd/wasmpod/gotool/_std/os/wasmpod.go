//go:build wasip1

package os

import (
	"internal/filepathlite"
	"syscall"
	"time"
	_ "unsafe" // for go:linkname
)

//go:linkname wasmpodSignalOpen syscall.wasmpodSignalOpen
func wasmpodSignalOpen(mask uint64) (int, error)

// What a Go program does not ask for has no effect, where it would end others:
// a descriptor that nobody reads takes it, until os/signal opens its own.
func init() {
	const none = 1<<syscall.SIGUSR1 | 1<<syscall.SIGUSR2 | 1<<syscall.SIGPIPE | 1<<syscall.SIGALRM |
		1<<syscall.SIGXCPU | 1<<syscall.SIGXFSZ | 1<<syscall.SIGVTARLM | 1<<syscall.SIGPOLL | 1<<syscall.SIGPWR
	_, _ = wasmpodSignalOpen(none)
}

func fillFileStatFromSys(fs *fileStat, name string) {
	fs.name = filepathlite.Base(name)
	fs.size = int64(fs.sys.Size)
	fs.modTime = time.Unix(0, int64(fs.sys.Mtime))
	fs.mode = FileMode(fs.sys.Mode & 0o777)
	switch fs.sys.Mode & 0170000 {
	case syscall.S_IFBLK:
		fs.mode |= ModeDevice
	case syscall.S_IFCHR:
		fs.mode |= ModeDevice | ModeCharDevice
	case syscall.S_IFDIR:
		fs.mode |= ModeDir
	case syscall.S_IFIFO:
		fs.mode |= ModeNamedPipe
	case syscall.S_IFLNK:
		fs.mode |= ModeSymlink
	case syscall.S_IFSOCK:
		fs.mode |= ModeSocket
	}
	if fs.sys.Mode&syscall.S_ISGID != 0 {
		fs.mode |= ModeSetgid
	}
	if fs.sys.Mode&syscall.S_ISUID != 0 {
		fs.mode |= ModeSetuid
	}
	if fs.sys.Mode&syscall.S_ISVTX != 0 {
		fs.mode |= ModeSticky
	}
}

// For testing.
func atime(fi FileInfo) time.Time {
	return time.Unix(0, int64(fi.Sys().(*syscall.Stat_t).Atime))
}

// Pipe returns a connected pair of Files; reads from r return bytes written to
// w. It returns the files and an error, if any.
func Pipe() (r *File, w *File, err error) {
	var p [2]int
	if err := syscall.Pipe(p[:]); err != nil {
		return nil, nil, NewSyscallError("pipe", err)
	}
	for _, fd := range p {
		if err := syscall.SetNonblock(fd, true); err != nil {
			syscall.Close(p[0])
			syscall.Close(p[1])
			return nil, nil, NewSyscallError("setnonblock", err)
		}
	}
	return newFile(p[0], "|0", kindPipe, false), newFile(p[1], "|1", kindPipe, false), nil
}
