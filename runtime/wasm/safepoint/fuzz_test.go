package safepoint_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// FuzzRewrite: the rewriter never panics; what it lets through, wazero may
// decode without harm; and what wazero accepts before it accepts after.
func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{"", header, voidFunc(""), voidFunc("\x03\x40\x0c\x00\x0b"), voidFunc("\xfc\x0b\x00")} {
		f.Add([]byte(seed))
	}
	f.Add(namedModule(2, sec(0, str("m")), sec(1, nameMap(0, "f", "one")), sec(2, "\x01\x01"+nameMap(0, "a", "b")), sec(4, nameMap(0, "type"))))
	if wazeroDir() != "" {
		n := 0
		corpus(f, func(_ string, wasm []byte) {
			// Every 20th of thousands, and small: the fuzzer makes more.
			if n++; n%20 == 0 && len(wasm) < 2000 {
				f.Add(wasm)
			}
		})
	}
	ctx := context.Background()
	config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features)
	f.Fuzz(func(t *testing.T, wasm []byte) {
		_, ierr := safepoint.Imports(wasm)
		out, err := safepoint.Rewrite(wasm, safepoint.Options{})
		if err != nil {
			var e *safepoint.Error
			if !errors.As(err, &e) || out != nil {
				t.Fatalf("error %T %v", err, err)
			}
			return
		}
		if ierr != nil {
			t.Fatalf("imports: %v, rewritten all the same", ierr)
		}
		r := wazero.NewRuntimeWithConfig(ctx, config)
		defer r.Close(ctx)
		before, after := accepts(ctx, r, withoutCustom(wasm)), accepts(ctx, r, out)
		if before == nil && after != nil {
			t.Fatalf("accepted before, refused when rewritten: %v", after)
		}
	})
}

// withoutCustom removes the custom sections of a module that is otherwise well
// formed: wazero makes room for as many names as a name section declares.
func withoutCustom(wasm []byte) []byte {
	out := append([]byte(nil), wasm[:8]...)
	for rest := wasm[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}
