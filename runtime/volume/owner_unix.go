//go:build unix

package volume

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerAttribute is where guests' calls keep, and look for, the owner "uid:gid" of a
// file whose real one this process may not change. Root is who this process is.
const ownerAttribute = "user.wasmpod.owner"

func noteGroup(root *os.Root, name string, group int64) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fsetxattr(int(f.Fd()), ownerAttribute, fmt.Appendf(nil, "0:%d", group), 0)
}

func groupOf(info fs.FileInfo) (gid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Gid, true
}
