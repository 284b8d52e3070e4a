package wasip1

import "context"

// File types of WASI preview 1.
const (
	filetypeUnknown uint8 = iota
	filetypeBlockDevice
	filetypeCharacterDevice
	filetypeDirectory
	filetypeRegular
	filetypeSocketDgram
	filetypeSocketStream
	filetypeSymlink
)

// Flags of a file descriptor.
const (
	fdflagAppend uint16 = 1 << iota
	fdflagDsync
	fdflagNonblock
	fdflagRsync
	fdflagSync
)

// Rights of a file descriptor.
const (
	rightFdDatasync uint64 = 1 << iota
	rightFdRead
	rightFdSeek
	rightFdFdstatSetFlags
	rightFdSync
	rightFdTell
	rightFdWrite
	rightFdAdvise
	rightFdAllocate
	rightPathCreateDirectory
	rightPathCreateFile
	rightPathLinkSource
	rightPathLinkTarget
	rightPathOpen
	rightFdReaddir
	rightPathReadlink
	rightPathRenameSource
	rightPathRenameTarget
	rightPathFilestatGet
	rightPathFilestatSetSize
	rightPathFilestatSetTimes
	rightFdFilestatGet
	rightFdFilestatSetSize
	rightFdFilestatSetTimes
	rightPathSymlink
	rightPathRemoveDirectory
	rightPathUnlinkFile
	rightPollFdReadwrite
	rightSockShutdown
	rightSockAccept

	rightsAll uint64 = 1<<iota - 1

	rightsStream = rightFdRead | rightFdWrite | rightFdFdstatSetFlags | rightFdFilestatGet | rightPollFdReadwrite

	rightsFile = rightsStream | rightFdDatasync | rightFdSeek | rightFdSync | rightFdTell | rightFdAdvise |
		rightFdAllocate | rightFdFilestatSetSize | rightFdFilestatSetTimes

	rightsDir = rightPathCreateDirectory | rightPathCreateFile | rightPathLinkSource | rightPathLinkTarget |
		rightPathOpen | rightFdReaddir | rightPathReadlink | rightPathRenameSource | rightPathRenameTarget |
		rightPathFilestatGet | rightPathFilestatSetSize | rightPathFilestatSetTimes | rightFdFilestatGet |
		rightFdFilestatSetTimes | rightPathSymlink | rightPathRemoveDirectory | rightPathUnlinkFile |
		rightFdFdstatSetFlags | rightFdSync | rightFdDatasync
)

// filestat is what a guest learns about a file. Times are nanoseconds since 1970.
type filestat struct {
	dev, ino          uint64
	filetype          uint8
	nlink, size       uint64
	atim, mtim, ctime int64

	// What preview 1 leaves out; mode is 0 for what the host does not have.
	mode, uid, gid, blksize uint32
	rdev, blocks            uint64
}

// file is what an entry of the descriptor table refers to: a host file, a
// directory, a stream, a device; later a socket. A Process calls its files from
// one goroutine at a time. Kinds embed noFile and implement what they have.
type file interface {
	filetype() uint8
	stat() (filestat, Errno)

	// read and write return short counts as POSIX does. They may block, and then
	// watch ctx and panic with killed when it is done, or return EINTR for a
	// signal. nonblock asks for EAGAIN instead.
	read(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno)
	write(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno)
	pread(ctx context.Context, bufs [][]byte, offset int64) (int, Errno)
	pwrite(ctx context.Context, bufs [][]byte, offset int64) (int, Errno)
	seek(offset int64, whence uint8) (int64, Errno)

	sync() Errno
	// allocate and setSize may have to copy a file, or to find room for much: they
	// watch ctx as read does.
	allocate(ctx context.Context, offset, length int64) Errno
	setSize(ctx context.Context, size int64) Errno
	setTimes(t timesUpdate) Errno
	// setFlags is told the new flags; the table keeps them.
	setFlags(flags uint16) Errno

	// poll says whether a read (or write) would not block now, how many bytes it
	// would give where that is known, and whether the other end is gone.
	poll(write bool) (ready bool, nbytes uint64, hangup bool)
	// watch asks that w be woken when poll's answer may have become true, until
	// unwatch. Kinds that are always ready never wake anyone.
	watch(w *waker, write bool)
	unwatch(w *waker)

	close() Errno
}

// noFile answers everything in the way of a kind that does not have it.
type noFile struct{}

func (noFile) read(context.Context, [][]byte, bool) (int, Errno)    { return 0, ErrnoBADF }
func (noFile) write(context.Context, [][]byte, bool) (int, Errno)   { return 0, ErrnoBADF }
func (noFile) pread(context.Context, [][]byte, int64) (int, Errno)  { return 0, ErrnoSPIPE }
func (noFile) pwrite(context.Context, [][]byte, int64) (int, Errno) { return 0, ErrnoSPIPE }
func (noFile) seek(int64, uint8) (int64, Errno)                     { return 0, ErrnoSPIPE }
func (noFile) sync() Errno                                          { return ErrnoINVAL }
func (noFile) allocate(context.Context, int64, int64) Errno         { return ErrnoNODEV }
func (noFile) setSize(context.Context, int64) Errno                 { return ErrnoINVAL }
func (noFile) setTimes(timesUpdate) Errno                           { return ErrnoSuccess }
func (noFile) setFlags(uint16) Errno                                { return ErrnoSuccess }
func (noFile) poll(bool) (bool, uint64, bool)                       { return true, 0, false }
func (noFile) watch(*waker, bool)                                   {}
func (noFile) unwatch(*waker)                                       {}
func (noFile) close() Errno                                         { return ErrnoSuccess }

func total(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n
}
