package wasm

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// depth is depth(n) = n, by n calls of itself, and again(n) = host() + depth(n).
var depth = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x0a\x02\x60\x01\x7f\x01\x7f\x60\x00\x01\x7f" + // types (i32) -> i32, () -> i32
	"\x02\x0a\x01\x04host\x01f\x00\x01" + // import host.f of type 1
	"\x03\x03\x02\x00\x00" +
	"\x07\x11\x02\x05depth\x00\x01\x05again\x00\x02" +
	"\x0a\x21\x02" +
	"\x15\x00\x20\x00\x45\x04\x7f\x41\x00\x05\x20\x00\x41\x01\x6b\x10\x01\x41\x01\x6a\x0b\x0b" +
	"\x09\x00\x10\x00\x20\x00\x10\x01\x6a\x0b")

func newDepth(t *testing.T, host func(context.Context, api.Module) int32) api.Module {
	t.Helper()
	if slowdown > 1 || !CompilerSupported() {
		t.Skip("guests are interpreted here, and have no such stack")
	}
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	t.Cleanup(func() { r.Close(context.Background()) })
	if _, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(host).Export("f").Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := r.Instantiate(ctx, depth)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// A guest's first stack is small, grows as deep as a large one, and grows
// beneath calls that are under way. Should this fail with a new version of
// wazero, look at what shrinkStack knows of it.
func TestSmallStack(t *testing.T) {
	var nested func(mod api.Module) int32
	mod := newDepth(t, func(_ context.Context, mod api.Module) int32 { return nested(mod) })
	call := func(name string, n uint64) uint64 {
		t.Helper()
		f := mod.ExportedFunction(name)
		if !shrinkStack(f) {
			t.Fatal("the stack is not where it was in wazero 1.12")
		}
		if shrinkStack(f) {
			t.Error("a small stack was made small again")
		}
		if size := field(f, "stack").Len(); size != firstStack {
			t.Errorf("%d bytes of stack", size)
		}
		results, err := f.Call(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := f.Call(t.Context(), n); err != nil || again[0] != results[0] {
			t.Errorf("called again: %v, %v", again, err)
		}
		return results[0]
	}
	for _, n := range []uint64{0, 1, 10, 100, 1000, 100_000} {
		if got := call("depth", n); got != n {
			t.Errorf("depth(%d) = %d", n, got)
		}
	}
	nested = func(api.Module) int32 { return int32(call("depth", 5000)) } // on a stack of its own
	if got := call("again", 7000); got != 12000 {
		t.Errorf("again(7000) = %d, want 12000", got)
	}
}

// What has another layout, as the interpreter, keeps what it has.
func TestUnknownStack(t *testing.T) {
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	mod, err := r.Instantiate(ctx, smallest)
	if err != nil {
		t.Fatal(err)
	}
	dropSystem(mod)
	if f := mod.ExportedFunction("f"); f != nil {
		t.Fatal("smallest exports something")
	}
	for _, f := range []api.Function{&struct{ api.Function }{}} {
		if shrinkStack(f) {
			t.Errorf("%T has a stack", f)
		}
	}
}
