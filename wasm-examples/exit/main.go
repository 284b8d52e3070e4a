// Command exit writes exit.wasm: a guest of a few hundred bytes that prints its arguments and its environment, one a
// line, and exits with the status that its first argument says (0 without one). In C:
//
//	for (i = 0; i < argc; i++) puts(argv[i]);
//	for (i = 0; i < envc; i++) puts(env[i]);
//	exit(argc > 1 ? atoi(argv[1]) : 0);
package main

import . "github.com/wasmpod/wasmpod/wasm-examples/internal/wasmenc"

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

func load(at int) []byte { return Code(Const(at), I32Load, 2, 0) }

func set(local int, code ...any) []byte { return Code(Code(code...), LocalSet, local) }

// printAll prints the strings that one pair of WASI functions returns: the NUL behind each becomes a newline. Too many
// strings for the memory end the guest with status 1.
func printAll(sizes, get int) []byte {
	tooMuch := Code(load(size), Const(buffer), I32GtU, load(count), Const((buffer-pointers)/4), I32GtU, I32Add)
	return Code(
		Const(count), Const(size), Call, sizes, Drop,
		tooMuch, If, Void, Const(1), Call, procExit, End,
		Const(pointers), Const(buffer), Call, get, Drop,
		set(cursor, Const(buffer)),
		set(end, Const(buffer), load(size), I32Add),
		Block, Void, Loop, Void,
		LocalGet, cursor, LocalGet, end, I32GeU, BrIf, 1,
		LocalGet, cursor, I32Load8U, 0, 0, I32Eqz, If, Void,
		LocalGet, cursor, Const('\n'), I32Store8, 0, 0, End,
		set(cursor, LocalGet, cursor, Const(1), I32Add),
		Br, 0, End, End,
		Const(iovec), Const(buffer), I32Store, 2, 0,
		Const(iovec+4), load(size), I32Store, 2, 0,
		Const(1), Const(iovec), Const(1), Const(written), Call, fdWrite, Drop,
	)
}

func main() {
	Module{
		Imports: []Import{Func("args_sizes_get", 2, 1), Func("args_get", 2, 1), Func("environ_sizes_get", 2, 1), Func("environ_get", 2, 1),
			Func("fd_write", 4, 1), Func("proc_exit", 1, 0)},
		Locals: 4,
		Body: Code(
			printAll(argsSizesGet, argsGet),
			// The arguments are still in memory, with newlines behind them: read digits from argv[1] on.
			load(count), Const(1), I32GtU, If, Void,
			set(cursor, load(pointers+4)),
			Block, Void, Loop, Void,
			set(digit, LocalGet, cursor, I32Load8U, 0, 0, Const('0'), I32Sub),
			LocalGet, digit, Const(9), I32GtU, BrIf, 1,
			set(status, LocalGet, status, Const(10), I32Mul, LocalGet, digit, I32Add),
			set(cursor, LocalGet, cursor, Const(1), I32Add),
			Br, 0, End, End, End,
			printAll(environSizesGet, environGet),
			LocalGet, status, Call, procExit,
		),
	}.Main()
}
