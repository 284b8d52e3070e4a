package safepoint_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

const header = "\x00asm\x01\x00\x00\x00"

// sec is a section of a hand-written module.
func sec(id byte, payload string) string {
	return string(id) + string(binary.AppendUvarint(nil, uint64(len(payload)))) + payload
}

// voidFunc is the sections of one function () -> () with this code.
func voidFunc(code string) string {
	body := "\x00" + code + "\x0b"
	return header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") +
		sec(10, "\x01"+string(binary.AppendUvarint(nil, uint64(len(body))))+body)
}

func TestMalformed(t *testing.T) {
	huge := "\xff\xff\xff\xff\x0f"
	for _, c := range []struct{ name, module, want string }{
		{"empty", "", "the file is empty"},
		{"magic", "\x00ASM\x01\x00\x00\x00", "not a WebAssembly module: bad magic"},
		{"three bytes", "\x00as", "not a WebAssembly module: bad magic"},
		{"cut header", "\x00asm\x01", "cut short in its header"},
		{"version", "\x00asm\x02\x00\x00\x00", "unknown version"},
		{"component", "\x00asm\x0d\x00\x01\x00", "a WebAssembly component; wasmpod runs core modules (wasip1)"},
		{"unknown section", header + sec(14, ""), "unknown section 14"},
		{"section too long", header + "\x01\x05\x00", "type section of 5 bytes is cut short"},
		{"section twice", header + sec(1, "\x00") + sec(1, "\x00"), "out of order or given twice"},
		{"elements without a table", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") + sec(9, "\x01\x00\x41\x00\x0b\x01\x00") + sec(10, "\x01\x02\x00\x0b"), "unknown table 0"},
		{"elements in all", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") + sec(9, "\x02"+strings.Repeat("\x01\x00\xe0\xa7\x12"+strings.Repeat("\x00", 300_000), 2)), "300000 elements exceed the limit of 224288"},
		{"undeclared reference", voidFunc("\xd2\x00\x1a"), "function 0 is referred to, but occurs in no export, global or element segment"},
		{"reference to nothing", voidFunc("\xd2\x01\x1a"), "function 1 is referred to"},
		{"functions and exports", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x80\x80\x02"+strings.Repeat("\x00", 1<<15)) +
			sec(7, "\x80\x80\x02"+strings.Repeat("\x00\x00\x00", 1<<15)) + sec(10, "\x80\x80\x02"+strings.Repeat("\x02\x00\x0b", 1<<15)), "32768 exports of a module with 32768 functions are too many"},
		{"order", header + sec(3, "\x00") + sec(1, "\x00"), "out of order"},
		{"trailing bytes", header + sec(1, "\x00\x00"), "1 bytes too many"},
		{"many types", header + sec(1, huge), "4294967295 types declared, but only 0 bytes follow"},
		{"many functions", header + sec(1, "\x01\x60\x00\x00") + sec(3, huge), "4294967295 functions declared"},
		{"many imports", header + sec(2, huge), "4294967295 imports declared"},
		{"many exports", header + sec(7, huge), "4294967295 exports declared"},
		{"many elements", header + sec(9, huge), "4294967295 element segments declared"},
		{"many data", header + sec(11, huge), "4294967295 data segments declared"},
		{"many params", header + sec(1, "\x01\x60"+huge), "4294967295 parameters declared"},
		{"long number", header + sec(1, "\xff\xff\xff\xff\x1f"), "does not fit into 32 bits"},
		{"long name", header + sec(2, "\x01\x7f"), "import module is longer"},
		{"name not UTF-8", header + sec(2, "\x01\x01\xff\x01a\x00\x00"), "import module is not UTF-8"},
		{"function type", header + sec(3, "\x01\x00"), "unknown type 0"},
		{"no body", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00"), "1 functions declared, but 0 bodies given"},
		{"table too large", header + sec(4, "\x01\x70\x00\x80\x80\x80\x80\x08"), "exceed the limit"},
		{"memory too large", header + sec(5, "\x01\x00\x81\x80\x04"), "exceeds the limit of 65536"},
		{"two memories", header + sec(5, "\x02\x00\x01\x00\x01"), "2 memories exceed the limit of 1"},
		{"memory64", header + sec(5, "\x01\x04\x01"), "64-bit memories"},
		{"maximum", header + sec(5, "\x01\x01\x02\x01"), "maximum below its minimum"},
		{"start", header + sec(8, "\x07"), "unknown function 7"},
		{"export", header + sec(7, "\x01\x01a\x02\x00"), `export "a" names something unknown`},
		{"data segment", header + sec(5, "\x01\x00\x01") + sec(11, "\x01\x01"+huge), "data segment of 4294967295 bytes is cut short"},
		{"data count", header + sec(12, "\x05"), "5 data segments declared, but 0 given"},
		{"gc type", header + sec(1, "\x01\x5f\x00"), "garbage-collected types"},
		{"locals", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") + sec(10, "\x01\x08\x01"+huge+"\x7f\x0b"), "4294967295 locals exceed the limit of 50000"},
		{"groups of locals", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") + sec(10, "\x01\x06"+huge+"\x0b"), "groups of locals declared"},
		{"instruction", voidFunc("\xff"), "unknown instruction 0xff"},
		{"bulk", voidFunc("\xfc\x12"), "unknown instruction 0xfc 0x12"},
		{"relaxed SIMD", voidFunc("\xfd\x80\x02"), "relaxed SIMD"},
		{"legacy exceptions", voidFunc("\x06\x40\x0b"), "legacy exception handling"},
		{"label", voidFunc("\x0c\x02"), "unknown label 2"},
		{"branches", voidFunc("\x0e" + huge), "4294967295 branches declared"},
		{"call", voidFunc("\x10\x01"), "unknown function 1"},
		{"local", voidFunc("\x20\x00\x1a"), "unknown local 0"},
		{"the counter", voidFunc("\x23\x00\x1a"), "unknown global 0"},
		{"no memory", voidFunc("\x41\x00\x28\x02\x00\x1a"), "needs a memory"},
		{"else", voidFunc("\x05"), "else without if"},
		{"no end", header + sec(1, "\x01\x60\x00\x00") + sec(3, "\x01\x00") + sec(10, "\x01\x03\x00\x02\x40"), "unexpected end"},
		{"after the end", voidFunc("\x0b\x01"), "goes on after its end"},
		{"nesting", voidFunc(strings.Repeat("\x02\x40", 20000)), "nest deeper than 10000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := safepoint.Rewrite([]byte(c.module), safepoint.Options{})
			var e *safepoint.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || out != nil {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestImports(t *testing.T) {
	module := header + sec(1, "\x01\x60\x00\x00") + sec(2, "\x03\x01a\x01f\x00\x00\x01a\x01m\x02\x00\x01\x01b\x01g\x03\x7f\x00")
	imports, err := safepoint.Imports([]byte(module))
	want := []safepoint.Import{{Module: "a", Name: "f", Kind: "function"}, {Module: "a", Name: "m", Kind: "memory"}, {Module: "b", Name: "g", Kind: "global"}}
	if err != nil || len(imports) != 3 || imports[0] != want[0] || imports[1] != want[1] || imports[2] != want[2] {
		t.Errorf("%v, %v", imports, err)
	}
}

// Sections with positions in the code go, as do malformed names; others stay.
// Functions of one name are told apart by how many parameters they have.
func TestImportName(t *testing.T) {
	types := "\x02\x60\x01\x7f\x00\x60\x02\x7f\x7f\x00"
	module := header + sec(1, types) + sec(2, "\x03\x01h\x01f\x00\x00\x01h\x01f\x00\x01\x01h\x01g\x00\x01")
	rename := func(module, name string, params int) string {
		if name == "f" && params == 2 {
			return module + "-two"
		}
		return name
	}
	out, err := safepoint.Rewrite([]byte(module), safepoint.Options{ImportName: rename})
	if err != nil {
		t.Fatal(err)
	}
	imports, err := safepoint.Imports(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range imports[:3] {
		got = append(got, fmt.Sprint(i.Name, i.Params))
	}
	if want := "f1 h-two2 g2"; strings.Join(got, " ") != want {
		t.Errorf("imports %v, want %s", got, want)
	}
}

func TestCustomSections(t *testing.T) {
	custom := func(name, data string) string { return sec(0, string(rune(len(name)))+name+data) }
	module := voidFunc("") + custom("producers", "gcc") + custom(".debug_info", "SECRET") + custom("reloc.CODE", "SECRET") +
		custom("linking", "SECRET") + custom("name", "\x01\xff") + custom("name", "SECRET")
	out, err := safepoint.Rewrite([]byte(module), safepoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("gcc")) || bytes.Contains(out, []byte("SECRET")) {
		t.Errorf("%q", out)
	}
	again, err := safepoint.Rewrite([]byte(module), safepoint.Options{})
	if err != nil || !bytes.Equal(out, again) {
		t.Error("the same module gives other bytes")
	}
	// A rewritten module is a module like any other.
	if _, err := safepoint.Rewrite(out, safepoint.Options{}); err != nil {
		t.Errorf("rewriting twice: %v", err)
	}
}

func assemble(t testing.TB, wat string) []byte {
	t.Helper()
	return assembleWith(t, wat, "--enable-all")
}

func assembleWith(t testing.TB, wat string, flags ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		wasmtest.Missing(t, "wat2wasm (package wabt) is not installed")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.wat"), filepath.Join(dir, "a.wasm")
	if err := os.WriteFile(in, []byte(wat), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(tool, append(flags, in, "-o", out)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func instantiate(t testing.TB, r wazero.Runtime, wasm []byte) api.Module {
	t.Helper()
	m, err := r.InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// memory.fill and memory.copy in chunks do what the instructions do, at every
// kind of overlap and at the end of memory, and cross safepoints on the way.
func TestBulkMemory(t *testing.T) {
	wasm := assemble(t, `(module (memory (export "memory") 64)
		(func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
		(func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2))))`)
	out, err := safepoint.Rewrite(wasm, safepoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	plainRuntime, _ := newRuntime(t)
	rewrittenRuntime, crossed := newRuntime(t)
	plain, rewritten := instantiate(t, plainRuntime, wasm), instantiate(t, rewrittenRuntime, out)
	ctx := context.Background()
	const size, chunk = 64 << 16, 256 << 10
	for i := uint32(0); i < size; i += 4 {
		for _, m := range []api.Module{plain, rewritten} {
			m.Memory().WriteUint32Le(i, i*2654435761)
		}
	}
	for _, c := range []struct {
		name    string
		a, b, n uint64
	}{
		{"fill", 1, 7, 0}, {"fill", 1, 7, 4096}, {"fill", 100, 9, 4097}, {"fill", 3, 200, 3*chunk + 5}, {"fill", 0, 1, size},
		{"fill", size, 1, 0}, {"fill", size - 10, 1, 11}, {"fill", size - chunk, 5, chunk + 1}, {"fill", 5, 1, 0xffffffff}, {"fill", size + 1, 1, 0},
		{"copy", 0, 1, 2*chunk + 3}, {"copy", 1, 0, 2*chunk + 3}, {"copy", chunk + 7, 0, 3*chunk + 1}, {"copy", 0, chunk + 7, 3*chunk + 1},
		{"copy", 9, 9, size - 9}, {"copy", 0, size - chunk, chunk}, {"copy", 0, size - chunk, chunk + 1}, {"copy", size - chunk, 0, chunk + 1},
		{"copy", 0, 0xfffff000, 0x2000}, {"copy", 0xffffffff, 0, 0xffffffff}, {"copy", 4096, 0, 4096}, {"copy", 100, 90, 20},
	} {
		_, err1 := plain.ExportedFunction(c.name).Call(ctx, c.a, c.b, c.n)
		_, err2 := rewritten.ExportedFunction(c.name).Call(ctx, c.a, c.b, c.n)
		if (err1 == nil) != (err2 == nil) {
			t.Errorf("%v: plain %v, rewritten %v", c, err1, err2)
		}
		m1, _ := plain.Memory().Read(0, size)
		m2, _ := rewritten.Memory().Read(0, size)
		if !bytes.Equal(m1, m2) {
			t.Fatalf("%v: memories differ", c)
		}
		rewritten.Memory().WriteUint32Le(uint32(c.n%size)&^3, 12345)
		plain.Memory().WriteUint32Le(uint32(c.n%size)&^3, 12345)
	}
	for range 4 { // 16 MiB
		if _, err := rewritten.ExportedFunction("fill").Call(ctx, 0, 0, size); err != nil {
			t.Fatal(err)
		}
	}
	if *crossed == 0 {
		t.Error("no safepoint was crossed")
	}
}

// Whatever a guest does for long crosses safepoints.
func TestEverythingIsCharged(t *testing.T) {
	for name, body := range map[string]string{
		"loop":              `(func (export "f") (local i32) (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000000)))))`,
		"recursion":         `(func $f (export "f") (call $g (i32.const 18))) (func $g (param i32) (if (local.get 0) (then (call $g (i32.sub (local.get 0) (i32.const 1))) (call $g (i32.sub (local.get 0) (i32.const 1))))))`,
		"tail calls":        `(func $f (export "f") (call $g (i32.const 1000000))) (func $g (param i32) (if (local.get 0) (then (return_call $g (i32.sub (local.get 0) (i32.const 1))))))`,
		"indirect calls":    `(table funcref (elem $g)) (type $t (func (param i32))) (func $f (export "f") (call $g (i32.const 1000000))) (func $g (param i32) (if (local.get 0) (then (return_call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))`,
		"short loops":       `(func $f (export "f") (local i32) (loop (call $g) (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 20000))))) (func $g (local i32) (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 50)))))`,
		"memory.fill":       `(memory 1024) (func (export "f") (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000000)))`,
		"memory.copy":       `(memory 1024) (func (export "f") (memory.copy (i32.const 0) (i32.const 0x2000000) (i32.const 0x2000000)))`,
		"memory.init":       `(memory 1024) (data $d "x") (func (export "f") (local i32) (loop (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)) (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100000)))))`,
		"table.fill":        `(table 1000000 funcref) (func (export "f") (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1000000)) (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1000000)))`,
		"table.copy":        `(table 1000000 funcref) (func (export "f") (table.copy (i32.const 0) (i32.const 1) (i32.const 999999)) (table.copy (i32.const 1) (i32.const 0) (i32.const 999999)))`,
		"table.grow":        `(table 0 funcref) (func (export "f") (drop (table.grow 0 (ref.null func) (i32.const 500000))) (drop (table.grow 0 (ref.null func) (i32.const 500000))) (drop (table.grow 0 (ref.null func) (i32.const 500000))))`,
		"loop with results": `(func (export "f") (local i32) (drop (loop (result i32) (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000000))) (local.get 0))))`,
		"loop with params":  `(func (export "f") (local i32) (i32.const 1000000) (loop (param i32) (i32.const 1) (i32.sub) (local.tee 0) (local.get 0) (br_if 0) (drop)))`,
	} {
		t.Run(name, func(t *testing.T) {
			out, err := safepoint.Rewrite(assemble(t, "(module "+body+")"), safepoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, crossed := newRuntime(t)
			if _, err := instantiate(t, r, out).ExportedFunction("f").Call(context.Background()); err != nil {
				t.Fatal(err)
			}
			if *crossed == 0 {
				t.Error("no safepoint was crossed")
			}
			t.Logf("%d safepoints", *crossed)
		})
	}
}

// A reference to a function is the same each time and works like any other, in
// modules with and without tables and segments of their own.
func TestReferences(t *testing.T) {
	const calls = `(type $r (func (result i32)))
		(func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
		(global $last (mut funcref) (ref.null func))
		(func (export "null") (result i32) (ref.is_null (ref.func $two)))
		(func (export "set") (param i32) (global.set $last (select (result funcref) (ref.func $one) (ref.func $two) (local.get 0))))
		(func (export "get") (result i32) (table.set $t (i32.const 0) (global.get $last)) (call_indirect $t (type $r) (i32.const 0)))
		(func (export "import") (table.set $t (i32.const 0) (ref.func $host)) (call_indirect $t (type $v) (i32.const 0)))`
	const host = `(type $v (func)) (import "host" "f" (func $host))`
	for name, module := range map[string]string{
		"a table":    host + `(table $t 1 funcref) (elem declare func $one $two $host)` + calls,
		"more":       host + `(table $t 1 funcref) (table $u 3 funcref) (elem (table $u) (i32.const 1) func $two) (elem $p func $one $host)` + calls + `(func (export "init") (table.init $u $p (i32.const 0) (i32.const 0) (i32.const 1)) (elem.drop $p))`,
		"externrefs": host + `(table $u 1 externref) (table $t 1 funcref) (global funcref (ref.func $one)) (export "two" (func $two)) (export "host" (func $host))` + calls,
	} {
		t.Run(name, func(t *testing.T) {
			rewritten, err := safepoint.Rewrite(assembleWith(t, "(module "+module+")"), safepoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			r, _ := newRuntime(t)
			called := 0
			if _, err := r.NewHostModuleBuilder("host").NewFunctionBuilder().WithFunc(func() { called++ }).Export("f").Instantiate(ctx); err != nil {
				t.Fatal(err)
			}
			m := instantiate(t, r, rewritten)
			call := func(name string, args ...uint64) uint64 {
				t.Helper()
				f := m.ExportedFunction(name)
				if f == nil {
					return 0
				}
				result, err := f.Call(ctx, args...)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return append(result, 0)[0]
			}
			call("init")
			for _, which := range []uint64{1, 0, 1} {
				call("set", which)
				if got, want := call("get"), 2-which; got != want {
					t.Errorf("got function %d, want %d", got, want)
				}
			}
			if call("null") != 0 {
				t.Error("a reference is null")
			}
			if call("import"); called != 1 {
				t.Errorf("the host was called %d times", called)
			}
		})
	}
}

func TestTableLimit(t *testing.T) {
	wasm := assemble(t, `(module (table $a 10 funcref) (table $b 0 5 externref)
		(func (export "a") (param i32) (result i32) (table.grow $a (ref.null func) (local.get 0)))
		(func (export "b") (param i32) (result i32) (table.grow $b (ref.null extern) (local.get 0))))`)
	out, err := safepoint.Rewrite(wasm, safepoint.Options{TableElements: 100})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newRuntime(t)
	m := instantiate(t, r, out)
	for _, c := range []struct {
		f    string
		n    uint64
		want uint32
	}{{"a", 40, 10}, {"a", 1, 0xffffffff}, {"b", 5, 0}, {"b", 1, 0xffffffff}, {"a", 0xffffffff, 0xffffffff}} {
		got, err := m.ExportedFunction(c.f).Call(context.Background(), c.n)
		if err != nil || uint32(got[0]) != c.want {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
}
