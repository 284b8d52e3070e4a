package bpf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// newMemory returns n zeroes that lie outside of Go's heap, as those do that the
// kernel shares, and are never freed: a stint may be under way when an Accounting
// is closed. Without memory for it they lie within.
func newMemory[T any](n int) []T {
	b, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(*new(T))), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]T, n)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
