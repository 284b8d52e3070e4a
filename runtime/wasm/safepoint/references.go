package safepoint

// ref.func is replaced by table.get, see the package's comment.

// bits is a set of small numbers.
type bits []uint64

func (b *bits) add(i uint32) {
	for uint32(len(*b)) <= i/64 {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bits) has(i uint32) bool { return i/64 < uint32(len(b)) && b[i/64]>>(i%64)&1 != 0 }

// reference is the element of the added table that holds a function.
func (m *module) reference(f uint32) uint32 {
	slot, ok := m.slots[f]
	if !ok {
		if m.slots == nil {
			m.slots = map[uint32]uint32{}
		}
		slot = uint32(len(m.references))
		m.slots[f] = slot
		m.references = append(m.references, f)
	}
	return slot
}
