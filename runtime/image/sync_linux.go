package image

import (
	"os"

	"golang.org/x/sys/unix"
)

// writebackEvery is how much is written before the disk is asked to begin.
const writebackEvery = 8 << 20

// startWriteback has the disk begin to write what has come so far, each time
// that it is much: the sync at the end then has little left to wait for.
func startWriteback(f *os.File, offset, n int64) {
	if end := offset + n; end/writebackEvery > offset/writebackEvery {
		from := max(0, offset/writebackEvery*writebackEvery)
		_ = unix.SyncFileRange(int(f.Fd()), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// syncTree writes everything below a directory to the disk, with all else
// that the file system has to write.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
