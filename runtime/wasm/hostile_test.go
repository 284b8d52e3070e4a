package wasm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

func vec(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

// program is a module of one function, _start, with these locals and code.
func program(locals, code string) []byte {
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec("\x01\x60\x00\x00") +
		"\x03" + vec("\x01\x00") +
		"\x07" + vec("\x01\x06_start\x00\x00") +
		"\x0a" + vec("\x01"+vec(locals+code+"\x0b")))
}

// Modules made to hurt their host: each runs, or is refused in words; none
// takes the process with it.
func TestHostileModules(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	const huge = "\xff\xff\xff\xff\x0f"
	for _, c := range []struct {
		name   string
		module []byte
		refuse string // "" if it runs to its end
	}{
		{"deep blocks", program("\x00", strings.Repeat("\x02\x40", 9000)+strings.Repeat("\x0b", 9000)), ""},
		{"deep loops", program("\x00", strings.Repeat("\x03\x40", 2000)+strings.Repeat("\x0b", 2000)), ""},
		{"deeper blocks", program("\x00", strings.Repeat("\x02\x40", 1e6)+strings.Repeat("\x0b", 1e6)), "nest deeper than"},
		{"many locals", program("\x01\xd0\x86\x03\x7e", ""), ""}, // 50000
		{"too many locals", program("\x01"+huge+"\x7e", ""), "locals exceed the limit"},
		{"long function", program("\x00", strings.Repeat("\x41\x00\x1a", 100_000)), ""},
		{"too long a function", program("\x00", strings.Repeat("\x01", 8_000_000)), "exceeds the limit"},
		{"large table", []byte("\x00asm\x01\x00\x00\x00\x04" + vec("\x01\x70\x00"+"\x80\x80\x80\x40")), "exceed the limit"},
		{"names", append(program("\x00", ""), "\x00"+vec("\x04name\x01"+vec(huge))...), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.refuse != "" {
				wantCompileError(t, e, c.module, c.refuse)
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

// The host's stand-in for memory.atomic.wait checks its address as the
// instruction does.
func TestWaitChecksItsAddress(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "badwait")
	for n := range int32(4) {
		i := start(t, e, m, 0, func(context.Context, api.Module, int32) int32 { return n })
		<-i.Done()
		if x := i.Exit(); x.Code != 134 || !strings.Contains(x.Message, "memory.atomic.wait") {
			t.Errorf("case %d: %+v", n, x)
		}
	}
}

func TestExceptionsAreRefused(t *testing.T) {
	skipEmulated(t)
	e := newEngine(t, wasm.Config{})
	_, err := e.Compile(t.Context(), "sha256:exceptions", func() ([]byte, error) { return guest(t, "exceptions"), nil })
	var ce *wasm.CompileError
	if !errors.As(err, &ce) || !strings.Contains(ce.Message, "exception handling, which wasmpod does not support yet") {
		t.Errorf("error %v", err)
	}
}
