package inproc

import (
	"io/fs"
	"syscall"
)

// changeTime is when anything of a file last changed; a guest cannot set it.
func changeTime(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ctimespec.Nano()
	}
	return 0
}
