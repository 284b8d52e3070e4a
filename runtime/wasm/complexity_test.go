package wasm

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// A Go program's every instruction is understood, and its functions are far
// from the limits; of a module that is cut off, nothing bad comes.
func TestExamineProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a Go program")
	}
	b, err := os.ReadFile(wasmtest.BuildGo(t, "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(1.5) }\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := examine(b)
	if s.light || !s.bounded || s.largest.name == "" || s.largest.branches < 100 || s.largest.index < 10 {
		t.Errorf("%+v", s)
	}
	for n := 8; n < len(b); n += 4099 {
		_ = examine(b[:n])
	}
}

func vec(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

func uleb(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) }

// shaped is a module with an imported function and one of its own, named big.
func shaped(signature, locals int, code string) []byte {
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec("\x02\x60\x00\x00\x60"+uleb(signature)+strings.Repeat("\x7e", signature)+"\x00") +
		"\x02" + vec("\x03"+vec("m")+vec("f")+"\x00\x00"+vec("m")+vec("t")+"\x01\x70\x01\x01\x02"+vec("m")+vec("g")+"\x03\x7f\x00") +
		"\x03" + vec("\x01\x00") +
		"\x0a" + vec("\x01"+vec("\x01"+uleb(locals)+"\x7f"+code+"\x0b")) +
		"\x00" + vec(vec("name")+"\x00"+vec("\x01m")+"\x01"+vec("\x02\x00"+vec("f")+"\x01"+vec("big"))))
}

// withGlobals puts so many globals before the code of a module that is shaped.
func withGlobals(module []byte, n int) []byte {
	before, code, _ := strings.Cut(string(module), "\x03\x02\x01\x00\x0a")
	return []byte(before + "\x03\x02\x01\x00" + "\x06" + vec(uleb(n)+strings.Repeat("\x7f\x01\x41\x00\x0b", n)) + "\x0a" + code)
}

func TestExamineEdges(t *testing.T) {
	const block = "\x02\x40\x0b"
	blocks := func(n int) string { return strings.Repeat(block, n) }
	for _, c := range []struct {
		name           string
		module         []byte
		light, bounded bool
	}{
		{"small", shaped(2, 1, block), true, true},
		{"branches within", shaped(2, 10, blocks(lightBranches)), true, true},
		{"branches beyond", shaped(2, 10, blocks(lightBranches+1)), false, true},
		{"branches times locals within", shaped(2, 100, blocks(100)), true, true},
		{"branches times locals beyond", shaped(2, 101, blocks(100)), false, true},
		{"signature within", shaped(lightSignature, 1, ""), true, true},
		{"signature beyond", shaped(lightSignature+1, 1, ""), false, true},
		{"bytes within", shaped(2, 1, strings.Repeat("\x01", lightFunctionBytes-4)), true, true},
		{"bytes beyond", shaped(2, 1, strings.Repeat("\x01", lightFunctionBytes-3)), false, true},
		{"bounded branches", shaped(2, 1, blocks(boundedBranches)), false, true},
		{"unbounded branches", shaped(2, 1, blocks(boundedBranches+1)), false, false},
		{"bounded product", shaped(2, 500, blocks(1000)), false, true},
		{"unbounded product", shaped(2, 501, blocks(1000)), false, false},
		{"bounded bytes", shaped(2, 1, strings.Repeat("\x01", boundedFunctionBytes-4)), false, true},
		{"unbounded bytes", shaped(2, 1, strings.Repeat("\x01", boundedFunctionBytes-3)), false, false},
		{"br_table", shaped(2, 1, "\x41\x00\x0e"+uleb(1000)+strings.Repeat("\x00", 1001)), false, true},
		{"reloads within", withGlobals(shaped(2, 1, strings.Repeat("\x10\x00", 999)), 499), true, true},
		{"reloads beyond", withGlobals(shaped(2, 1, strings.Repeat("\x10\x00", 999)), 500), false, true},
		{"loops times globals", withGlobals(shaped(2, 1, strings.Repeat("\x03\x40\x0b", 1000)), 499), false, true},
		{"bulk operations times globals", withGlobals(shaped(2, 1, strings.Repeat("\xfc\x0b\x00", 1000)), 499), false, true},
		{"bounded reloads", withGlobals(shaped(2, 1, strings.Repeat("\x10\x00", 2000)), 1999), false, true},
		{"unbounded reloads", withGlobals(shaped(2, 1, strings.Repeat("\x10\x00", 2000)), 2000), false, false},
		{"not understood", shaped(2, 1, "\xff"), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := examine(c.module)
			if s.light != c.light || s.bounded != c.bounded {
				t.Errorf("light %v, bounded %v: %v", s.light, s.bounded, s.largest)
			}
			if s.largest.name != "big" || s.largest.index != 1 {
				t.Errorf("largest is %v", s.largest)
			}
		})
	}
}

func FuzzExamine(f *testing.F) {
	f.Add(shaped(3, 5, "\x02\x40\x0b"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) >= 8 {
			_ = examine(b).largest.String()
		}
	})
}
