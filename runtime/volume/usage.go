package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DiskUsage returns what lies in a directory: the bytes that it takes on its file
// system, in blocks, so that holes cost nothing, each hard-linked file once; and
// how many files and directories. What is mounted in it does not count.
//
// Guests may write to the directory meanwhile, and nest it as deep as they like: no
// link is followed, and no more than two descriptors are open. An error is ctx's,
// or says that the tree was moved about too much to be walked.
func DiskUsage(ctx context.Context, dir string) (bytes, files int64, err error) {
	fd, err := openDirAt(unix.AT_FDCWD, dir)
	if err != nil {
		return 0, 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	w := usageWalk{ctx: ctx, fd: fd, linked: map[uint64]bool{}}
	defer func() { unix.Close(w.fd) }()
	if err := w.enter(); err != nil {
		return 0, 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	w.device = w.stack[0].dev
	for len(w.stack) > 0 {
		if err := w.step(); err != nil {
			return w.bytes, w.files, fmt.Errorf("measure %s: %w", dir, err)
		}
	}
	return w.bytes, w.files, nil
}

// usageWalk goes down by names and up by "..", so that depth costs no descriptors.
type usageWalk struct {
	ctx          context.Context
	fd           int // of the directory on top of stack
	stack        []usageLevel
	device       uint64
	linked       map[uint64]bool // inodes with several names that have been counted
	bytes, files int64
	buf          [32 << 10]byte
}

type usageLevel struct {
	dev, ino uint64
	todo     []string // directories in it
}

// maxLinked bounds what is remembered of hard links; beyond, they count each time.
const maxLinked = 1 << 18

var errMovedAbout = errors.New("directories are moved about")

func openDirAt(at int, name string) (fd int, err error) {
	for {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// step enters the next directory, or goes back up.
func (w *usageWalk) step() error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	top := &w.stack[len(w.stack)-1]
	if n := len(top.todo); n > 0 {
		name := top.todo[n-1]
		top.todo = top.todo[:n-1]
		child, err := openDirAt(w.fd, name)
		if err != nil {
			return nil // gone meanwhile
		}
		unix.Close(w.fd)
		w.fd = child
		return w.enter()
	}
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) == 0 {
		return nil
	}
	up, err := openDirAt(w.fd, "..")
	if err != nil {
		return errMovedAbout
	}
	unix.Close(w.fd)
	w.fd = up
	var st unix.Stat_t
	if err := unix.Fstat(up, &st); err != nil {
		return err
	}
	if below := w.stack[len(w.stack)-1]; st.Ino != below.ino || uint64(st.Dev) != below.dev {
		return errMovedAbout
	}
	return nil
}

// enter counts what is in the directory that the walk has come to.
func (w *usageWalk) enter() error {
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return err
	}
	level := usageLevel{dev: uint64(st.Dev), ino: st.Ino}
	if len(w.stack) == 0 {
		w.bytes += st.Blocks * 512
	}
	for {
		n, err := unix.ReadDirent(w.fd, w.buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT || err == nil && n <= 0:
			w.stack = append(w.stack, level)
			return nil
		case err != nil:
			return err
		case w.ctx.Err() != nil:
			return context.Cause(w.ctx)
		}
		_, _, names := unix.ParseDirent(w.buf[:n], -1, nil)
		for _, name := range names {
			if err := unix.Fstatat(w.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				continue // gone meanwhile
			}
			isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
			if w.device != 0 && uint64(st.Dev) != w.device {
				continue
			}
			if st.Nlink > 1 && !isDir {
				if w.linked[st.Ino] {
					continue
				}
				if len(w.linked) < maxLinked {
					w.linked[st.Ino] = true
				}
			}
			w.files++
			w.bytes += st.Blocks * 512
			if isDir {
				level.todo = append(level.todo, name)
			}
		}
	}
}
