// Command exit writes exit.wasm: a guest of a few hundred bytes that prints its arguments and its environment, one a
// line, and exits with the status that its first argument says (0 without one). In C:
//
//	for (i = 0; i < argc; i++) puts(argv[i]);
//	for (i = 0; i < envc; i++) puts(env[i]);
//	exit(argc > 1 ? atoi(argv[1]) : 0);
package main

import w "github.com/wasmpod/wasmpod/wasm-examples/internal/wasmenc"

// Memory: sizes that the host fills in, an iovec, pointers to the strings, the strings.
const (
	count    = 0
	size     = 4
	iovec    = 8
	written  = 16
	pointers = 1024
	buffer   = 32768
)

// Imported functions, by index.
const (
	argsSizesGet = iota
	argsGet
	environSizesGet
	environGet
	fdWrite
	procExit
)

// Locals of _start.
const (
	cursor = iota
	end
	digit
	status
)

func load(at int) []byte { return w.Code(w.Const(at), w.I32Load, 2, 0) }

func set(local int, code ...any) []byte { return w.Code(w.Code(code...), w.LocalSet, local) }

// printAll prints the strings that one pair of WASI functions returns: the NUL behind each becomes a newline. Too many
// strings for the memory end the guest with status 1.
func printAll(sizes, get int) []byte {
	tooMuch := w.Code(load(size), w.Const(buffer), w.I32GtU, load(count), w.Const((buffer-pointers)/4), w.I32GtU, w.I32Add)
	return w.Code(
		w.Const(count), w.Const(size), w.Call, sizes, w.Drop,
		tooMuch, w.If, w.Void, w.Const(1), w.Call, procExit, w.End,
		w.Const(pointers), w.Const(buffer), w.Call, get, w.Drop,
		set(cursor, w.Const(buffer)),
		set(end, w.Const(buffer), load(size), w.I32Add),
		w.Block, w.Void, w.Loop, w.Void,
		w.LocalGet, cursor, w.LocalGet, end, w.I32GeU, w.BrIf, 1,
		w.LocalGet, cursor, w.I32Load8U, 0, 0, w.I32Eqz, w.If, w.Void,
		w.LocalGet, cursor, w.Const('\n'), w.I32Store8, 0, 0, w.End,
		set(cursor, w.LocalGet, cursor, w.Const(1), w.I32Add),
		w.Br, 0, w.End, w.End,
		w.Const(iovec), w.Const(buffer), w.I32Store, 2, 0,
		w.Const(iovec+4), load(size), w.I32Store, 2, 0,
		w.Const(1), w.Const(iovec), w.Const(1), w.Const(written), w.Call, fdWrite, w.Drop,
	)
}

func main() {
	w.Module{
		Imports: []w.Import{w.Func("args_sizes_get", 2, 1), w.Func("args_get", 2, 1), w.Func("environ_sizes_get", 2, 1), w.Func("environ_get", 2, 1),
			w.Func("fd_write", 4, 1), w.Func("proc_exit", 1, 0)},
		Locals: 4,
		Body: w.Code(
			printAll(argsSizesGet, argsGet),
			// The arguments are still in memory, with newlines behind them: read digits from argv[1] on.
			load(count), w.Const(1), w.I32GtU, w.If, w.Void,
			set(cursor, load(pointers+4)),
			w.Block, w.Void, w.Loop, w.Void,
			set(digit, w.LocalGet, cursor, w.I32Load8U, 0, 0, w.Const('0'), w.I32Sub),
			w.LocalGet, digit, w.Const(9), w.I32GtU, w.BrIf, 1,
			set(status, w.LocalGet, status, w.Const(10), w.I32Mul, w.LocalGet, digit, w.I32Add),
			set(cursor, w.LocalGet, cursor, w.Const(1), w.I32Add),
			w.Br, 0, w.End, w.End, w.End,
			printAll(environSizesGet, environGet),
			w.LocalGet, status, w.Call, procExit,
		),
	}.Main()
}
