package wasm_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

func TestCompileErrors(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	spin := guest(t, "spin")
	for _, c := range []struct{ name, module, want string }{
		{"empty", "", "not a WebAssembly module: the file is empty"},
		{"script", "#!/bin/sh\n", "not a WebAssembly module: bad magic"},
		{"ELF", "\x7fELF\x02\x01\x01", "ELF executable"},
		{"text", "(module)", "wat2wasm"},
		{"component", "\x00asm\x0d\x00\x01\x00", "a WebAssembly component; wasmpod runs core modules (wasip1)"},
		{"cut short", string(spin[:len(spin)-3]), "cut short"},
		{"header only", string(spin[:6]), "cut short in its header"},
		{"ill-typed", strings.Replace(string(spin), "\x03\x40\x0c\x00", "\x03\x7f\x0c\x00", 1), "not a valid WebAssembly module"},
		{"imports", string(guest(t, "imports")), "module imports env.foo, memory env.memory, which wasmpod does not provide"},
		{"signature", string(guest(t, "signature")), "module imports test.call as (i64) -> (), but it is (i32) -> (i32)"},
	} {
		t.Run(c.name, func(t *testing.T) { wantCompileError(t, e, []byte(c.module), c.want) })
	}
	t.Run("load", func(t *testing.T) {
		_, err := e.Compile(t.Context(), "sha256:bad", func() ([]byte, error) { return nil, fs.ErrNotExist })
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

func TestStartErrors(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	for name, want := range map[string]string{
		"empty":    "module has no entry function _start",
		"library":  "module has no entry function _start: it is a library (reactor), not a program (command)",
		"badentry": "entry function _start is (i32) -> (), but should be () -> ()",
	} {
		if _, err := e.Start(t.Context(), compile(t, e, name), wasm.InstanceConfig{}); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", name, err, want)
		}
	}
}

func TestCompileOnce(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	var loads atomic.Int32
	code := guest(t, "host") // here: it may skip the test
	var wg sync.WaitGroup
	modules := make([]*wasm.Module, 20)
	for n := range modules {
		wg.Go(func() {
			m, err := e.Compile(t.Context(), "sha256:once", func() ([]byte, error) {
				loads.Add(1)
				return code, nil
			})
			if err != nil {
				t.Error(err)
			}
			modules[n] = m
		})
	}
	wg.Wait()
	if loads.Load() != 1 {
		t.Errorf("loaded %d times", loads.Load())
	}
	// A running instance keeps what everybody else has released.
	blocked, release := make(chan struct{}), make(chan struct{})
	i := start(t, e, modules[0], 0, func(context.Context, api.Module, int32) int32 {
		close(blocked)
		<-release
		return 0
	})
	<-blocked
	for _, m := range modules {
		m.Release()
	}
	close(release)
	wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	if _, err := e.Start(t.Context(), modules[0], wasm.InstanceConfig{}); err == nil || !strings.Contains(err.Error(), "released") {
		t.Errorf("start of a released module: %v", err)
	}
	m, err := e.Compile(t.Context(), "sha256:once", func() ([]byte, error) { loads.Add(1); return guest(t, "host"), nil })
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
	if loads.Load() != 2 {
		t.Errorf("loaded %d times after the release", loads.Load())
	}
}

// One caller's cancelled load is no reason for another's to fail.
func TestCompileWaitersLoadForThemselves(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	code := guest(t, "host") // here: it may skip the test
	loading, fail := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := e.Compile(t.Context(), "sha256:x", func() ([]byte, error) {
			close(loading)
			<-fail
			return nil, context.Canceled
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	<-loading
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Compile(ended, "sha256:x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with a context that has ended: %v", err)
	}
	wg.Go(func() {
		m, err := e.Compile(t.Context(), "sha256:x", func() ([]byte, error) { return code, nil })
		if err != nil {
			t.Error(err)
			return
		}
		m.Release()
	})
	close(fail)
	wg.Wait()
}

func cacheFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCacheOnDisk(t *testing.T) {
	if raceEnabled {
		t.Skip("the interpreter, which the race detector needs, has no cache")
	}
	dir := t.TempDir()
	run := func(t *testing.T) {
		t.Helper()
		e := newEngine(t, wasm.Config{CacheDir: dir})
		i := start(t, e, compile(t, e, "host"), 0, func(context.Context, api.Module, int32) int32 { return 0 })
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
	}
	run(t)
	files := cacheFiles(t, dir)
	if len(files) != 1 || !strings.Contains(files[0], "safepoint-") {
		t.Fatalf("cache has %v", files)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Run("used", run)
	for _, c := range []struct {
		name   string
		damage []byte
	}{
		{"empty file, as a power failure leaves it", nil},
		{"cut short", good[:len(good)/2]},
		{"zeros", make([]byte, len(good))},
		{"other bytes", append(append([]byte{}, good[:len(good)-200]...), make([]byte, 200)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(files[0], c.damage, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t)
			again, err := os.ReadFile(files[0])
			if err != nil || string(again) != string(good) {
				t.Errorf("the cache was not repaired: %d bytes, %v", len(again), err)
			}
		})
	}
	t.Run("not writable", func(t *testing.T) {
		// A folder where the file should be, since root may write anywhere.
		if err := errors.Join(os.Remove(files[0]), os.Mkdir(files[0], 0o700)); err != nil {
			t.Fatal(err)
		}
		run(t)
	})
}

func TestEngineClose(t *testing.T) {
	e, err := wasm.New(t.Context(), wasm.Config{Hosts: nil, Interpreter: raceEnabled})
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Compile(t.Context(), "sha256:spin", func() ([]byte, error) { return guest(t, "spin"), nil })
	if err != nil {
		t.Fatal(err)
	}
	i, err := e.Start(t.Context(), m, wasm.InstanceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if i.Exit() != killed {
		t.Errorf("exit %+v", i.Exit())
	}
	m.Release()
	if _, err := e.Compile(t.Context(), "sha256:spin", nil); err == nil {
		t.Error("a closed engine compiles")
	}
	if _, err := e.Start(t.Context(), m, wasm.InstanceConfig{}); err == nil {
		t.Error("a closed engine starts")
	}
	if err := e.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A guest in a host call that ignores its context: nothing may be freed under it.
func TestEngineCloseWaits(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	blocked, release := make(chan struct{}), make(chan struct{})
	i := start(t, e, compile(t, e, "host"), 0, func(context.Context, api.Module, int32) int32 {
		close(blocked)
		<-release
		return 0
	})
	<-blocked
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
	wantExit(t, i, killed)
}

func BenchmarkStart(b *testing.B) {
	e := newEngine(b, wasm.Config{})
	m := compile(b, e, "host")
	for b.Loop() {
		i := start(b, e, m, 16<<20, func(context.Context, api.Module, int32) int32 { return 0 })
		<-i.Done()
	}
}
