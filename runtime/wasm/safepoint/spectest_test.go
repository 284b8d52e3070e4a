package safepoint_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// hostBudget is what the tests' safepoint returns: little, so that after the
// first budget many are crossed.
const hostBudget = 100

// newRuntime returns a runtime with the host functions of rewritten modules and
// a counter of safepoints crossed.
func newRuntime(t testing.TB) (wazero.Runtime, *int) {
	t.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfig()
	if raceEnabled {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(features))
	t.Cleanup(func() { _ = r.Close(ctx) })
	crossed := new(int)
	wait := func(context.Context, uint32, uint32, int64, uint32) uint32 { return 1 }
	wait64 := func(context.Context, uint32, uint64, int64, uint32) uint32 { return 1 }
	_, err := r.NewHostModuleBuilder(safepoint.HostModule).
		NewFunctionBuilder().WithFunc(func(context.Context, uint32) uint32 { *crossed++; return hostBudget }).Export(safepoint.HostSafepoint).
		NewFunctionBuilder().WithFunc(wait).Export(safepoint.HostWait32).
		NewFunctionBuilder().WithFunc(wait64).Export(safepoint.HostWait64).
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return r, crossed
}

// world is a set of modules that may import one another.
type world struct {
	runtime    wazero.Runtime
	ctx        context.Context
	registered map[string]api.Module
	named      map[string]api.Module
	current    api.Module
}

func newWorld(t *testing.T, r wazero.Runtime, rewrite func([]byte) []byte) *world {
	w := &world{runtime: r, registered: map[string]api.Module{}, named: map[string]api.Module{}}
	w.ctx = experimental.WithImportResolver(context.Background(), func(name string) api.Module { return w.registered[name] })
	host, err := os.ReadFile(filepath.Join(wazeroDir(), "internal/integration_test/spectest/testdata/spectest.wasm"))
	if err != nil {
		t.Skip("wazero's sources come without spectest")
	}
	if err := w.instantiate(rewrite(host), ""); err != nil {
		t.Fatal(err)
	}
	w.registered["spectest"] = w.current
	return w
}

func (w *world) instantiate(wasm []byte, name string) error {
	code, err := w.runtime.CompileModule(w.ctx, wasm)
	if err != nil {
		return err
	}
	m, err := w.runtime.InstantiateModule(w.ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return err
	}
	w.current = m
	if name != "" {
		w.named[name] = m
	}
	return nil
}

type specValue struct {
	Type     string          `json:"type"`
	LaneType string          `json:"lane_type"`
	Value    json.RawMessage `json:"value"`
}

type specCommand struct {
	Type     string `json:"type"`
	Line     int    `json:"line"`
	Name     string `json:"name"`
	As       string `json:"as"`
	Filename string `json:"filename"`
	Action   struct {
		Type   string      `json:"type"`
		Module string      `json:"module"`
		Field  string      `json:"field"`
		Args   []specValue `json:"args"`
	} `json:"action"`
}

