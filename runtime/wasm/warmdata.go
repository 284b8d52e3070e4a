package wasm

import (
	"encoding/binary"
	"slices"
)

const (
	// mergeGap is how far apart segments may be that are merged.
	mergeGap = 4096
	// mergeSlack is how much of gaps is written, beside as much as there is of data.
	mergeSlack = 256 << 10
)

// segment is an active one of memory 0.
type segment struct {
	at   uint64
	data []byte
}

func (s segment) end() uint64 { return s.at + uint64(len(s.data)) }

// mergeData makes few large segments of many small ones, as Go's linker makes
// them (30,000 for a program that says hello): wazero evaluates an expression for
// each, at every load and at every start. Memory that a module defines is zero at
// first, so the gap between two segments may as well be written. It returns nil,
// and the section is kept, where a segment is anything but bytes at a constant
// place of memory 0, where one of them might not fit into memory (then what is
// written before the trap would differ), or where merging gains nothing.
func mergeData(content []byte, pages uint64) []byte {
	list := activeSegments(content, pages)
	if len(list) < 2 {
		return nil
	}
	order := slices.Clone(list)
	slices.SortStableFunc(order, func(a, b segment) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	type run struct{ at, end uint64 }
	runs := []run{{order[0].at, order[0].end()}}
	room := uint64(len(content)) + mergeSlack
	for _, s := range order[1:] {
		last := &runs[len(runs)-1]
		gap := s.at - min(s.at, last.end)
		if gap > mergeGap || gap > room {
			runs = append(runs, run{s.at, s.end()})
			continue
		}
		room -= gap
		last.end = max(last.end, s.end())
	}
	if len(runs) == len(list) {
		return nil
	}
	// Written in their own order: of two that overlap the later one counts.
	merged := make([]segment, len(runs))
	for i, r := range runs {
		merged[i] = segment{r.at, make([]byte, r.end-r.at)}
	}
	for _, s := range list {
		i, found := slices.BinarySearchFunc(runs, s.at, func(r run, at uint64) int {
			switch {
			case r.at < at:
				return -1
			case r.at > at:
				return 1
			}
			return 0
		})
		if !found {
			i--
		}
		copy(merged[i].data[s.at-merged[i].at:], s.data)
	}
	out := binary.AppendUvarint(make([]byte, 0, len(content)), uint64(len(runs)))
	for _, r := range merged {
		out = append(out, 0, 0x41)
		out = appendS32(out, int32(uint32(r.at)))
		out = append(out, 0x0b)
		out = binary.AppendUvarint(out, uint64(len(r.data)))
		out = append(out, r.data...)
	}
	return out
}

// activeSegments decodes a data section. It returns nil where there are others
// than those that mergeData merges.
func activeSegments(content []byte, pages uint64) []segment {
	c := cursor{b: content}
	n := c.u32()
	if c.bad || n > len(content) {
		return nil
	}
	var list []segment
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
		if c.skip(size); c.bad || at+uint64(size) > pages<<16 {
			return nil
		}
		list = append(list, segment{at, content[start:c.at]})
	}
	if c.bad || c.at != len(content) {
		return nil
	}
	return list
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
