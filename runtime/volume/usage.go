package volume

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxLinked bounds what is remembered of hard links; beyond, they count each time.
const maxLinked = 1 << 18

// DiskUsage returns what lies in a directory: the bytes that it takes on its file
// system, in blocks, so that holes cost nothing, each hard-linked file once; and
// how many files and directories. What is mounted in it does not count.
//
// Guests may write to the directory meanwhile, and nest it as deep as they like: see
// treeWalk. An error is ctx's, or says what does not count because it could not be
// seen.
func DiskUsage(ctx context.Context, dir string) (bytes, files int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure %s: %w", dir, err)
		}
	}()
	fd, err := openDirAt(unix.AT_FDCWD, dir)
	if err != nil {
		return 0, 0, err
	}
	var top unix.Stat_t
	if err := unix.Fstat(fd, &top); err != nil {
		unix.Close(fd)
		return 0, 0, err
	}
	bytes = top.Blocks * 512
	linked := map[uint64]bool{} // inodes with several names that have been counted
	err = walkTree(ctx, fd, func(_ int, _ string, st *unix.Stat_t) error {
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if linked[st.Ino] {
				return nil
			}
			if len(linked) < maxLinked {
				linked[st.Ino] = true
			}
		}
		files++
		bytes += st.Blocks * 512
		return nil
	})
	return bytes, files, err
}
