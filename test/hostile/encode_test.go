package hostile

import (
	"encoding/binary"
	"strconv"
)

// Opcodes that the modules use.
const (
	opBlock      = 0x02
	opLoop       = 0x03
	opIf         = 0x04
	opEnd        = 0x0b
	opBr         = 0x0c
	opBrIf       = 0x0d
	opBrTable    = 0x0e
	opCall       = 0x10
	opIndirect   = 0x11
	opReturnCall = 0x12
	opDrop       = 0x1a
	opLocalGet   = 0x20
	opLocalSet   = 0x21
	opI32Load    = 0x28
	opI64Load    = 0x29
	opI32Store   = 0x36
	opI64Store   = 0x37
	opMemoryGrow = 0x40
	opI32Const   = 0x41
	opI32Add     = 0x6a
	opI64Add     = 0x7c
	opI64Mul     = 0x7e
	opRefNull    = 0xd0
	opRefFunc    = 0xd2
	opMisc       = 0xfc
	opAtomic     = 0xfe

	typeVoid    = 0x40
	typeFuncref = 0x70
	typeI64     = 0x7e
	typeI32     = 0x7f
)

// A module has one type, () -> (), which all its functions are of; the first of
// them is _start.
type module struct {
	imports []string // functions of a module that is not there
	funcs   [][]byte // code, locals included, without the last end
	memory  []byte   // limits; nil: one page
	table   []byte   // limits; nil: none
	globals int
	elems   int  // elements of a passive segment, each of which is _start
	data    int  // passive data segments
	exports int  // further names of _start
	start   bool // _start is the start function, too
}

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// i32 is i32.const n.
func i32(n int) []byte {
	b := []byte{opI32Const}
	for v := int64(int32(n)); ; {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// code concatenates opcodes, bytes and further code.
func code(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case []byte:
			b = append(b, p...)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

// function is code with this many locals of type i64.
func function(locals int, parts ...any) []byte {
	if locals == 0 {
		return code(append([]any{0}, parts...)...)
	}
	return code(append([]any{1, uleb(locals), typeI64}, parts...)...)
}

// repeat is code n times; each is given its number.
func repeat(n int, each func(i int) []byte) []byte {
	var b []byte
	for i := range n {
		b = append(b, each(i)...)
	}
	return b
}

func sized(b []byte) []byte { return append(uleb(len(b)), b...) }

func vector(n int, each func(i int) []byte) []byte { return append(uleb(n), repeat(n, each)...) }

func section(id int, content []byte) []byte { return code(id, sized(content)) }

func (m module) encode() []byte {
	memory := m.memory
	if memory == nil {
		memory = []byte{0, 1}
	}
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, []byte{1, 0x60, 0, 0})...)
	if len(m.imports) > 0 {
		b = append(b, section(2, vector(len(m.imports), func(i int) []byte {
			return code(sized([]byte("none")), sized([]byte(m.imports[i])), 0, 0)
		}))...)
	}
	b = append(b, section(3, vector(len(m.funcs), func(int) []byte { return []byte{0} }))...)
	if m.table != nil {
		b = append(b, section(4, code(1, typeFuncref, m.table))...)
	}
	b = append(b, section(5, code(1, memory))...)
	if m.globals > 0 {
		b = append(b, section(6, vector(m.globals, func(int) []byte { return code(typeI32, 1, i32(0), opEnd) }))...)
	}
	exports := vector(2+m.exports, func(i int) []byte {
		switch i {
		case 0:
			return code(sized([]byte("_start")), 0, 0)
		case 1:
			return code(sized([]byte("memory")), 2, 0)
		}
		return code(sized(strconv.AppendInt([]byte("e"), int64(i), 10)), 0, 0)
	})
	b = append(b, section(7, exports)...)
	if m.start {
		b = append(b, section(8, []byte{0})...)
	}
	switch {
	case m.table != nil: // its first element is _start
		b = append(b, section(9, code(1, 0, i32(0), opEnd, 1, 0))...)
	case m.elems > 0:
		b = append(b, section(9, code(1, 1, 0, uleb(m.elems), make([]byte, m.elems)))...)
	}
	if m.data > 0 {
		b = append(b, section(12, uleb(m.data))...)
	}
	b = append(b, section(10, vector(len(m.funcs), func(i int) []byte { return sized(code(m.funcs[i], opEnd)) }))...)
	if m.data > 0 {
		b = append(b, section(11, vector(m.data, func(int) []byte { return []byte{1, 1, 'x'} }))...)
	}
	return b
}
