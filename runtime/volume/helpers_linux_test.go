package volume

import (
	"fmt"
	"syscall"
)

func setUmask(mask int) int { return syscall.Umask(mask) }

func mountTmpfs(dir string, size int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}

func unmountTmpfs(dir string) error { return syscall.Unmount(dir, 0) }
