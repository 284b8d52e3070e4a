package wasm

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Up to here a module is light: no function takes more than a second and 100 MB
// to compile, measured with the worst shapes that were found, and all together
// take little more. Ordinary small C programs are light.
const (
	lightModuleBytes    = 128 << 10
	lightFunctionBytes  = 32 << 10
	lightBranches       = 1_000
	lightBranchesLocals = 10_000
	lightSignature      = 32 // parameters and results
	lightReloads        = 500_000
)

// Up to here it is bounded: some 15 s and 1 GiB for a function. The largest
// functions of esbuild, SQLite and Go's compiler have 13,000 branches, and
// 190,000 branches times locals.
const (
	boundedFunctionBytes  = 512 << 10
	boundedBranches       = 15_000
	boundedBranchesLocals = 500_000
	boundedReloads        = 4_000_000
)

// shape is what a module looks like to a compiler. wazero's memory grows with a
// function's code, and its time with the square of the blocks, blocks times
// locals, and more than that where loops nest. After each call it loads each
// global again (14 KB with 2,000 calls and as many globals take 680 MiB): reloads
// are that product, of all functions where a module is to be light.
type shape struct {
	light, bounded bool
	largest        function
}

// function is one function of a module.
type function struct {
	index                   int // imported functions come first
	name                    string
	bytes, branches, locals int
	calls                   int // or what is one to the compiler
}

func (f function) String() string {
	name := ""
	if f.name != "" {
		name = fmt.Sprintf(" (%s)", f.name)
	}
	return fmt.Sprintf("number %d%s, with %d bytes of code, %d branches and %d locals", f.index, name, f.bytes, f.branches, f.locals)
}

// weight orders functions by how long they may take to compile.
func (f function) weight() int { return f.bytes + f.branches*(f.locals+f.branches/8+1) }

// examine looks at a module, which has been checked to be well-formed. One that
// is not understood all the same is neither light nor bounded.
func examine(module []byte) shape {
	const typeSection, importSection, globalSection, codeSection = 1, 2, 6, 10
	s := shape{light: len(module) <= lightModuleBytes, bounded: true}
	imported, globals, reloads := 0, 1, 0 // one is for the safepoints
	c := cursor{b: module, at: 8}
	for c.at < len(c.b) && !c.bad {
		id, size := c.byte(), c.u32()
		end := c.at + size
		switch id {
		case typeSection:
			s.light = s.light && c.signature() <= lightSignature
		case importSection:
			imported = c.importedFunctions()
		case globalSection:
			globals += c.u32()
		case codeSection:
			for n, count := 0, c.u32(); n < count && !c.bad; n++ {
				size := c.u32()
				end := c.at + size
				f := function{index: imported + n, bytes: size}
				c.function(end, &f)
				reloads += (f.calls + 1) * globals
				s.light = s.light && reloads <= lightReloads && f.bytes <= lightFunctionBytes && f.branches <= lightBranches && f.branches*f.locals <= lightBranchesLocals
				s.bounded = s.bounded && f.calls*globals <= boundedReloads && f.bytes <= boundedFunctionBytes && f.branches <= boundedBranches && f.branches*f.locals <= boundedBranchesLocals
				if n == 0 || f.weight() > s.largest.weight() {
					s.largest = f
				}
				c.at = end
			}
		}
		if c.at = end; end < 0 || end > len(c.b) {
			c.bad = true
		}
	}
	s.light, s.bounded = s.light && !c.bad, s.bounded && !c.bad
	s.largest.name = functionName(module, s.largest.index)
	return s
}

// signature is the largest number of parameters and results in a type section;
// it is large for what it does not understand.
func (c *cursor) signature() (most int) {
	for n := c.u32(); n > 0 && !c.bad; n-- {
		if c.byte() != 0x60 {
			return lightSignature + 1
		}
		sum := 0
		for range 2 { // parameters, results
			count := c.u32()
			sum += count
			c.skip(count) // of the types wasmpod accepts, each is one byte
		}
		most = max(most, sum)
	}
	return most
}

func (c *cursor) importedFunctions() (functions int) {
	for n := c.u32(); n > 0 && !c.bad; n-- {
		c.skip(c.u32())
		c.skip(c.u32())
		switch c.byte() {
		case 0:
			functions++
			c.leb(1)
		case 1:
			c.skip(1)
			c.limits()
		case 2:
			c.limits()
		case 3:
			c.skip(2)
		default:
			c.bad = true
		}
	}
	return functions
}

func (c *cursor) limits() {
	if c.byte()&1 != 0 {
		c.leb(1)
	}
	c.leb(1)
}

// maxFunctionName bounds a name in a message.
const maxFunctionName = 100

// functionName finds a function's name in the name section, if there is one.
func functionName(module []byte, index int) string {
	const customSection, functionNames = 0, 1
	for c := (cursor{b: module, at: 8}); c.at < len(c.b) && !c.bad; {
		id, size := c.byte(), c.u32()
		if end := c.at + size; id == customSection && end <= len(c.b) {
			section := cursor{b: c.b[:end], at: c.at}
			if n := section.u32(); n == 4 && strings.HasPrefix(string(section.b[section.at:]), "name") {
				section.skip(n)
				for section.at < end && !section.bad {
					kind, length := section.byte(), section.u32()
					if kind != functionNames {
						section.skip(length)
						continue
					}
					for range section.u32() {
						f, length := section.u32(), section.u32()
						at := section.at
						if section.skip(length); section.bad || f >= index {
							if !section.bad && f == index {
								return strings.ToValidUTF8(string(section.b[at:at+min(length, maxFunctionName)]), "\ufffd")
							}
							return "" // they are in order
						}
					}
				}
			}
		}
		c.skip(size)
	}
	return ""
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
	if c.bad {
		return 0
	}
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

// function counts the blocks, the targets of branches and the calls of a
// function, which begins with its locals. Loops and bulk operations are calls,
// too: that is how they are charged.
func (c *cursor) function(end int, f *function) {
	for range c.u32() {
		f.locals += c.u32()
		if c.leb(1); c.bad {
			f.locals = 0
			return
		}
	}
	for c.at < end && !c.bad {
		op := c.byte()
		if op == 0x03 || op >= 0x10 && op <= 0x13 || op == 0x40 || op == 0xfc || op == 0xfe { // loop, calls, memory.grow
			f.calls++
		}
		switch {
		case op >= 0x02 && op <= 0x04, op == 0x0c, op == 0x0d: // block, loop, if, br, br_if
			f.branches++
			c.leb(1)
		case op == 0x0e: // br_table
			n := c.u32() + 1
			f.branches += n
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
