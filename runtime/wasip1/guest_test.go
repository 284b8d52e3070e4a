package wasip1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"
)

// sharedRuntime is one runtime for all tests of the package, as all pods of a
// process share one.
var sharedRuntime = sync.OnceValues(func() (wazero.Runtime, error) {
	ctx := context.Background()
	config := wazero.NewRuntimeConfig().WithCompilationCache(compilationCache())
	if raceEnabled {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := wazero.NewRuntimeWithConfig(ctx, config)
	return r, Instantiate(ctx, r)
})

// compilationCache keeps compiled guests between runs of the tests.
func compilationCache() wazero.CompilationCache {
	if dir, err := os.UserCacheDir(); err == nil {
		if c, err := wazero.NewCompilationCacheWithDir(dir + "/wasmpod-guests/compiled"); err == nil {
			return c
		}
	}
	return wazero.NewCompilationCache()
}

var compiled sync.Map

func compile(t testing.TB, path string) wazero.CompiledModule {
	t.Helper()
	if m, ok := compiled.Load(path); ok {
		return m.(wazero.CompiledModule)
	}
	r, err := sharedRuntime()
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.CompileModule(context.Background(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	compiled.Store(path, m)
	return m
}

type result struct {
	code           int
	stdout, stderr string
}

// run runs a guest to its end. Streams of the config that are nil are collected.
func run(t testing.TB, ctx context.Context, path string, c ProcessConfig) result {
	t.Helper()
	mod := compile(t, path)
	var stdout, stderr bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &stdout
	}
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	p, err := NewProcess(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	code := runModule(t, WithProcess(ctx, p), mod)
	return result{code, stdout.String(), stderr.String()}
}

func runModule(t testing.TB, ctx context.Context, mod wazero.CompiledModule) int {
	t.Helper()
	r, err := sharedRuntime()
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.InstantiateModule(ctx, mod, anonymous)
	if m != nil {
		defer m.Close(context.Background())
	}
	var exit *sys.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit.ExitCode())
	}
	t.Fatalf("guest failed: %v", err)
	return -1
}

// rootFS is a directory of the host as the container's root, with devices.
func rootFS(dir string) FS {
	return FS{Mounts: append([]Mount{{GuestPath: "/", Host: dir}}, Devices()...)}
}

// anonymous lets many instances exist side by side.
var anonymous = wazero.NewModuleConfig().WithName("")
