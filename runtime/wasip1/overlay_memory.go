package wasip1

import "maps"

func (b *body) block(i int64) []byte {
	if i == 0 {
		return b.first
	}
	return b.rest[i]
}

func (b *body) setBlock(i int64, block []byte) {
	if i == 0 {
		b.first = block
		return
	}
	if b.rest == nil {
		b.rest = map[int64][]byte{}
	}
	b.rest[i] = block
}

// growBlock returns block i with this much room, to be set.
func (b *body) growBlock(o *Overlay, i int64, room int) ([]byte, bool) {
	block := b.block(i)
	room = min(blockSize, max(room, 64))
	more := int64(room - cap(block))
	if !o.reserve(more) {
		return nil, false
	}
	if _, there := b.rest[i]; i > 0 && !there && !b.paySlots(o, len(b.rest)+1) {
		_ = o.reserve(-more)
		return nil, false
	}
	b.held += more
	grown := make([]byte, len(block), room)
	copy(grown, block)
	return grown, true
}

// paySlots pays for rest to have n blocks.
func (b *body) paySlots(o *Overlay, n int) bool {
	if n <= b.slots {
		return true
	}
	bytes := int64(n-b.slots) * blockBytes
	if b.slots == 0 {
		bytes += restBytes
	}
	if o.pay(bytes) != 0 {
		return false
	}
	b.slots = n
	return true
}

// trim makes rest anew if it has become much too large: a map keeps the room that
// it ever had.
func (b *body) trim(o *Overlay) {
	n := len(b.rest)
	switch {
	case b.slots == 0 || n > 0 && (b.slots <= 32 || n > b.slots/4):
		return
	case n == 0:
		b.rest = nil
		_ = o.pay(-restBytes)
	default:
		rest := make(map[int64][]byte, n)
		maps.Copy(rest, b.rest)
		b.rest = rest
	}
	_ = o.pay(-int64(b.slots-n) * blockBytes)
	b.slots = n
}

// leaveMemory forgets what is in memory.
func (b *body) leaveMemory(o *Overlay) {
	b.first, b.rest = nil, nil
	_ = o.reserve(-b.held)
	b.held = 0
	b.trim(o)
}

// writeMemory writes as much as there is room for in memory.
func (b *body) writeMemory(o *Overlay, p []byte, off int64) (n int) {
	for n < len(p) {
		at := off + int64(n)
		if o.config.Dir != "" && at+int64(len(p)-n) > maxMemoryFile {
			break
		}
		i, in := at/blockSize, int(at%blockSize)
		part := p[n:min(len(p), n+blockSize-in)]
		block := b.block(i)
		if need := in + len(part); need > cap(block) {
			// Twice the room, so that a file that is written by the byte is not
			// copied each time.
			var ok bool
			if block, ok = b.growBlock(o, i, max(need, 2*cap(block))); !ok {
				break
			}
		}
		if need := in + len(part); need > len(block) {
			old := len(block)
			block = block[:need]
			clear(block[old:])
		}
		copy(block[in:], part)
		b.setBlock(i, block)
		n += len(part)
		b.size = max(b.size, at+int64(len(part)))
	}
	return n
}

func (b *body) copyToMemory(o *Overlay, fd int, keep int64) bool {
	if !o.reserve(keep) {
		return false
	}
	b.held += keep
	if keep > blockSize && !b.paySlots(o, int((keep-1)/blockSize)) {
		b.leaveMemory(o)
		return false
	}
	for at := int64(0); at < keep; at += blockSize {
		block := make([]byte, min(blockSize, keep-at))
		if n, err := hostPread(fd, block, at); err != nil || n < len(block) {
			b.leaveMemory(o)
			return false
		}
		b.setBlock(at/blockSize, block)
	}
	return true
}

// cut drops what lies beyond size in memory.
func (b *body) cut(o *Overlay, size int64) {
	last := size / blockSize
	drop := func(i int64) {
		block := b.block(i)
		keep := 0
		if i == last {
			keep = min(len(block), int(size%blockSize))
		}
		if keep > 0 {
			b.setBlock(i, block[:keep])
			return
		}
		_ = o.reserve(-int64(cap(block)))
		b.held -= int64(cap(block))
		if i == 0 {
			b.first = nil
		} else {
			delete(b.rest, i)
		}
	}
	if last == 0 {
		drop(0)
	}
	for i := range b.rest {
		if i >= last {
			drop(i)
		}
	}
	b.trim(o)
}

func (b *body) allocateMemory(o *Overlay, off, end int64) bool {
	for i := off / blockSize; i <= (end-1)/blockSize; i++ {
		block := b.block(i)
		room := int(min(blockSize, end-i*blockSize))
		if room <= cap(block) {
			continue
		}
		grown, ok := b.growBlock(o, i, room)
		if !ok {
			return false
		}
		b.setBlock(i, grown)
	}
	return true
}
