package safepoint_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// fuel runs the function "run" of a rewritten module, and returns what it was
// charged. The budget is the module's last global.
func fuel(t *testing.T, config wazero.RuntimeConfig, wasm []byte, budget uint32) int64 {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(features|experimental.CoreFeaturesExceptionHandling))
	defer r.Close(ctx)
	sum, left := int64(0), int64(safepoint.Budget)
	read := func(m api.Module) {
		im := m.(experimental.InternalModule)
		now := int64(int32(im.Global(im.NumGlobal() - 1).Get()))
		sum, left = sum+left-now, now
	}
	_, err := r.NewHostModuleBuilder(safepoint.HostModule).NewFunctionBuilder().
		WithFunc(func(_ context.Context, m api.Module, _ uint32) uint32 {
			read(m)
			left = int64(budget)
			return budget
		}).Export(safepoint.HostSafepoint).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExportedFunction("run").Call(ctx); err != nil {
		t.Fatal(err)
	}
	read(m)
	return sum
}

// What a guest is charged lies between the code that it runs and a small
// multiple of that, whatever shape the code has, and depends on neither the
// engine nor the budgets.
func TestFuel(t *testing.T) {
	const rounds = 1000
	nops := func(bytes int) string { return strings.Repeat("nop ", bytes) }
	loop := func(body string) string {
		return fmt.Sprintf(`(local $i i32) (loop $top %s
			(br_if $top (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const %d))))`, body, rounds)
	}
	// As an interpreter has it: of 50 cases of 640 bytes each round takes one.
	cases := "(br_table"
	for i := range 50 {
		cases += fmt.Sprintf(" %d", i)
	}
	cases += " (i32.rem_u (local.get $i) (i32.const 49)))"
	for range 50 {
		cases = "(block " + cases + ")" + nops(640) + "(br $done)"
	}
	chain := ""
	for range 40 {
		chain += "(block (br_if 0 (i32.const 0))" + nops(160) + ")"
	}
	for _, c := range []struct {
		name, wat string
		code      int64 // bytes that run
		most      int64 // as a multiple of that
	}{
		{"a long body", `(func (export "run") ` + loop(nops(6400)) + `)`, rounds * 6400, 2},
		{"many blocks", `(func (export "run") ` + loop(chain) + `)`, rounds * 6400, 2},
		{"an interpreter", `(func (export "run") ` + loop("(block $done "+cases+")") + `)`, rounds * 640, 4},
		{"a jump back from within", `(func (export "run") (local $i i32) (loop $top (block $out (loop $inner
			(br_if $out (i32.gt_u (local.get $i) (i32.const ` + fmt.Sprint(rounds) + `)))
			(local.set $i (i32.add (local.get $i) (i32.const 1))) ` + nops(6400) + ` (br $top)))))`, rounds * 6400, 2},
		{"calls", `(func $f ` + nops(6400) + `) (func (export "run") ` + loop("(call $f)") + `)`, rounds * 6400, 2},
		{"a loop in a call", `(func $f (local $i i32) (loop $l ` + nops(640) + `
			(br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10)))))
			(func (export "run") ` + loop("(call $f)") + `)`, rounds * 640, 10},
		{"tail calls", `(func $f (param $i i32) ` + nops(6400) + `
			(if (i32.lt_u (local.get $i) (i32.const ` + fmt.Sprint(rounds) + `)) (then (return_call $f (i32.add (local.get $i) (i32.const 1))))))
			(func (export "run") (call $f (i32.const 0)))`, rounds * 6400, 2},
		{"a caught exception", throwing(rounds, strings.Repeat("\x01", 6400)+"\x08\x00", "\x01"), rounds * 6400, 2},
		{"a caught exception of a call", throwing(rounds, "\x10\x01\x00", strings.Repeat("\x01", 6400)+"\x10\x02\x00"), rounds * 6400, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			wasm := []byte(c.wat)
			if !strings.HasPrefix(c.wat, header) {
				wasm = assemble(t, "(module "+c.wat+")")
			}
			rewritten, err := safepoint.Rewrite(wasm, safepoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			const unit = 64
			got := fuel(t, wazero.NewRuntimeConfigInterpreter(), rewritten, safepoint.Budget)
			if least := c.code / unit / 2; got < least || got > c.code/unit*c.most {
				t.Errorf("charged %d for %d units of code, want %d to %d", got, c.code/unit, least, c.code/unit*c.most)
			}
			for _, budget := range []uint32{1, 1000, 1 << 20} {
				if again := fuel(t, wazero.NewRuntimeConfig(), rewritten, budget); again != got {
					t.Errorf("charged %d with budgets of %d, the interpreter %d", again, budget, got)
				}
			}
		})
	}
}

// throwing is a module, in binary as wat2wasm does not know try_table, whose
// function 0 catches what try throws, over and over. Function 1 is given, and
// function 2 throws.
func throwing(rounds int, try, function string) string {
	count := string(binary.AppendUvarint(nil, uint64(rounds)))
	run := "\x01\x01\x7f\x03\x40" + // a local; loop
		"\x02\x40\x1f\x40\x01\x00\x00\x00" + try + "\x0b\x0b" + // block (try_table (catch 0 0) …)
		"\x20\x00\x41\x01\x6a\x22\x00\x41" + count + "\x49\x0d\x00\x0b\x0b"
	code := ""
	for _, body := range []string{run, "\x00" + function + "\x0b", "\x00\x08\x00\x0b"} {
		code += string(binary.AppendUvarint(nil, uint64(len(body)))) + body
	}
	return header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x03\x00\x00\x00") + sec(13, "\x01\x00\x00") +
		sec(7, "\x01\x03run\x00\x00") + sec(10, "\x03"+code)
}
