//go:build linux || darwin

package wasm

import "golang.org/x/sys/unix"

// reserve returns inaccessible address space, or nil if there is none to be
// had. It takes neither memory nor commit charge.
func reserve(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

func commit(b []byte) bool {
	return len(b) == 0 || unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE) == nil
}

func release(b []byte) { _ = unix.Munmap(b) }
