//go:build unix

package image

import (
	"os"
	"syscall"
)

// inodeOf returns what tells a replaced file from the one before it, beside
// size and modification time: the inode, and the time of its last change in
// nanoseconds, which no program can set.
func inodeOf(fi os.FileInfo) (inode uint64, ctime int64) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return uint64(st.Ino), changeTime(st)
}
