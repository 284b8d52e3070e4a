package wasm

import (
	"encoding/binary"
	"fmt"
)

// The largest functions of esbuild, SQLite and Go's compiler have 13,000
// branches, and 190,000 branches times locals. At these limits wazero takes some
// 15 s for a function: its time grows with the square of the blocks, and with
// blocks times locals.
const (
	maxBranches       = 30_000
	maxBranchesLocals = 4_000_000
)

// checkComplexity refuses modules with a function that the compiler takes too
// long for. The module has been checked to be well-formed; what is not
// understood all the same is left to the compiler.
func checkComplexity(module []byte) error {
	const codeSection = 10
	for c := (cursor{b: module, at: 8}); c.at < len(c.b); {
		id, size := c.byte(), c.u32()
		if id != codeSection {
			c.skip(size)
			continue
		}
		for n, count := 0, c.u32(); n < count && !c.bad; n++ {
			end := c.u32()
			end += c.at
			branches, locals := c.function(end)
			if branches > maxBranches || branches*locals > maxBranchesLocals {
				return fmt.Errorf("function %d of its code, with %d branches and %d locals, is too complex to compile", n, branches, locals)
			}
			c.at = end
		}
		break
	}
	return nil
}

// cursor reads a module. Beyond the end, or when something is wrong, it is bad
// and reads zeros.
type cursor struct {
	b   []byte
	at  int
	bad bool
}

func (c *cursor) skip(n int) {
	if n < 0 || n > len(c.b)-c.at {
		c.bad = true
		c.at = len(c.b)
		return
	}
	c.at += n
}

func (c *cursor) byte() byte {
	if c.skip(1); c.bad {
		return 0
	}
	return c.b[c.at-1]
}

func (c *cursor) u32() int {
	v, n := binary.Uvarint(c.b[c.at:])
	if c.skip(max(n, 1)); c.bad || n <= 0 || v > 1<<32-1 {
		c.bad = true
		return 0
	}
	return int(v)
}

// leb skips so many numbers, of whatever size and sign.
func (c *cursor) leb(count int) {
	for ; count > 0 && !c.bad; count-- {
		for c.byte()&0x80 != 0 && !c.bad {
		}
	}
}

// function counts the blocks and the targets of branches of a function, which
// begins with its locals.
func (c *cursor) function(end int) (branches, locals int) {
	for range c.u32() {
		locals += c.u32()
		if c.leb(1); c.bad {
			return 0, 0
		}
	}
	for c.at < end && !c.bad {
		switch op := c.byte(); {
		case op >= 0x02 && op <= 0x04, op == 0x0c, op == 0x0d: // block, loop, if, br, br_if
			branches++
			c.leb(1)
		case op == 0x0e: // br_table
			n := c.u32() + 1
			branches += n
			c.leb(n)
		case op == 0x1c: // select with types
			c.leb(c.u32())
		case op == 0x43: // f32.const
			c.skip(4)
		case op == 0x44: // f64.const
			c.skip(8)
		case op == 0x11 || op == 0x13, op >= 0x28 && op <= 0x3e: // call_indirect, loads and stores
			c.leb(2)
		case op == 0x10 || op == 0x12, op >= 0x20 && op <= 0x26, op >= 0x3f && op <= 0x42, op == 0xd0, op == 0xd2:
			c.leb(1)
		case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
		case op == 0xfc:
			if sub := c.u32(); sub >= 8 && sub <= 17 {
				c.leb([]int{2, 1, 2, 1, 2, 1, 2, 1, 1, 1}[sub-8])
			}
		case op == 0xfd:
			c.simd()
		case op == 0xfe:
			if c.u32() == 3 { // fence
				c.skip(1)
			} else {
				c.leb(2)
			}
		default: // not supported: the compiler says so
			c.bad = true
		}
	}
	return branches, locals
}

func (c *cursor) simd() {
	switch sub := c.u32(); {
	case sub <= 11, sub == 92, sub == 93: // loads and store
		c.leb(2)
	case sub == 12, sub == 13: // constant, shuffle
		c.skip(16)
	case sub >= 21 && sub <= 34: // lanes
		c.skip(1)
	case sub >= 84 && sub <= 91: // loads and stores of lanes
		c.leb(2)
		c.skip(1)
	}
}
