package wasip1

import (
	"context"
	"unsafe"
)

// What the host keeps because of a guest is charged to the guest's account. Where
// a kernel refuses memory, for what waits in sockets or for a listing, the call
// fails. Where it ends the program, because nobody expects a failure there, the
// call fails as well, and the guest ends with it, as one whose own memory exceeds
// the limit (OOM-06).
const (
	// descriptorBytes is what an open descriptor takes at most: its entry, room of
	// the table that grows, and its file. A directory takes more, the more so if it
	// has been removed meanwhile.
	descriptorBytes = 256
	openDirBytes    = 384 // beside its descriptor and path
	pollSetBytes    = 192 // beside its descriptor
	// interestBytes is an interest with its places in the lists of its set and in
	// that of its socket, and one that is gone, but on the list of what may have an
	// event.
	interestBytes = 272
	pumpBytes     = 4 << 10  // the goroutine of a stream
	stdinBytes    = 16 << 10 // the buffer
)

// exhaustible is what a context may offer: OutOfMemory ends the guest, and does
// not return.
type exhaustible interface{ OutOfMemory() }

// pathBytes is what a string of any length takes.
func pathBytes(s string) int64 { return int64(len(s) + len(s)/8 + 16) }

// hold charges for what the host is about to keep. If it is false the call under
// way is to fail, without having waited for anything.
func (p *Process) hold(bytes int64) bool {
	switch {
	case p.memory == nil:
	case p.memory.Charge(bytes):
		p.held += bytes
	default:
		p.exhausted = true
		return false
	}
	return true
}

// drop is the opposite of hold.
func (p *Process) drop(bytes int64) {
	if p.memory != nil {
		p.held -= bytes
		p.memory.Release(bytes)
	}
}

// borrow charges for what one call keeps while it sleeps. Who has no room for it
// is told so, as programs expect that of such calls.
func (p *Process) borrow(bytes int64) (giveBack func(), ok bool) {
	if p.memory == nil {
		return func() {}, true
	}
	return func() { p.memory.Release(bytes) }, p.memory.Charge(bytes)
}

// settle ends a guest for which hold has been false, where its context can.
func (p *Process) settle(ctx context.Context) {
	if p.exhausted {
		p.exhausted = false
		if c, ok := ctx.(exhaustible); ok {
			c.OutOfMemory()
		}
	}
}

// holdGrown charges for what a slice that is kept has grown by.
func holdGrown[T any](p *Process, before, after []T) bool {
	more := cap(after) - cap(before)
	return more <= 0 || p.hold(int64(more)*int64(unsafe.Sizeof(*new(T))))
}
