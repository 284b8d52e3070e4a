package wasm_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// OOM-06: what is charged for the parts of an instance that are not linear memory is
// not less than they take.
func TestChargesAreWhatInstancesTake(t *testing.T) {
	if raceEnabled || testing.Short() || !wasm.CompilerSupported() {
		t.Skip("skipped: the interpreter's instances are others")
	}
	const n = 20_000
	repeat := func(text string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, text, i)
		}
		return b.String()
	}
	e := newEngine(t, wasm.Config{})
	for name, parts := range map[string]string{
		"globals":              repeat("(global (mut i64) (i64.const %d))\n"),
		"exported globals":     repeat(`(global (export "g%d") (mut i32) (i32.const 0))` + "\n"),
		"vectors":              repeat("(global (mut v128) (v128.const i64x2 1 %d))\n"),
		"a table":              fmt.Sprintf("(table %d funcref)", 50*n),
		"a table of externref": fmt.Sprintf("(table %d externref)", 50*n),
		"segments of data":     strings.Repeat(`(data "")`+"\n", n),
		"segments of elements": "(table 1 funcref)" + strings.Repeat("(elem func"+strings.Repeat(" $f", 500)+")\n", 100),
	} {
		t.Run("OOM-06 "+name, func(t *testing.T) {
			path := wasmtest.BuildWAT(t, `(module
				(import "test" "call" (func $call (param i32) (result i32)))
				(memory 1)
				`+parts+`
				(func $f)
				(func (export "_start") (local $i i32)
					(loop $l ;; until it has come to a safepoint
						(local.set $i (i32.add (local.get $i) (i32.const 1)))
						(br_if $l (i32.lt_u (local.get $i) (i32.const 20000000))))
					(drop (call $call (i32.const 0)))))`)
			m, err := e.Compile(t.Context(), "sha256:"+name, func() ([]byte, error) { return os.ReadFile(path) })
			if err != nil {
				t.Fatal(err)
			}
			defer m.Release()
			heap := func() int64 {
				runtime.GC()
				runtime.GC()
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				return int64(s.HeapAlloc)
			}
			account := wasm.NewAccount(0)
			before := heap()
			i, err := e.Start(t.Context(), m, wasm.InstanceConfig{Account: account, Context: func(ctx context.Context) context.Context {
				return context.WithValue(ctx, callKey{}, callFunc(func(context.Context, api.Module, int32) int32 {
					const memory, least = 64 << 10, 64 << 10 // of which what any instance takes, see RATIONALE.md
					took, paid := heap()-before, account.Used()-memory
					t.Logf("%d bytes, charged %d", took, paid)
					if took > paid+least {
						t.Errorf("%d bytes are taken, %d charged", took, paid)
					}
					return 0
				}))
			}})
			if err != nil {
				t.Fatal(err)
			}
			wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		})
	}
}

// ref.func costs nothing, however often it is executed: wazero would keep
// something for each time.
func TestReferencesToFunctions(t *testing.T) {
	if raceEnabled {
		t.Skip("skipped: takes seconds in the interpreter")
	}
	path := wasmtest.BuildWAT(t, `(module (memory 1)
		(func $f) (elem declare func $f)
		(func (export "_start") (local $i i32) (loop $l
			(drop (ref.func $f))
			(br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3000000))))))`)
	e := newEngine(t, wasm.Config{})
	m, err := e.Compile(t.Context(), "sha256:references", func() ([]byte, error) { return os.ReadFile(path) })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	account := wasm.NewAccount(1 << 20)
	i, err := e.Start(t.Context(), m, wasm.InstanceConfig{Account: account})
	if err != nil {
		t.Fatal(err)
	}
	wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	if peak := account.Peak(); peak > 1<<16+1000 {
		t.Errorf("%d bytes were charged, more than its memory", peak)
	}
}

// OOM-06: what an instance has at once is charged before it is made.
func TestElementsAreChargedBefore(t *testing.T) {
	const elements = 500_000
	module := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec("\x01\x60\x00\x00") + "\x03" + vec("\x01\x00") +
		"\x07" + vec("\x01\x06_start\x00\x00") +
		"\x09" + vec("\x01\x01\x00"+string(binary.AppendUvarint(nil, elements))+strings.Repeat("\x00", elements)) +
		"\x0a" + vec("\x01"+vec("\x00\x0b")))
	e := newEngine(t, wasm.Config{})
	m, err := e.Compile(t.Context(), "sha256:elements", func() ([]byte, error) { return module, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	allocated := func() uint64 {
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.TotalAlloc
	}
	before := allocated()
	i := start(t, e, m, 8<<20, nil)
	wantExit(t, i, wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 8388608 bytes exceeded"})
	if took := allocated() - before; took > 4<<20 { // they take 12 MB; others of this process may do something, too
		t.Errorf("%d bytes were allocated by who may have none of them", took)
	}
	wantExit(t, start(t, e, m, 64<<20, nil), wasm.Exit{Reason: wasm.ReasonCompleted})
}
