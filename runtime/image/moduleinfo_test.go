package image

import (
	"reflect"
	"testing"
)

func TestParseModule(t *testing.T) {
	b := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x04\x01\x60\x00\x00" +
		"\x02\x0d\x02\x01b\x01g\x00\x00\x01a\x01f\x00\x00" +
		"\x03\x02\x01\x00" +
		"\x05\x04\x01\x01\x01\x02" +
		"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
		"\x0a\x04\x01\x02\x00\x0b")
	got, err := parseModule(b)
	want := ModuleInfo{
		Size: int64(len(b)), Imports: []string{"a.f", "b.g"}, Exports: []string{"_start", "memory"},
		MemoryMin: 65536, MemoryMax: 131072, Functions: 1, Data: len(b) - 4,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for n := 9; n < len(b); n++ {
		_, _ = parseModule(b[:n])
	}
	if _, err := parseModule(append(b, 2, 200)); err == nil {
		t.Error("a section that is cut was accepted")
	}
}

func FuzzParseModule(f *testing.F) {
	f.Add(wasm("x"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseModule(b) })
}
