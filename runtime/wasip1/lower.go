package wasip1

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Lower is a tree of files that never changes: those of an image. Any number of
// overlays show one Lower, and share the descriptors of its files. It is built
// by one goroutine with Add, and is then safe for concurrent use.
type Lower struct {
	root   *inode
	inos   uint64
	freeze sync.Once
}

// LowerContent is the content of a regular file of a Lower: a file of the host
// that nobody changes. Entries with the same one are hard links.
type LowerContent struct {
	// Path is absolute.
	Path string
	// Size is in bytes. A file that turns out shorter reads as if it ended there.
	Size int64
	// Check, if not nil, is called before the content is first opened, and again
	// until it succeeds. Guests get EIO for its error.
	Check func() error

	mu      sync.Mutex
	fd      int
	users   int
	checked atomic.Bool
	inode   *inode // that the first entry has made
}

// longCheck is the size of content that takes a while to check.
const longCheck = 1 << 20

// LowerEntry is a file, directory or symbolic link of a Lower.
type LowerEntry struct {
	Name     string // slash-separated, relative to the root; "" is the root
	Mode     uint32 // permission bits, with set-id bits and the sticky bit
	UID, GID uint32
	MTime    time.Time
	Target   string        // of a symbolic link
	Content  *LowerContent // of a regular file; neither: a directory
}

// NewLower returns a tree with an empty root.
func NewLower() *Lower {
	l := &Lower{}
	l.root = l.newInode(filetypeDirectory, &LowerEntry{Mode: 0o755, MTime: time.Unix(0, 0)})
	l.root.nlink = 2
	return l
}

func (l *Lower) newInode(kind uint8, e *LowerEntry) *inode {
	l.inos++
	at := e.MTime.UnixNano()
	n := &inode{frozen: true, ino: l.inos, filetype: kind, mode: e.Mode & 0o7777, owner: owner{e.UID, e.GID}, atim: at, mtim: at, ctim: at}
	switch kind {
	case filetypeDirectory:
		n.dir = &directory{names: map[string]*inode{}}
	case filetypeSymlink:
		n.target = e.Target
	}
	return n
}

// Add adds an entry to a directory that has been added before.
func (l *Lower) Add(e LowerEntry) error {
	if e.Name == "" {
		at := e.MTime.UnixNano()
		l.root.mode, l.root.owner, l.root.atim, l.root.mtim, l.root.ctim = e.Mode&0o7777, owner{e.UID, e.GID}, at, at, at
		return nil
	}
	parent, base := l.root, e.Name
	for {
		first, rest, more := strings.Cut(base, "/")
		if !more {
			break
		}
		next := parent.dir.names[first]
		if next == nil || next.dir == nil {
			return fmt.Errorf("the directory of %q is not there", e.Name)
		}
		parent, base = next, rest
	}
	if base == "" || base == "." || base == ".." || strings.IndexByte(base, 0) >= 0 {
		return fmt.Errorf("%q cannot be the name of a file", e.Name)
	}
	if parent.dir.names[base] != nil {
		return fmt.Errorf("%q is there twice", e.Name)
	}
	var n *inode
	switch {
	case e.Content != nil && e.Content.inode != nil:
		n = e.Content.inode
	case e.Content != nil:
		n = l.newInode(filetypeRegular, &e)
		n.content, e.Content.inode, e.Content.fd = e.Content, n, -1
	case e.Target != "":
		n = l.newInode(filetypeSymlink, &e)
	default:
		n = l.newInode(filetypeDirectory, &e)
		n.nlink, n.dir.parent = 1, parent
		parent.nlink++
	}
	n.nlink++
	parent.dir.names[base] = n
	parent.dir.sorted = append(parent.dir.sorted, base)
	return nil
}

// sort ends the building of a tree.
func (n *inode) sort() {
	slices.Sort(n.dir.sorted)
	for _, c := range n.dir.names {
		if c.dir != nil {
			c.sort()
		}
	}
}

// acquire opens the content for one more user.
func (c *LowerContent) acquire() Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == 0 {
		if errno := c.check(); errno != 0 {
			return errno
		}
		errno := retry(func() (err error) {
			c.fd, err = unix.Open(c.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			return
		})
		if errno == ErrnoNOENT {
			errno = ErrnoIO // the image's file was taken away
		}
		if errno != 0 {
			c.fd = -1
			return errno
		}
	}
	c.users++
	return 0
}

// check is called with the lock.
func (c *LowerContent) check() Errno {
	if !c.checked.Load() {
		if c.Check != nil && c.Check() != nil {
			return ErrnoIO
		}
		c.checked.Store(true)
	}
	return 0
}

// verify checks content before it is acquired if that takes long. No lock may be
// held: others have the guest's place meanwhile, and a kill does not wait for it.
func (c *LowerContent) verify(ctx context.Context) Errno {
	if c.Check == nil || c.Size < longCheck || c.checked.Load() {
		return 0
	}
	leave(ctx)
	result := make(chan Errno, 1)
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		result <- c.check()
	}()
	select {
	case errno := <-result:
		enter(ctx)
		return errno
	case <-ctx.Done():
		panic(killed)
	}
}

func (c *LowerContent) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 {
		hostClose(c.fd)
		c.fd = -1
	}
}
