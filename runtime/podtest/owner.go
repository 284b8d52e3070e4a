package podtest

import (
	"io/fs"
	"syscall"
)

// ownedByRoot: root may change the mode of anybody's directory.
func ownedByRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}
