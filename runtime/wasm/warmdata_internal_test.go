package wasm

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// image is the memory that a data section makes.
func image(t *testing.T, content []byte, size int) []byte {
	t.Helper()
	mem := make([]byte, size)
	c := cursor{b: content}
	for n := c.u32(); n > 0; n-- {
		if c.byte() != 0 || c.byte() != 0x41 {
			t.Fatal("not an active segment")
		}
		at, ok := c.s32()
		if !ok || c.byte() != 0x0b {
			t.Fatal("no place")
		}
		size := c.u32()
		start := c.at
		if c.skip(size); c.bad || at+uint64(size) > uint64(len(mem)) {
			t.Fatal("out of bounds")
		}
		copy(mem[at:], content[start:c.at])
	}
	if c.bad || c.at != len(content) {
		t.Fatal("malformed")
	}
	return mem
}

func segments(list ...any) []byte {
	b := binary.AppendUvarint(nil, uint64(len(list)/2))
	for i := 0; i < len(list); i += 2 {
		data := list[i+1].(string)
		b = append(appendS32(append(b, 0, 0x41), int32(list[i].(int))), 0x0b)
		b = append(binary.AppendUvarint(b, uint64(len(data))), data...)
	}
	return b
}

func TestMergeData(t *testing.T) {
	for _, c := range []struct {
		name    string
		content []byte
		pages   uint64
		want    int // segments; -1: not merged
	}{
		{"near", segments(0, "ab", 10, "cd", 100, "ef"), 1, 1},
		{"touching", segments(0, "ab", 2, "cd"), 1, 1},
		{"far", segments(0, "ab", 40_000, "cd", 40_010, "ef"), 1, 2},
		{"above 2 GiB", segments(-65536, "ab", -65000, "cd"), 65536, 1},
		{"overlapping", segments(0, "abc", 2, "XYZ"), 1, 1},
		{"overlapping, the earlier one later", segments(2, "XYZ", 0, "abc"), 1, 1},
		{"one within another, which comes later", segments(2, "X", 0, "abcdef", 3, "Y"), 1, 1},
		{"two of one place", segments(2, "old", 2, "n"), 1, 1},
		{"descending", segments(10, "abc", 2, "cd"), 1, 1},
		{"in no order", segments(40_000, "c", 10, "abc", 40_002, "d", 2, "cd"), 1, 2},
		{"empty ones", segments(0, "", 65536, "", 9, "x"), 1, 2},
		{"only empty ones, far apart", segments(0, "", 65536, ""), 1, -1},
		{"out of bounds", segments(0, "abc", 65535, "cd"), 1, -1},
		{"memory of another", segments(0, "ab", 10, "cd"), 0, -1},
		{"one", segments(0, "ab"), 1, -1},
		{"passive", []byte{2, 1, 1, 'x', 1, 1, 'y'}, 1, -1},
		{"cut", segments(0, "ab", 10, "cd")[:8], 1, -1},
		{"more", append(segments(0, "ab", 10, "cd"), 0), 1, -1},
	} {
		merged := mergeData(c.content, c.pages)
		switch {
		case c.want < 0 && merged != nil:
			t.Errorf("%s: merged", c.name)
		case c.want < 0:
		case merged == nil || int(merged[0]) != c.want:
			t.Errorf("%s: %x", c.name, merged)
		case c.pages == 1 && !bytes.Equal(image(t, merged, 65536), image(t, c.content, 65536)):
			t.Errorf("%s: another memory", c.name)
		}
	}
}

// TestMergeDataBounds: a module that has a byte here and there must not become
// thousands of times as large.
func TestMergeDataBounds(t *testing.T) {
	var list []any
	for at := range 16_000 {
		list = append(list, at*4000, "x")
	}
	content := segments(list...)
	merged := mergeData(content, 1000)
	if len(merged) > 2*len(content)+2*mergeSlack {
		t.Errorf("%d bytes became %d", len(content), len(merged))
	}
	if merged != nil && !bytes.Equal(image(t, merged, 1000<<16), image(t, content, 1000<<16)) {
		t.Error("another memory")
	}
}

func FuzzMergeData(f *testing.F) {
	f.Add(segments(0, "ab", 10, "cd"), uint8(1))
	f.Add(segments(-65536, "ab", 10, "cd"), uint8(1))
	f.Add(segments(20, "overlaps", 10, "everything before"), uint8(1))
	f.Fuzz(func(t *testing.T, content []byte, pages uint8) {
		p := uint64(pages % 4)
		if merged := mergeData(content, p); merged != nil && !bytes.Equal(image(t, merged, int(p)<<16), image(t, content, int(p)<<16)) {
			t.Error("another memory")
		}
	})
}

func FuzzStub(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x0a\x04\x01\x02\x00\x0b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if stub, err := stubOf(b, "sha256:x"); err == nil && !bytes.Contains(stub, []byte("sha256:x")) {
			t.Error("not marked")
		}
	})
}
