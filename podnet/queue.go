package podnet

import (
	"math/bits"
	"net/netip"
	"sync"
)

// Account is what a container pays for the memory of its sockets and of their
// buffers. A chunk of a buffer is charged when it is made and released when it
// was read or dropped, which may be after its payer has ended: whoever sends pays
// until the receiver has taken it, and whoever connects pays for both ends until
// the other is accepted, so that nobody fills another container's memory. What
// a sender without an account sends (a client at the edge of the pod) is paid
// for by the receiver. Where an account refuses, the call is ENOBUFS, or EAGAIN
// if room will come.
//
// The methods are called from many goroutines and with locks of the package
// held: they must be quick and must not call back.
type Account interface {
	// Charge reports whether there is room for so many bytes more, and takes them.
	Charge(bytes int64) bool
	Release(bytes int64)
}

const (
	minChunkShift = 9  // 512 B
	maxChunkShift = 16 // 64 KiB
	// chunkOverhead is charged per chunk besides its buffer, for its header.
	chunkOverhead = 128
	// socketCharge is for a socket, its half of a connection, and what the guest's
	// table of descriptors has of it.
	socketCharge = 1 << 10
	// flowCharge is for a destination that a datagram socket remembers.
	flowCharge = 512
	// outsideCharge is for the goroutines and buffers of a stream to the outside.
	outsideCharge = 80 << 10
)

// chunk is a piece of a stream, or one datagram. It is taken from a pool by
// size, so that an idle connection owns none and a busy one allocates nothing.
type chunk struct {
	next  *chunk
	buf   []byte
	r, w  int // what is to be read is buf[r:w]
	class uint8
	payer Account
	from  netip.AddrPort // of a datagram
}

var chunkPools [maxChunkShift - minChunkShift + 1]sync.Pool

func chunkClass(n int) uint8 {
	if n <= 1<<minChunkShift {
		return 0
	}
	return uint8(min(bits.Len(uint(n-1)), maxChunkShift) - minChunkShift)
}

// chargeFor is what a chunk of class costs.
func chargeFor(class uint8) int64 { return chunkOverhead + 1<<(minChunkShift+class) }

// newChunk returns a chunk with room for n bytes, or for 64 KiB if n is more.
// It returns nil if payer refuses.
func newChunk(n int, payer Account) *chunk {
	class := chunkClass(n)
	if payer != nil && !payer.Charge(chargeFor(class)) {
		return nil
	}
	c, _ := chunkPools[class].Get().(*chunk)
	if c == nil {
		c = &chunk{class: class, buf: make([]byte, 1<<(minChunkShift+class))}
	}
	c.payer = payer
	return c
}

func (c *chunk) free() {
	if c.payer != nil {
		c.payer.Release(chargeFor(c.class))
	}
	c.next, c.r, c.w, c.payer, c.from = nil, 0, 0, nil, netip.AddrPort{}
	chunkPools[c.class].Put(c)
}

// queue is the receive buffer of one end of a stream. It is a list of chunks
// and not one ring: it grows and shrinks without copying, and one side can copy
// into or out of a chunk without holding up the other.
type queue struct {
	head, tail *chunk
	n          int // bytes
}

func (q *queue) link(head, tail *chunk, n int) {
	if q.tail == nil {
		q.head = head
	} else {
		q.tail.next = head
	}
	q.tail = tail
	q.n += n
}

// fillTail copies what fits into the free part of the last chunk.
func (q *queue) fillTail(v *vec, limit int) int {
	t := q.tail
	if t == nil {
		return 0
	}
	n := v.copyTo(t.buf[t.w:min(len(t.buf), t.w+limit)])
	t.w += n
	q.n += n
	return n
}

// pop removes n bytes, which must be there.
func (q *queue) pop(n int) {
	q.n -= n
	for n > 0 {
		h := q.head
		k := min(n, h.w-h.r)
		h.r += k
		n -= k
		if h.r < h.w {
			return
		}
		if q.head = h.next; q.head == nil {
			q.tail = nil
		}
		h.free()
	}
}

// clear drops everything.
func (q *queue) clear() {
	for c := q.head; c != nil; {
		next := c.next
		c.free()
		c = next
	}
	*q = queue{}
}

// chain copies limit bytes of v into new chunks. It returns less than that if
// payer refuses.
func chain(v *vec, limit int, payer Account) (head, tail *chunk, n int) {
	for n < limit {
		c := newChunk(limit-n, payer)
		if c == nil {
			break
		}
		c.w = v.copyTo(c.buf[:min(len(c.buf), limit-n)])
		n += c.w
		if tail == nil {
			head = c
		} else {
			tail.next = c
		}
		tail = c
	}
	return head, tail, n
}

// vec walks over buffers.
type vec struct {
	bufs [][]byte
	off  int // into bufs[0]
}

func vecLen(bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// copyTo fills dst from the buffers.
func (v *vec) copyTo(dst []byte) int {
	n := 0
	for n < len(dst) && len(v.bufs) > 0 {
		k := copy(dst[n:], v.bufs[0][v.off:])
		n += k
		v.advance(k)
	}
	return n
}

// copyFrom fills the buffers from src.
func (v *vec) copyFrom(src []byte) int {
	n := 0
	for n < len(src) && len(v.bufs) > 0 {
		k := copy(v.bufs[0][v.off:], src[n:])
		n += k
		v.advance(k)
	}
	return n
}

func (v *vec) advance(k int) {
	v.off += k
	if v.off == len(v.bufs[0]) {
		v.bufs, v.off = v.bufs[1:], 0
		v.skipEmpty()
	}
}

// skipEmpty drops leading buffers without room; advance drops later ones.
func (v *vec) skipEmpty() {
	for len(v.bufs) > 0 && len(v.bufs[0]) == 0 {
		v.bufs = v.bufs[1:]
	}
}