func (v specValue) words(t *testing.T) []uint64 {
	t.Helper()
	number := func(s string) uint64 {
		if s == "null" {
			return 0
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if v.Type == "v128" {
		var lanes []string
		if err := json.Unmarshal(v.Value, &lanes); err != nil {
			t.Fatal(err)
		}
		bits := 128 / len(lanes)
		words := make([]uint64, 2)
		for i, lane := range lanes {
			words[i*bits/64] |= number(lane) << (i * bits % 64)
		}
		return words
	}
	var s string
	if err := json.Unmarshal(v.Value, &s); err != nil {
		t.Fatal(err)
	}
	n := number(s)
	if v.Type == "externref" && s != "null" {
		n++ // wazero takes 0 for null
	}
	return []uint64{n}
}

// outcome is what an action did, in a form to compare.
func (w *world) outcome(c specCommand, args []uint64) (string, []api.ValueType, []uint64) {
	m := w.current
	if c.Action.Module != "" {
		m = w.named[c.Action.Module]
	}
	if m == nil {
		return "no module", nil, nil
	}
	if c.Action.Type == "get" {
		g := m.ExportedGlobal(c.Action.Field)
		return "", []api.ValueType{g.Type()}, []uint64{g.Get()}
	}
	f := m.ExportedFunction(c.Action.Field)
	if f == nil {
		return "no function", nil, nil
	}
	results, err := f.Call(w.ctx, args...)
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return text, nil, nil
	}
	return "", f.Definition().ResultTypes(), results
}

// Every module and every call of the WebAssembly test suite does the same
// rewritten as it does in its original form.
func TestSpecSuiteIsUnchanged(t *testing.T) {
	if raceEnabled {
		t.Skip("takes minutes in the interpreter, and has one goroutine")
	}
	if wazeroDir() == "" {
		t.Skip("the module cache has no wazero sources")
	}
	base := filepath.Join(wazeroDir(), "internal/integration_test/spectest")
	total := 0
	for _, suite := range []string{"v1", "v2", "tail-call", "threads", "extended-const"} {
		files, _ := filepath.Glob(filepath.Join(base, suite, "testdata/*.json"))
		if len(files) == 0 {
			t.Skip("wazero's sources come without spectest")
		}
		t.Run(suite, func(t *testing.T) {
			calls, crossed := 0, 0
			for _, file := range files {
				n, x := compareSpec(t, file)
				calls += n
				crossed += x
			}
			t.Logf("%d calls, %d safepoints", calls, crossed)
			total += crossed
		})
	}
	if total == 0 {
		t.Error("no safepoint was crossed")
	}
}

func compareSpec(t *testing.T, file string) (calls, crossed int) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var script struct {
		Commands []specCommand `json:"commands"`
	}
	if err := json.Unmarshal(raw, &script); err != nil {
		t.Fatal(err)
	}
	rewrite := func(b []byte) []byte {
		// The suite has tables of any size.
		out, err := safepoint.Rewrite(b, safepoint.Options{TableElements: 1<<32 - 1})
		if err != nil {
			return b // refused by both, or so TestRewriteCorpus says
		}
		return out
	}
	plainRuntime, _ := newRuntime(t)
	rewrittenRuntime, count := newRuntime(t)
	plain := newWorld(t, plainRuntime, func(b []byte) []byte { return b })
	rewritten := newWorld(t, rewrittenRuntime, rewrite)
	for _, c := range script.Commands {
		where := filepath.Base(file) + ":" + strconv.Itoa(c.Line)
		switch c.Type {
		case "module", "assert_uninstantiable", "assert_unlinkable":
			b, err := os.ReadFile(filepath.Join(filepath.Dir(file), c.Filename))
			if err != nil {
				t.Fatal(err)
			}
			err1, err2 := plain.instantiate(b, c.Name), rewritten.instantiate(rewrite(b), c.Name)
			if (err1 == nil) != (err2 == nil) {
				t.Errorf("%s: plain: %v; rewritten: %v", where, err1, err2)
			}
		case "register":
			for _, w := range []*world{plain, rewritten} {
				m := w.current
				if c.Name != "" {
					m = w.named[c.Name]
				}
				w.registered[c.As] = m
			}
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			if c.Type == "assert_exhaustion" && testing.Short() {
				continue // seconds of recursion
			}
			if strings.HasPrefix(c.Action.Field, "memory.atomic.wait") {
				continue // up to the host
			}
			var args []uint64
			for _, v := range c.Action.Args {
				args = append(args, v.words(t)...)
			}
			calls++
			text1, types, results1 := plain.outcome(c, append([]uint64(nil), args...))
			text2, _, results2 := rewritten.outcome(c, append([]uint64(nil), args...))
			same := text1 == text2 && len(results1) == len(results2)
			for i := 0; same && i < len(results1); i++ {
				if len(types) == len(results1) && types[i] == 0x70 {
					same = (results1[i] == 0) == (results2[i] == 0) // an address
					continue
				}
				same = results1[i] == results2[i]
			}
			if !same {
				t.Errorf("%s: %s: plain %q %v, rewritten %q %v", where, c.Action.Field, text1, results1, text2, results2)
			}
		}
	}
	return calls, *count
}
