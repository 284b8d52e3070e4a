package volume

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

const (
	// heldLevels is how many directories above the one that a walk is in stay open, so
	// that whoever moves them about does not lead it astray. Deeper down it goes up by
	// "..", and there finds out.
	heldLevels = 128
	// maxDeepNames bounds the names of directories deeper down that wait for their turn:
	// those of one that is closed have all to be remembered.
	maxDeepNames = 1 << 16
)

var (
	errMovedAbout = errors.New("directories are moved about")
	errTooMany    = errors.New("there are too many directories")
)

// treeWalk visits everything in a directory that guests may write to meanwhile, and
// have nested as deep as they like: no link is followed, no other file system entered,
// and neither descriptors nor memory grow with the tree.
type treeWalk struct {
	ctx context.Context
	// visit is told of a name in the open directory fd. Its error ends the walk.
	visit func(fd int, name string, st *unix.Stat_t) error

	stack  []walkLevel
	device uint64
	deep   int   // names in the levels that are not held
	missed error // why something was not visited: the first reason
	buf    [32 << 10]byte
}

// walkLevel is a directory that the walk is in, or below.
type walkLevel struct {
	fd       int // -1: closed
	dev, ino uint64
	todo     []string // directories in it
	read     bool     // to its end
}

func openDirAt(at int, name string) (fd int, err error) {
	for {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// walkTree walks from fd, which it closes. An error that is not visit's is ctx's, or
// says what could not be seen; everything else was visited then.
func walkTree(ctx context.Context, fd int, visit func(fd int, name string, st *unix.Stat_t) error) error {
	w := &treeWalk{ctx: ctx, visit: visit}
	defer func() {
		for _, l := range w.stack {
			l.close()
		}
	}()
	if err := w.push(fd); err != nil {
		return err
	}
	w.device = w.stack[0].dev
	for len(w.stack) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.step(); err != nil {
			return err
		}
	}
	return w.missed
}

func (l *walkLevel) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

func (w *treeWalk) miss(err error) {
	if w.missed == nil {
		w.missed = err
	}
}

func (w *treeWalk) push(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	w.stack = append(w.stack, walkLevel{fd: fd, dev: uint64(st.Dev), ino: st.Ino})
	return nil
}

// step reads on in the directory that the walk is in, enters one of those in it, or
// goes back up.
func (w *treeWalk) step() error {
	level := len(w.stack) - 1
	top := &w.stack[level]
	held := level < heldLevels
	switch n := len(top.todo); {
	case n == 0 && !top.read, !held && !top.read:
		return w.read(top, held)
	case n == 0:
		return w.leave()
	default:
		name := top.todo[n-1]
		top.todo = top.todo[:n-1]
		if !held {
			w.deep--
		}
		child, err := openDirAt(top.fd, name)
		switch {
		case err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP:
			return nil // gone meanwhile
		case err != nil:
			w.miss(err)
			return nil
		}
		if !held {
			top.close()
		}
		return w.push(child)
	}
}

// leave goes back up.
func (w *treeWalk) leave() error {
	level := len(w.stack) - 1
	from := w.stack[level]
	defer from.close()
	w.stack = w.stack[:level]
	if level == 0 || w.stack[level-1].fd >= 0 {
		return nil
	}
	below := &w.stack[level-1]
	up, err := openDirAt(from.fd, "..")
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(up, &st); err == nil && st.Ino == below.ino && uint64(st.Dev) == below.dev {
			below.fd = up
			return nil
		}
		unix.Close(up)
	}
	// The way back is lost: on from the last directory that is open.
	w.miss(errMovedAbout)
	for n := level - 1; w.stack[n].fd < 0; n-- {
		w.deep -= len(w.stack[n].todo)
		w.stack = w.stack[:n]
	}
	return nil
}

// read visits some of what is in a directory.
func (w *treeWalk) read(l *walkLevel, held bool) error {
	n, err := unix.ReadDirent(l.fd, w.buf[:])
	switch {
	case err == unix.EINTR:
		return nil
	case err == unix.ENOENT || err == nil && n <= 0:
		l.read = true
		return nil
	case err != nil:
		l.read = true
		w.miss(err)
		return nil
	}
	_, _, names := unix.ParseDirent(w.buf[:n], -1, nil)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(l.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue // gone meanwhile
		}
		if uint64(st.Dev) != w.device {
			continue
		}
		if err := w.visit(l.fd, name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if !held {
			if w.deep == maxDeepNames {
				w.miss(errTooMany)
				continue
			}
			w.deep++
		}
		l.todo = append(l.todo, name)
	}
	return nil
}
