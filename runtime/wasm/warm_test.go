package wasm_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// heavy is a guest that is compiled by a process: its size says so.
func heavy(t testing.TB, name string) (module []byte, digest string) {
	section := append([]byte("\x04test"), make([]byte, 200<<10)...)
	module = append([]byte(nil), guest(t, name)...)
	module = append(module, 0)
	module = binary.AppendUvarint(module, uint64(len(section)))
	module = append(module, section...)
	sum := sha256.Sum256(module)
	return module, "sha256:" + hex.EncodeToString(sum[:])
}

func skipWithoutCompiler(t testing.TB) {
	if raceEnabled {
		t.Skip("the interpreter, which the race detector needs, has no cache")
	}
}

func TestWarmStart(t *testing.T) {
	skipWithoutCompiler(t)
	skipEmulated(t)
	dir := t.TempDir()
	host, hostDigest := heavy(t, "host")
	other, otherDigest := heavy(t, "spin")
	run := func(t *testing.T, cold bool) {
		t.Helper()
		e := newEngine(t, wasm.Config{CacheDir: dir})
		loaded := false
		m, err := e.Compile(t.Context(), hostDigest, func() ([]byte, error) { loaded = true; return host, nil })
		if err != nil {
			t.Fatal(err)
		}
		if loaded != cold {
			t.Errorf("the module was loaded: %v, want %v", loaded, cold)
		}
		calls := 0
		i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { calls++; return 0 })
		wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
		if calls == 0 {
			t.Error("the guest did nothing")
		}
		m.Release()
	}
	run(t, true)
	t.Run("without the module", func(t *testing.T) { run(t, false) })
	t.Run("another module that differs in its code", func(t *testing.T) {
		e := newEngine(t, wasm.Config{CacheDir: dir})
		m, err := e.Compile(t.Context(), otherDigest, func() ([]byte, error) { return other, nil })
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
		run(t, false)
	})
	t.Run("a digest that is not the module's is not kept", func(t *testing.T) {
		e := newEngine(t, wasm.Config{CacheDir: dir})
		wrong := "sha256:" + strings.Repeat("0", 64)
		for range 2 {
			loads := 0
			m, err := e.Compile(t.Context(), wrong, func() ([]byte, error) { loads++; return other, nil })
			if err != nil {
				t.Fatal(err)
			}
			m.Release()
			if loads != 1 {
				t.Error("it came from the cache")
			}
		}
	})
	// Every file of the cache, damaged in every way: the module is compiled again,
	// and then it is there.
	damage := map[string]func([]byte) []byte{
		"empty":          func([]byte) []byte { return nil },
		"cut":            func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":          func(b []byte) []byte { return make([]byte, len(b)) },
		"one bit, early": func(b []byte) []byte { b[40] ^= 1; return b },
		"one bit, late":  func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"longer":         func(b []byte) []byte { return append(b, 0) },
		"missing":        nil,
	}
	for what, change := range damage {
		t.Run(what, func(t *testing.T) {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				good, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if len(good) == 0 {
					if strings.Contains(path, strings.TrimPrefix(hostDigest, "sha256:")) {
						return fmt.Errorf("%s was not made again", path)
					}
					return nil // another module's, emptied before: only host's are made again here
				}
				if change == nil {
					err = os.Remove(path)
				} else {
					err = os.WriteFile(path, change(append([]byte(nil), good...)), 0o600)
				}
				if err != nil {
					return err
				}
				e := newEngine(t, wasm.Config{CacheDir: dir})
				m, err := e.Compile(t.Context(), hostDigest, func() ([]byte, error) { return host, nil })
				if err != nil {
					return err
				}
				calls := 0
				i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { calls++; return 0 })
				wantExit(t, i, wasm.Exit{Reason: wasm.ReasonCompleted})
				if calls == 0 {
					t.Errorf("%s damaged: the guest did nothing", path)
				}
				m.Release()
				return nil
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			run(t, false)
		})
	}
	t.Run("nothing is left behind", func(t *testing.T) {
		for _, file := range cacheFiles(t, dir) {
			if strings.Contains(file, "compile-") {
				t.Errorf("%s", file)
			}
		}
	})
	t.Run("many at once", func(t *testing.T) {
		dir := t.TempDir()
		var wg sync.WaitGroup
		for range 6 {
			e := newEngine(t, wasm.Config{CacheDir: dir}) // each as another process
			wg.Go(func() {
				m, err := e.Compile(t.Context(), hostDigest, func() ([]byte, error) { return host, nil })
				if err != nil {
					t.Error(err)
					return
				}
				m.Release()
			})
		}
		wg.Wait()
	})
}

// TestReadFaster fails where wazero keeps its files in another way than is known:
// then everything works, slower.
func TestReadFaster(t *testing.T) {
	cache, err := wazero.NewCompilationCacheWithDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close(t.Context())
	if !wasm.ReadFaster(cache) {
		t.Error("the files of this version of wazero's cache are not read through ours")
	}
	if wasm.ReadFaster(wazero.NewCompilationCache()) {
		t.Error("a cache without files has some")
	}
}

// BenchmarkWarmStart is from a module's digest to code that can be run, in a new
// Engine, of a Go guest of 2.5 MB whose code is cached; stock is wazero alone,
// with its own cache and without safepoints.
func BenchmarkWarmStart(b *testing.B) {
	skipWithoutCompiler(b)
	dir := b.TempDir()
	file := filepath.Join(dir, "hello.wasm")
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", file, "main.go")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GO111MODULE=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) { benchmarkWarmStart(b, module) })
	b.Run("stock", func(b *testing.B) { benchmarkStock(b, module) })
}

func benchmarkWarmStart(b *testing.B, module []byte) {
	dir := b.TempDir()
	sum := sha256.Sum256(module)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	newEngine := func() *wasm.Engine {
		e, err := wasm.New(b.Context(), wasm.Config{CacheDir: dir, Hosts: []wasm.HostModule{wasip1.Instantiate}, ImportName: wasip1.ImportName})
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	once := func(e *wasm.Engine) {
		m, err := e.Compile(b.Context(), digest, func() ([]byte, error) { return module, nil })
		if err != nil {
			b.Fatal(err)
		}
		m.Release()
	}
	e := newEngine()
	once(e)
	e.Close(b.Context())
	for b.Loop() {
		b.StopTimer()
		e := newEngine()
		b.StartTimer()
		once(e)
		b.StopTimer()
		e.Close(b.Context())
		b.StartTimer()
	}
}

func benchmarkStock(b *testing.B, module []byte) {
	dir := b.TempDir()
	once := func() {
		b.StopTimer()
		cache, err := wazero.NewCompilationCacheWithDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		r := wazero.NewRuntimeWithConfig(b.Context(), wazero.NewRuntimeConfigCompiler().WithCompilationCache(cache))
		b.StartTimer()
		m, err := r.CompileModule(b.Context(), module)
		if err != nil {
			b.Fatal(err)
		}
		m.Close(b.Context())
		b.StopTimer()
		r.Close(b.Context())
		cache.Close(b.Context())
		b.StartTimer()
	}
	once()
	for b.Loop() {
		once()
	}
}
