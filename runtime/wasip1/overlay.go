package wasip1

import (
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Overlay is a file system that shows a Lower under changes of its own, which
// nobody else sees: the private root of a container. Without a Lower it is a
// file system in memory, as for an emptyDir of medium Memory (VOL-03).
//
// The directory entries and attributes of what has changed are in memory, and
// paid for by the account. Contents are in memory too as long as they are small,
// and then in numbered files of a directory. No name that a guest chooses ever
// becomes one of the host.
//
// A file of the Lower is copied when its content is first changed, up to where
// it is kept; its attributes, names and hard links change without. It has one
// identity: whoever has it open sees the change, and its hard links do.
//
// It is safe for concurrent use: by the processes of a container, and by the
// containers of a pod.
type Overlay struct {
	config OverlayConfig

	mu      sync.RWMutex // guards the tree; a body's lock is taken inside it
	root    *inode
	copies  map[*inode]*inode // what stands for a frozen inode here
	opened  map[*inode]int    // how often a frozen inode is open that has no copy
	inodes  int               // private ones
	inos    uint64
	version atomic.Uint64 // of contents

	inMemory atomic.Int64       // bytes of contents
	diskMu   sync.Mutex         // inside a body's lock
	onDisk   int64              // bytes of contents, as of the last look
	written  map[*body]struct{} // since then
	files    uint64             // ever made on disk

	payMu   sync.Mutex // inside all others
	payers  []Account  // the first pays
	charged int64      // to it
}

// OverlayConfig is what an Overlay is made of.
type OverlayConfig struct {
	// Lower may be nil: nothing.
	Lower *Lower
	// Dir is a directory of the host for the overlay alone, which exists. Empty:
	// everything stays in memory, and what does not fit is ENOSPC.
	Dir string
	// MemoryBytes is how much content is kept in memory at most. With a Dir zero
	// stands for DefaultOverlayMemory; without one it is the size of the file
	// system, and zero is unlimited.
	MemoryBytes int64
	// Account pays for what is in memory; nil: nobody, or see AddPayer. Where it
	// cannot, content goes to Dir, else it is ENOSPC.
	Account Account
}

const (
	// DefaultOverlayMemory is how much content of an overlay is kept in memory.
	DefaultOverlayMemory = 1 << 20
	// maxMemoryFile is the largest file that is kept in memory where there is a
	// disk, too.
	maxMemoryFile = 64 << 10
	// maxInodes bounds what a guest can have the host remember of empty files.
	maxInodes = 1 << 20
	maxName   = 255

	// What is paid for beside letters and contents, in bytes; the tests measure it.
	inodeBytes = 288 // a file
	nameBytes  = 104 // an entry of a directory: in its map, and in its order
	namesBytes = 176 // the map of the first names
	blockBytes = 88  // a block of a file, in its map
	restBytes  = 256 // the map of the first blocks
)

// inode is a file, directory or symbolic link. A frozen one is of a Lower and
// never changes; others are guarded by their Overlay's lock.
type inode struct {
	ino              uint64
	target           string // of a symbolic link
	atim, mtim, ctim int64
	dir              *directory    // of a directory
	content          *LowerContent // of a frozen file
	body             *body         // of a file that is not frozen
	owner            owner
	nlink            uint32
	mode             uint32
	filetype         uint8
	frozen           bool
	copied           bool // stands for a frozen one
	gone             bool // forgotten
}

// NewOverlay makes an overlay that shows its Lower unchanged.
func NewOverlay(c OverlayConfig) *Overlay {
	if c.Lower == nil {
		c.Lower = NewLower()
	}
	if c.Dir != "" && c.MemoryBytes == 0 {
		c.MemoryBytes = DefaultOverlayMemory
	}
	c.Lower.freeze.Do(c.Lower.root.sort)
	o := &Overlay{config: c, root: c.Lower.root, copies: map[*inode]*inode{}, opened: map[*inode]int{}, inos: c.Lower.inos, written: map[*body]struct{}{}}
	if c.Account != nil {
		o.payers = []Account{c.Account}
	}
	return o
}

// Close gives back what was paid. The files in Dir are the caller's to remove.
// Nothing may use the overlay any more.
func (o *Overlay) Close() {
	o.payMu.Lock()
	defer o.payMu.Unlock()
	if len(o.payers) > 0 {
		o.payers[0].Release(o.charged)
	}
	o.payers, o.charged = nil, 0
}

// AddPayer gives a file system in memory to one more container, whose account is to
// pay for what is in it when those that came before have gone. What it cannot pay for
// then stays unpaid.
func (o *Overlay) AddPayer(a Account) {
	o.payMu.Lock()
	defer o.payMu.Unlock()
	if o.payers = append(o.payers, a); len(o.payers) == 1 {
		o.payAll()
	}
}

// RemovePayer is the end of a container that AddPayer was called for.
func (o *Overlay) RemovePayer(a Account) {
	o.payMu.Lock()
	defer o.payMu.Unlock()
	i := slices.Index(o.payers, a)
	if i < 0 {
		return
	}
	o.payers = slices.Delete(o.payers, i, i+1)
	if i > 0 {
		return
	}
	a.Release(o.charged)
	if o.charged = 0; len(o.payers) > 0 {
		o.payAll()
	}
}

func (o *Overlay) payAll() {
	if all := o.inMemory.Load(); o.payers[0].Charge(all) {
		o.charged = all
	}
}

// OverlayUsage is what an overlay's changes take.
type OverlayUsage struct {
	Memory int64 // bytes of content in memory
	Disk   int64 // bytes in Dir: blocks, so that holes cost nothing
	Files  int64 // files, directories and links that were made or changed
}

// Usage measures. It looks at what was written since it was last called.
func (o *Overlay) Usage() OverlayUsage {
	o.mu.RLock()
	u := OverlayUsage{Files: int64(o.inodes)}
	o.mu.RUnlock()
	o.diskMu.Lock()
	written := o.written
	o.written = map[*body]struct{}{}
	o.diskMu.Unlock()
	for b := range written {
		b.measure(o)
	}
	o.diskMu.Lock()
	u.Disk = o.onDisk
	o.diskMu.Unlock()
	u.Memory = o.inMemory.Load()
	return u
}

// charge asks the account.
func (o *Overlay) charge(bytes int64) bool {
	o.payMu.Lock()
	defer o.payMu.Unlock()
	if len(o.payers) > 0 {
		if !o.payers[0].Charge(bytes) {
			return false
		}
		o.charged += bytes
	}
	return true
}

func (o *Overlay) refund(bytes int64) {
	o.payMu.Lock()
	defer o.payMu.Unlock()
	if bytes = min(bytes, o.charged); bytes > 0 {
		o.payers[0].Release(bytes)
		o.charged -= bytes
	}
}

// pay pays for something small that the host remembers; a negative amount comes
// back.
func (o *Overlay) pay(bytes int64) Errno {
	switch {
	case o.config.Dir == "": // it has a size, which holds for this too
		if !o.reserve(bytes) {
			return ErrnoNOSPC
		}
	case bytes <= 0:
		o.refund(-bytes)
	case !o.charge(bytes):
		return ErrnoNOSPC
	}
	return 0
}

// reserve makes room for content in memory.
func (o *Overlay) reserve(bytes int64) bool {
	if used := o.inMemory.Add(bytes); bytes > 0 && o.config.MemoryBytes > 0 && used > o.config.MemoryBytes {
		o.inMemory.Add(-bytes)
		return false
	}
	if bytes < 0 {
		o.refund(-bytes)
	} else if !o.charge(bytes) {
		o.inMemory.Add(-bytes)
		return false
	}
	return true
}

// newPath names a new file on disk.
func (o *Overlay) newPath() string {
	o.diskMu.Lock()
	defer o.diskMu.Unlock()
	o.files++
	return filepath.Join(o.config.Dir, strconv.FormatUint(o.files, 10))
}

// current is what stands for an inode here. The lock is held.
func (o *Overlay) current(n *inode) *inode {
	if n.frozen && len(o.copies) > 0 {
		if c := o.copies[n]; c != nil {
			return c
		}
	}
	return n
}

// own returns an inode that may be changed in the place of n.
func (o *Overlay) own(n *inode) (*inode, Errno) {
	if n = o.current(n); !n.frozen {
		return n, 0
	}
	if errno := o.payInode(n.target); errno != 0 {
		return nil, errno
	}
	c := &inode{}
	*c = *n
	c.frozen, c.copied = false, true
	switch {
	case n.dir != nil:
		c.dir = &directory{under: n.dir, parent: n.dir.parent}
	case n.content != nil:
		users := o.opened[n]
		delete(o.opened, n)
		c.content, c.body = nil, &body{lower: n.content, size: n.content.Size, users: users, fd: -1}
	}
	o.copies[n] = c
	return c, 0
}

func (o *Overlay) payInode(target string) Errno {
	if o.inodes >= maxInodes {
		return ErrnoNOSPC
	}
	errno := o.pay(inodeBytes + int64(len(target)))
	if errno == 0 {
		o.inodes++
	}
	return errno
}

// newInode makes one without a name.
func (o *Overlay) newInode(filetype uint8, mode uint32, who owner, target string) (*inode, Errno) {
	if errno := o.payInode(target); errno != 0 {
		return nil, errno
	}
	o.inos++
	now := time.Now().UnixNano()
	n := &inode{ino: o.inos, filetype: filetype, mode: mode, owner: who, target: target, atim: now, mtim: now, ctim: now}
	switch filetype {
	case filetypeDirectory:
		n.dir = &directory{}
	case filetypeRegular:
		n.body = &body{fd: -1}
	}
	return n, 0
}

// forget is called when an inode may have lost its last name or user.
func (o *Overlay) forget(n *inode) {
	if n.frozen || n.nlink > 0 || n.gone {
		return
	}
	if n.body != nil {
		if n.body.users > 0 {
			return
		}
		n.body.discard(o)
	}
	// A copy stays known, so that nobody finds what it stood for again.
	if !n.copied {
		o.inodes--
		_ = o.pay(-inodeBytes - int64(len(n.target)))
	}
	n.gone = true
}

// filestat describes an inode. The lock is held.
func (n *inode) filestat() filestat {
	st := filestat{
		ino: n.ino, filetype: n.filetype, nlink: uint64(n.nlink), atim: n.atim, mtim: n.mtim, ctime: n.ctim,
		mode: n.mode, uid: n.owner.uid, gid: n.owner.gid, blksize: 4096,
	}
	const regular, directory, link = 0o100000, 0o040000, 0o120000
	switch n.filetype {
	case filetypeDirectory:
		st.mode |= directory
		st.size, st.blocks = 4096, 8
	case filetypeSymlink:
		st.mode |= link
		st.size = uint64(len(n.target))
	default:
		st.mode |= regular
		if n.frozen {
			st.size = uint64(n.content.Size)
			st.blocks = (st.size + 511) / 512
		} else {
			st.size, st.blocks = n.body.extent()
		}
	}
	return st
}
