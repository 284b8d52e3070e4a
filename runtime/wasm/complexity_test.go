package wasm

import (
	"os"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// A Go program's every instruction is understood, and its functions are far
// from the limits; of a module that is cut off, nothing bad comes.
func TestComplexity(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a Go program")
	}
	b, err := os.ReadFile(wasmtest.BuildGo(t, "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(1.5) }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkComplexity(b); err != nil {
		t.Error(err)
	}
	for n := 8; n < len(b); n += 4099 {
		_ = checkComplexity(b[:n])
	}
	functions, branches := 0, 0
	for c := (cursor{b: b, at: 8}); c.at < len(c.b); {
		id, size := c.byte(), c.u32()
		if id != 10 {
			c.skip(size)
			continue
		}
		for range c.u32() {
			end := c.u32()
			end += c.at
			n, _ := c.function(end)
			if c.bad || c.at != end {
				t.Fatalf("function %d: stopped at %d of %d, bad %v", functions, c.at, end, c.bad)
			}
			functions++
			branches = max(branches, n)
		}
		break
	}
	if functions < 100 || branches < 100 {
		t.Errorf("%d functions with at most %d branches", functions, branches)
	}
}
