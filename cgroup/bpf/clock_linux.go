package bpf

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const clockName = "thread CPU clock"

// These are raw: Go's scheduler must not take the processor away from a
// goroutine that is pinned.

func threadID() uint32 {
	tid, _, _ := syscall.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	return uint32(tid)
}

// threadTime is what the calling thread has run, in ns, by the count that the
// programs read too.
func threadTime() int64 {
	var ts unix.Timespec
	syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

func threadLives(tid uint32) bool {
	return !errors.Is(unix.Tgkill(unix.Getpid(), int(tid), 0), unix.ESRCH)
}
