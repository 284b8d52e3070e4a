package wasm

import (
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
)

const pageBytes = 1 << 16 // of WebAssembly

// allocator makes the one linear memory of an instance and charges for it.
type allocator struct {
	account  *Account
	exceeded func() // called when growth would exceed its limit; does not return
	size     atomic.Int64
	peak     atomic.Int64
	mem      *linearMemory
}

// linearMemory is address space reserved at once, so that growing it neither
// copies nor moves it: the guest's pointers stay, and a guest of 1 GiB needs no
// second GiB to grow. Where no space can be reserved it is an ordinary slice.
type linearMemory struct {
	a         *allocator
	reserved  []byte // inaccessible beyond committed; nil when not reserved
	committed int
	slice     []byte
}

// Allocate implements [experimental.MemoryAllocator].
func (a *allocator) Allocate(_, most uint64) experimental.LinearMemory {
	// Not only up to the limit, which SetLimits may raise: it is address space.
	a.mem = &linearMemory{a: a}
	if most > 0 {
		a.mem.reserved = reserve(int(most+pageBytes-1) &^ (pageBytes - 1))
	}
	return a.mem
}

func (a *allocator) free() {
	if a.mem != nil {
		a.mem.Free()
	}
}

// Reallocate implements [experimental.LinearMemory].
func (m *linearMemory) Reallocate(size uint64) []byte {
	more := int64(size) - m.a.size.Load()
	if !m.a.account.Charge(more) {
		m.a.exceeded()
	}
	n := int(size)
	switch {
	case m.reserved == nil && n > cap(m.slice):
		grown := make([]byte, n)
		copy(grown, m.slice)
		m.slice = grown
	case m.reserved == nil:
		m.slice = m.slice[:n]
	case n > len(m.reserved):
		m.a.account.Release(more)
		return nil
	case n > m.committed:
		if !commit(m.reserved[m.committed:n]) {
			m.a.account.Release(more)
			return nil // the host has no memory: growth fails, as for any program
		}
		m.committed = n
	}
	m.a.size.Store(int64(size))
	m.a.peak.Store(max(m.a.peak.Load(), int64(size)))
	if m.reserved != nil {
		return m.reserved[:n:n]
	}
	return m.slice
}

// Free implements [experimental.LinearMemory]. It may be called again.
func (m *linearMemory) Free() {
	m.a.account.Release(m.a.size.Swap(0))
	if m.reserved != nil {
		release(m.reserved)
	}
	m.reserved, m.slice, m.committed = nil, nil, 0
}
