package wasm

import (
	"context"

	"github.com/tetratelabs/wazero"
)

// smallest is a module of one function that does nothing: enough to make a
// compiler emit and map code.
var smallest = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type 0: no parameters, no results
	"\x03\x02\x01\x00" + // function 0 has type 0
	"\x0a\x04\x01\x02\x00\x0b") // its body

// CompilerSupported tries whether modules can be compiled here: that wazero has
// a compiler for the processor, and that the host lets code be mapped.
func CompilerSupported() (ok bool) {
	defer func() { ok = recover() == nil && ok }()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer r.Close(ctx)
	_, err := r.CompileModule(ctx, smallest)
	return err == nil
}
