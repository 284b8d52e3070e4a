package wasip1

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of a size, for this test alone.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprint("size=", bytes)); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skipf("skipped: this process may not mount file systems: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
