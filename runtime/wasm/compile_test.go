package wasm_test

import (
	"context"
	"encoding/binary"
	"errors"
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

// Modules made to keep a compiler busy: they are refused at once, or are cheap
// after all, or are given up.
func TestCompileBombs(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{})
	for _, c := range []struct {
		name   string
		module []byte
		refuse string // "" if it runs to its end
	}{
		{"100,000 functions", copies(100_000, "\x00"), ""},
		{"many blocks", program("\x00", strings.Repeat("\x41\x00\x04\x40\x0b", 40_000)), "40000 branches and 0 locals, is too complex"},
		{"many branches", program("\x00", "\x02\x40"+strings.Repeat("\x41\x00\x0d\x00", 40_000)+"\x0b"), "is too complex"},
		{"blocks times locals", program(i32s(2000), ifs(10_000, 2000)), "10000 branches and 2000 locals, is too complex"},
		{"blocks times 50,000 locals", program(i32s(50_000), ifs(100, 50_000)), "too complex"},
		{"large br_table", program("\x00", "\x02\x40\x41\x00\x0e"+uleb(60_000)+strings.Repeat("\x00", 60_001)+"\x0b"), "is too complex"},
		{"deep blocks", program("\x00", strings.Repeat("\x02\x40", 9000)+strings.Repeat("\x0b", 9000)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			if c.refuse != "" {
				wantCompileError(t, e, c.module, c.refuse)
				if d := time.Since(began); d > time.Second {
					t.Errorf("refused after %v", d)
				}
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

// A module of many functions that are each just within the limits is given up,
// while others are compiled and guests run; then it can be tried again.
func TestCompileDeadline(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{CompileTime: 100 * time.Millisecond})
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
	if err := <-failed; !errors.As(err, &ce) || !strings.Contains(err.Error(), "it takes longer than 200ms to compile") {
		t.Errorf("error %v", err)
	}
	for _, g := range guests {
		g.Kill()
		wantExit(t, g, killed)
	}
	wantCompileError(t, e, bomb, "it takes longer than 200ms")
}

// Who waits for another module's compilation can be cancelled.
func TestCompileWaitsItsTurn(t *testing.T) {
	if raceEnabled {
		t.Skip("nothing is compiled under the race detector")
	}
	e := newEngine(t, wasm.Config{CompileTime: 300 * time.Millisecond})
	loaded, failed := make(chan struct{}), make(chan error)
	bomb := copies(50, i32s(20)+ifs(3000, 20))
	go func() {
		_, err := e.Compile(t.Context(), "sha256:1", func() ([]byte, error) { close(loaded); return bomb, nil })
		failed <- err
	}()
	<-loaded
	ctx, cancel := context.WithCancel(t.Context())
	_, err := e.Compile(ctx, "sha256:2", func() ([]byte, error) { cancel(); return copies(1_000_000/4, "\x00\x01"), nil })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if err := <-failed; err == nil {
		t.Error("the bomb has been compiled")
	}
}
