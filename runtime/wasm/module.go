package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// The functions that a module may export to its host.
const (
	entryName   = "_start"
	handlerName = "__wasm_signal"
)

// Module is compiled code. It is safe for concurrent use until released.
type Module struct {
	engine *Engine
	digest string
	cancel context.CancelFunc // gives its compilation up

	// Under engine.mu:
	refs  int
	built bool

	ready   chan struct{} // closed when what follows is set
	err     error
	runtime wazero.Runtime
	code    wazero.CompiledModule
	info    moduleInfo
}

// moduleInfo is what instances need to know of their module.
type moduleInfo struct {
	startError error // why it cannot be started, if so
	handler    bool  // exports __wasm_signal(i32)
	outside    int64 // bytes that an instance has at once, see declaredOutside
	// For traps in modules without names, where functions are known by number:
	// what they are exported as, and how many imports the rewriter has added.
	exportNames    map[uint32]string
	imports, added int
}

// CompileError says why a module cannot run, in words for its user.
type CompileError struct {
	Digest  string
	Message string
}

func (e *CompileError) Error() string {
	return fmt.Sprintf("cannot run module %s: %s", e.Digest, e.Message)
}

// Digest is what the module was compiled as.
func (m *Module) Digest() string { return m.digest }

// Release gives the module back. Its code is freed when nobody holds it and no
// instance runs it. Each Module returned by Compile is released once.
func (m *Module) Release() {
	m.engine.mu.Lock()
	m.refs--
	last, built := m.refs == 0, m.built
	if last && m.engine.modules[m.digest] == m {
		delete(m.engine.modules, m.digest)
	}
	m.engine.mu.Unlock()
	switch {
	case last && built:
		m.free()
	case last:
		m.cancel() // and whoever builds it frees it
	}
}

func (m *Module) free() {
	if m.code != nil {
		_ = m.code.Close(context.Background()) // frees memory only, never fails
	}
}

func (m *Module) compile(ctx context.Context, wasm []byte) error {
	imports, err := safepoint.Imports(wasm)
	if err != nil {
		return m.fail(err.Error())
	}
	// Before the work of compiling: name everything that is missing at once.
	if err := m.checkImports(imports); err != nil {
		return err
	}
	rewritten, err := safepoint.Rewrite(wasm, safepoint.Options{ImportName: m.engine.config.ImportName})
	if err != nil {
		return m.fail(err.Error())
	}
	shape := examine(wasm)
	runtime, code, err := m.engine.compileCode(ctx, m.digest, wasm, rewritten, &shape)
	if large := (errTooLarge{}); errors.As(err, &large) {
		return m.fail(fmt.Sprintf("%s. Its largest function is %s: divide it, build with less inlining, or interpret the module", large.what, shape.largest))
	}
	if errors.As(err, &errKilled{}) {
		return m.fail(err.Error())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("compile module %s: %w", m.digest, ctx.Err())
	}
	if err != nil {
		return m.fail("not a valid WebAssembly module: " + explain(err))
	}
	if err := m.checkSignatures(code); err != nil {
		return errors.Join(err, code.Close(ctx))
	}
	m.runtime, m.code, m.info = runtime, code, inspect(code)
	return nil
}

func (m *Module) fail(message string) error {
	return &CompileError{Digest: m.digest, Message: message}
}

func (m *Module) checkImports(imports []safepoint.Import) error {
	var missing []string
	seen := map[string]bool{}
	for _, i := range imports {
		name := i.Name
		if rename := m.engine.config.ImportName; rename != nil && i.Kind == "function" {
			name = rename(i.Module, name, i.Params)
		}
		if i.Kind == "function" && i.Module != safepoint.HostModule && m.engine.hostFunction(i.Module, name) != nil {
			continue
		}
		what := i.Module + "." + i.Name
		if i.Kind != "function" {
			what = i.Kind + " " + what
		}
		if !seen[what] {
			seen[what] = true
			missing = append(missing, what)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const most = 8
	rest := ""
	if n := len(missing) - most; n > 0 {
		missing, rest = missing[:most], fmt.Sprintf(" and %d more", n)
	}
	return m.fail(fmt.Sprintf("module imports %s%s, which wasmpod does not provide", strings.Join(missing, ", "), rest))
}

func (m *Module) checkSignatures(code wazero.CompiledModule) error {
	for _, f := range code.ImportedFunctions() {
		module, name, _ := f.Import()
		have := m.engine.hostFunction(module, name)
		if have == nil {
			continue // checked before
		}
		if want, got := signature(f), signature(have); want != got {
			return m.fail(fmt.Sprintf("module imports %s.%s as %s, but it is %s", module, name, want, got))
		}
	}
	return nil
}

func signature(f api.FunctionDefinition) string {
	types := func(ts []api.ValueType) string {
		names := make([]string, len(ts))
		for i, t := range ts {
			names[i] = api.ValueTypeName(t)
		}
		return "(" + strings.Join(names, ", ") + ")"
	}
	return types(f.ParamTypes()) + " -> " + types(f.ResultTypes())
}

func inspect(code wazero.CompiledModule) moduleInfo {
	info := moduleInfo{outside: declaredOutside(code), imports: len(code.ImportedFunctions()), exportNames: map[uint32]string{}}
	for _, f := range code.ImportedFunctions() {
		if module, _, _ := f.Import(); module == safepoint.HostModule {
			info.added++
		}
	}
	exports := code.ExportedFunctions()
	for name, f := range exports {
		// One that is exported twice is known by the shorter name.
		if other, ok := info.exportNames[f.Index()]; !ok || len(name) < len(other) || len(name) == len(other) && name < other {
			info.exportNames[f.Index()] = name
		}
	}
	switch entry := exports[entryName]; {
	case entry != nil && signature(entry) != "() -> ()":
		info.startError = fmt.Errorf("entry function %s is %s, but should be () -> ()", entryName, signature(entry))
	case entry == nil && exports["_initialize"] != nil:
		info.startError = fmt.Errorf("module has no entry function %s: it is a library (reactor), not a program (command)", entryName)
	case entry == nil:
		info.startError = fmt.Errorf("module has no entry function %s", entryName)
	}
	if h := exports[handlerName]; h != nil {
		info.handler = signature(h) == "(i32) -> ()"
	}
	return info
}

// explain takes what is of use to a user from an error of wazero.
func explain(err error) string {
	s := err.Error()
	if strings.Contains(s, "exception-handling") || strings.Contains(s, "invalid opcode") && strings.Contains(s, "throw") {
		return "it uses exception handling, which wasmpod does not support yet"
	}
	s, _, _ = strings.Cut(s, "\n")
	return s
}
