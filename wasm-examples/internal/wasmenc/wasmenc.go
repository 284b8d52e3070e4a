// Package wasmenc writes small WebAssembly modules byte by byte, so that the smallest guests need no tool chain but Go
// and compile in microseconds.
package wasmenc

import (
	"fmt"
	"os"
)

// Value types and the opcodes that the guests use.
const (
	I32 = 0x7f

	Block     = 0x02
	Loop      = 0x03
	If        = 0x04
	End       = 0x0b
	Br        = 0x0c
	BrIf      = 0x0d
	Return    = 0x0f
	Call      = 0x10
	Drop      = 0x1a
	LocalGet  = 0x20
	LocalSet  = 0x21
	LocalTee  = 0x22
	I32Load   = 0x28
	I32Load8U = 0x2d
	I32Store  = 0x36
	I32Store8 = 0x3a
	I32Const  = 0x41
	I32Eqz    = 0x45
	I32LtU    = 0x49
	I32GtU    = 0x4b
	I32GeU    = 0x4f
	I32Add    = 0x6a
	I32Sub    = 0x6b
	I32Mul    = 0x6c

	Void = 0x40
)

// Import is one function of wasi_snapshot_preview1; all its parameters are i32. Its function index is its position.
type Import struct {
	Name    string
	Params  int
	Results int
}

// Func is the import of a function.
func Func(name string, params, results int) Import { return Import{name, params, results} }

// Module is a command with one memory of one page, exported as "memory", and one function, exported as "_start".
type Module struct {
	Imports []Import
	Locals  int    // i32 locals of _start
	Body    []byte // without the final End
}

// Uleb is n as unsigned LEB128.
func Uleb(n int) []byte {
	var b []byte
	for {
		c := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Const is the instruction `i32.const n`, for n that is not negative.
func Const(n int) []byte {
	b := []byte{I32Const}
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Code concatenates instructions given as bytes, ints below 256 or byte slices.
func Code(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("wasmenc: %T is not code", p))
		}
	}
	return b
}

func vector(items ...[]byte) []byte {
	b := Uleb(len(items))
	for _, item := range items {
		b = append(b, item...)
	}
	return b
}

func text(s string) []byte { return append(Uleb(len(s)), s...) }

func section(id byte, content []byte) []byte {
	return append(append([]byte{id}, Uleb(len(content))...), content...)
}

// Encode returns the module in the binary format.
func (m Module) Encode() []byte {
	types := [][]byte{{0x60, 0, 0}} // type 0: _start
	var imports [][]byte
	for i, im := range m.Imports {
		t := []byte{0x60}
		for _, n := range []int{im.Params, im.Results} {
			t = append(t, Uleb(n)...)
			for range n {
				t = append(t, I32)
			}
		}
		types = append(types, t)
		imports = append(imports, Code(text("wasi_snapshot_preview1"), text(im.Name), 0, Uleb(i+1)))
	}
	var locals [][]byte
	if m.Locals > 0 {
		locals = append(locals, append(Uleb(m.Locals), I32))
	}
	body := Code(vector(locals...), m.Body, End)
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, vector(types...))...)
	if len(imports) > 0 {
		out = append(out, section(2, vector(imports...))...)
	}
	out = append(out, section(3, vector([]byte{0}))...)
	out = append(out, section(5, vector([]byte{0, 1}))...)
	out = append(out, section(7, vector(Code(text("memory"), 2, 0), Code(text("_start"), 0, Uleb(len(m.Imports)))))...)
	return append(out, section(10, vector(append(Uleb(len(body)), body...)))...)
}

// Main writes the module to the file that the command line names.
func (m Module) Main() {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s OUTPUT.wasm\n", os.Args[0])
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], m.Encode(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
