//go:build wasip1

package runtime

import (
	"structs"
	"unsafe"
)

// The network poller is a poll set of the host (docs/abi.md of wasmpod): an
// event comes once, and again after a call has returned EAGAIN. So nothing has
// to be armed, and idle descriptors cost nothing.

const _EINTR = 27

const (
	pollRead   = 1
	pollWrite  = 2
	pollHangup = 4
)

type pollEvent struct {
	_        structs.HostLayout
	userdata uint64
	events   uint32
	fd       int32
}

//go:wasmimport wasmpod poll_open
//go:noescape
func poll_open(set *int32) errno

//go:wasmimport wasmpod poll_control
//go:noescape
func poll_control(set, fd int32, interest uint32, userdata uint64) errno

//go:wasmimport wasmpod poll_wait
//go:noescape
func poll_wait(set int32, events *pollEvent, room size, timeout int64, n *size) errno

var (
	pollSet    int32          = -1
	pollEvents [128]pollEvent // there is one thread
)

func netpollinit() {
	if errno := poll_open(&pollSet); errno != 0 {
		println("runtime: poll_open failed with", errno)
		throw("runtime: netpollinit failed")
	}
}

func netpollIsPollDescriptor(fd uintptr) bool {
	return int32(fd) == pollSet
}

func netpollopen(fd uintptr, pd *pollDesc) int32 {
	tag := taggedPointerPack(unsafe.Pointer(pd), pd.fdseq.Load())
	return int32(poll_control(pollSet, int32(fd), pollRead|pollWrite, uint64(tag)))
}

func netpollclose(fd uintptr) int32 {
	return int32(poll_control(pollSet, int32(fd), 0, 0))
}

func netpollarm(pd *pollDesc, mode int) {}

func netpollBreak() {}

// netpoll waits until something is ready, for at most delay nanoseconds unless it
// is below 0.
func netpoll(delay int64) (gList, int32) {
	if pollSet < 0 {
		return gList{}, 0
	}
	var n size
retry:
	if errno := poll_wait(pollSet, &pollEvents[0], size(len(pollEvents)), delay, &n); errno != 0 {
		if errno != _EINTR {
			println("runtime: poll_wait failed with", errno)
			throw("runtime: netpoll failed")
		}
		// Who slept for a time computes anew how long is left.
		if delay > 0 {
			return gList{}, 0
		}
		goto retry
	}
	var toRun gList
	delta := int32(0)
	for i := range pollEvents[:n] {
		e := &pollEvents[i]
		var mode int32
		if e.events&(pollRead|pollHangup) != 0 {
			mode += 'r'
		}
		if e.events&(pollWrite|pollHangup) != 0 {
			mode += 'w'
		}
		tag := taggedPointer(e.userdata)
		pd := (*pollDesc)(tag.pointer())
		if pd.fdseq.Load() != tag.tag() {
			continue // the descriptor has been closed since
		}
		pd.setEventErr(false, tag.tag())
		delta += netpollready(&toRun, pd, mode)
	}
	return toRun, delta
}
