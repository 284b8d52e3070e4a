package wasm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.uber.org/goleak"

	"github.com/wasmpod/wasmpod/runtime/wasm"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// callKey holds a func(ctx, arg) result: what the guest's import test.call does.
type callKey struct{}

type callFunc func(ctx context.Context, mod api.Module, arg int32) int32

func testHost(ctx context.Context, r wazero.Runtime) error {
	_, err := r.NewHostModuleBuilder("test").
		NewFunctionBuilder().WithFunc(func(ctx context.Context, mod api.Module, arg int32) int32 {
		return ctx.Value(callKey{}).(callFunc)(ctx, mod, arg)
	}).Export("call").
		NewFunctionBuilder().WithFunc(func(ctx context.Context, mod api.Module) int32 {
		return ctx.Value(callKey{}).(callFunc)(ctx, mod, 0)
	}).Export("arg").
		Instantiate(ctx)
	return err
}

func newEngine(t testing.TB, c wasm.Config) *wasm.Engine {
	t.Helper()
	wasmtest.RequireWAT(t) // here, not where a subtest or a goroutine builds its guest
	c.Interpreter = c.Interpreter || raceEnabled
	if c.Hosts == nil {
		c.Hosts = append(c.Hosts, testHost)
	}
	e, err := wasm.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func guest(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(wasmtest.BuildWAT(t, filepath.Join("testdata", name+".wat")))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compile(t testing.TB, e *wasm.Engine, name string) *wasm.Module {
	t.Helper()
	m, err := e.Compile(t.Context(), "sha256:"+name, func() ([]byte, error) { return guest(t, name), nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Release)
	return m
}

func start(t testing.TB, e *wasm.Engine, m *wasm.Module, limit int64, call callFunc) *wasm.Instance {
	t.Helper()
	i, err := e.Start(t.Context(), m, wasm.InstanceConfig{Name: t.Name(), MemoryLimit: limit, Context: func(ctx context.Context) context.Context {
		return context.WithValue(ctx, callKey{}, call)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func wantExit(t testing.TB, i *wasm.Instance, want wasm.Exit) {
	t.Helper()
	<-i.Done()
	if got := i.Exit(); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
	if s := i.Stats(); s.MemoryBytes != 0 {
		t.Errorf("%d bytes of memory left", s.MemoryBytes)
	}
}

func wantCompileError(t *testing.T, e *wasm.Engine, wasmBytes []byte, want string) {
	t.Helper()
	_, err := e.Compile(t.Context(), "sha256:bad", func() ([]byte, error) { return wasmBytes, nil })
	var ce *wasm.CompileError
	if !errors.As(err, &ce) || !strings.Contains(ce.Message, want) {
		t.Errorf("error %v, want a CompileError with %q", err, want)
	}
}
