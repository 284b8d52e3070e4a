package wasm

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// preferHugePages asks for memory that has not been touched yet to be made of
// huge pages. It is advice, which may be taken for any memory or none.
func preferHugePages(b []byte) {
	page := uintptr(os.Getpagesize())
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (page - 1)
	if uintptr(len(b)) > skip+page {
		_ = unix.Madvise(b[skip:], unix.MADV_HUGEPAGE)
	}
}
