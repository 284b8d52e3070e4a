package wasm

import "encoding/binary"

// mergeData makes few large segments of many small ones, as Go's linker makes
// them: wazero evaluates an expression for each. Memory that a module defines is
// zero at first, so the gap between two segments may as well be written. It
// returns nil, and the section is kept, where a segment is anything but bytes at
// a constant place of memory 0, where they are not in ascending order, or where
// one of them might not fit into memory: then what is written before the trap
// would differ.
func mergeData(content []byte, pages uint64) []byte {
	// maxGap is what skipping a segment's header is worth.
	const maxGap = 4096
	c := cursor{b: content}
	n := c.u32()
	if c.bad || n < 2 || n > len(content) {
		return nil
	}
	type run struct {
		at   uint64
		data []byte
	}
	var runs []run
	for range n {
		if c.byte() != 0 || c.byte() != 0x41 { // active in memory 0, at i32.const
			return nil
		}
		at, ok := c.s32()
		if !ok || c.byte() != 0x0b {
			return nil
		}
		size := c.u32()
		start := c.at
		if c.skip(size); c.bad {
			return nil
		}
		data := content[start:c.at]
		if at+uint64(size) > pages<<16 {
			return nil
		}
		if len(runs) > 0 {
			last := &runs[len(runs)-1]
			end := last.at + uint64(len(last.data))
			switch {
			case at < end:
				return nil
			case at-end <= maxGap:
				last.data = append(append(last.data, make([]byte, at-end)...), data...)
				continue
			}
		}
		runs = append(runs, run{at, append([]byte(nil), data...)})
	}
	if c.bad || c.at != len(content) {
		return nil
	}
	out := binary.AppendUvarint(nil, uint64(len(runs)))
	for _, r := range runs {
		out = append(out, 0, 0x41)
		out = appendS32(out, int32(uint32(r.at)))
		out = append(out, 0x0b)
		out = binary.AppendUvarint(out, uint64(len(r.data)))
		out = append(out, r.data...)
	}
	return out
}

// s32 reads a signed number as the address that it is.
func (c *cursor) s32() (uint64, bool) {
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		b := c.byte()
		if c.bad {
			return 0, false
		}
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return uint64(uint32(v)), true
		}
	}
	return 0, false
}

func appendS32(b []byte, v int32) []byte {
	for {
		low := byte(v & 0x7f)
		if v >>= 7; v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

// ownMemoryPages is the initial size of the one memory that a memory section
// defines; zero where there is another kind.
func ownMemoryPages(content []byte) uint64 {
	c := cursor{b: content}
	if n := c.u32(); n != 1 {
		return 0
	}
	if flags := c.byte(); flags > 1 {
		return 0
	}
	pages := c.u32()
	if c.bad {
		return 0
	}
	return uint64(pages)
}
