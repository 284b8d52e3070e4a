package wasm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

func uleb(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) }

// ifs is code with n blocks that sets one of so many i32 locals in each.
func ifs(n, locals int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString("\x20\x00\x04\x40\x20" + uleb(i%locals) + "\x21" + uleb((i*7+1)%locals) + "\x0b")
	}
	for i := range locals {
		s.WriteString("\x20" + uleb(i) + "\x21" + uleb((i+1)%locals))
	}
	return s.String()
}

// copies is a module of _start and so many functions with the same body.
func copies(n int, body string) []byte {
	b := vec(body + "\x0b")
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec("\x01\x60\x00\x00") +
		"\x03" + vec(uleb(n+1)+strings.Repeat("\x00", n+1)) +
		"\x07" + vec("\x01\x06_start\x00\x00") +
		"\x0a" + vec(uleb(n+1)+vec("\x00\x0b")+strings.Repeat(b, n)))
}

func i32s(n int) string { return "\x01" + uleb(n) + "\x7f" }

// Modules made to keep a compiler busy: they are cheap after all, or are given
// up when the processor time or the memory of their compiler is used up, with a
// word about which function it was.
func TestCompileBombs(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e, hasty := newEngine(t, wasm.Config{}), newEngine(t, wasm.Config{CompileTime: 500 * time.Millisecond})
	for _, c := range []struct {
		name   string
		module []byte
		refuse string // by the hasty one; "" if it runs to its end
	}{
		{"100,000 functions", copies(100_000, "\x00"), ""},
		{"many blocks", program("\x00", strings.Repeat("\x41\x00\x04\x40\x0b", 40_000)), "function is number 0, with 200002 bytes of code, 40000 branches and 0 locals"},
		{"many branches", program("\x00", "\x02\x40"+strings.Repeat("\x41\x00\x0d\x00", 40_000)+"\x0b"), "it takes longer than 500ms to compile"},
		{"blocks times locals", program(i32s(2000), ifs(10_000, 2000)), "10000 branches and 2000 locals"},
		{"deep blocks", program("\x00", strings.Repeat("\x02\x40", 9000)+strings.Repeat("\x0b", 9000)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.refuse != "" {
				skipEmulated(t)
				wantCompileError(t, hasty, c.module, c.refuse)
				return
			}
			m, err := e.Compile(t.Context(), "sha256:"+c.name, func() ([]byte, error) { return c.module, nil })
			if err != nil {
				t.Fatal(err)
			}
			defer m.Release()
			wantExit(t, start(t, e, m, 0, nil), wasm.Exit{Reason: wasm.ReasonCompleted})
		})
	}
}

// One function that takes 4 GiB to compile takes its compiler's memory, not ours.
func TestCompileMemoryBomb(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("takes seconds, and nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{})
	bomb := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec("\x01\x60\x00\x00") + "\x03" + vec("\x01\x00") + "\x05" + vec("\x01\x00\x01") +
		"\x07" + vec("\x01\x06_start\x00\x00") +
		"\x0a" + vec("\x01"+vec("\x00"+strings.Repeat("\x41\x00\x41\x00\x28\x02\x00\x36\x02\x00", 400_000)+"\x0b")))
	wantCompileError(t, e, bomb, "MiB of memory to compile")
}

// A module that takes too long is given up, while others are compiled and guests
// run; then it can be tried again.
func TestCompileDeadline(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{CompileTime: time.Second})
	bomb := copies(50, i32s(20)+ifs(3000, 20)) // 1.2 MB: a large one
	guests := []*wasm.Instance{start(t, e, compile(t, e, "spin"), 0, nil), start(t, e, compile(t, e, "spin"), 0, nil)}
	failed := make(chan error)
	loaded := make(chan struct{})
	go func() {
		_, err := e.Compile(t.Context(), "sha256:bomb", func() ([]byte, error) { close(loaded); return bomb, nil })
		failed <- err
	}()
	<-loaded
	compile(t, e, "host") // a small one does not wait for it
	var ce *wasm.CompileError
	if err := <-failed; !errors.As(err, &ce) || !strings.Contains(err.Error(), "it takes longer than 1s to compile") {
		t.Errorf("error %v", err)
	}
	for _, g := range guests {
		g.Kill()
		wantExit(t, g, killed)
	}
	wantCompileError(t, e, bomb, "it takes longer than 1s")
}

// Who waits for a module returns as soon as its context ends, and what nobody
// waits for is given up; another caller's wait goes on.
func TestCompileCancelled(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{CompileTime: time.Hour})
	bomb := copies(50, i32s(20)+ifs(3000, 20))
	for _, others := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		loaded, first, second := make(chan struct{}), make(chan error), make(chan error, 1)
		load := func() ([]byte, error) { close(loaded); return bomb, nil }
		go func() {
			_, err := e.Compile(ctx, "sha256:1", load)
			first <- err
		}()
		<-loaded
		other, stop := context.WithCancel(t.Context())
		if others {
			go func() {
				_, err := e.Compile(other, "sha256:1", load)
				second <- err
			}()
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
		stop()
		if others {
			if err := <-second; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that of the context", err)
			}
		}
		// The place is free again.
		m, err := e.Compile(t.Context(), "sha256:2", func() ([]byte, error) { return copies(60_000, "\x00\x01"), nil })
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
}

// A module that is in the cache does not wait for one that is compiled.
func TestCachedModuleDoesNotWait(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	dir := t.TempDir()
	module := copies(60_000, "\x00\x01")
	load := func() ([]byte, error) { return module, nil }
	for range 2 {
		e := newEngine(t, wasm.Config{CacheDir: dir, CompileTime: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		loaded, failed := make(chan struct{}), make(chan error)
		if _, err := os.Stat(filepath.Join(dir, "compiled")); err == nil {
			go func() {
				_, err := e.Compile(ctx, "sha256:bomb", func() ([]byte, error) { close(loaded); return copies(50, i32s(20)+ifs(3000, 20)), nil })
				failed <- err
			}()
			<-loaded
		} else {
			close(loaded)
			go func() { <-ctx.Done(); failed <- ctx.Err() }()
		}
		m, err := e.Compile(t.Context(), "sha256:1", load)
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
		if err := os.WriteFile(filepath.Join(dir, "compiled"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
}

// skipEmulated skips what an emulator cannot do: start the program again for
// compiling, which takes the kernel, or give memory back, of which it keeps what it
// has once translated. The Makefile sets the variable.
func skipEmulated(t *testing.T) {
	t.Helper()
	if emulator := os.Getenv("TEST_EMULATOR"); emulator != "" {
		t.Skipf("not under %s: see skipEmulated", emulator)
	}
}
