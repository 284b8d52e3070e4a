package runtime

import "golang.org/x/sys/unix"

// totalMemory returns the host's memory in bytes.
func totalMemory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n)
}
