package safepoint_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// run runs a WASI command and returns what it wrote, and its exit code.
func run(t testing.TB, wasm []byte, args ...string) (string, uint32, int) {
	t.Helper()
	ctx := context.Background()
	r, crossed := newRuntime(t)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	var out bytes.Buffer
	_, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStdout(&out).WithStderr(&out).
		WithArgs(append([]string{"guest"}, args...)...))
	code := uint32(0)
	if exit := (*sys.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), code, *crossed
}

func compareRuns(t *testing.T, wasm []byte, args ...string) {
	t.Helper()
	rewritten, err := safepoint.Rewrite(wasm, safepoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out1, code1, _ := run(t, wasm, args...)
	out2, code2, crossed := run(t, rewritten, args...)
	if out1 != out2 || code1 != code2 {
		t.Errorf("plain: %d %q\nrewritten: %d %q", code1, out1, code2, out2)
	}
	if crossed == 0 {
		t.Error("no safepoint was crossed")
	}
	t.Logf("%d bytes, rewritten %d; %d safepoints; %q", len(wasm), len(rewritten), crossed, out1)
}

// Programs of C compilers do the same rewritten.
func TestCGuests(t *testing.T) {
	if raceEnabled {
		t.Skip("takes minutes in the interpreter, and has one goroutine")
	}
	if _, err := exec.LookPath("clang"); err != nil {
		wasmtest.Missing(t, "clang is not installed")
	}
	sources, _ := filepath.Glob("testdata/*.c")
	for _, source := range sources {
		for _, flags := range [][]string{{"-O2"}, {"-O0"}, {"-O3", "-msimd128", "-mbulk-memory", "-mtail-call"}} {
			t.Run(filepath.Base(source)+flags[0], func(t *testing.T) {
				compareRuns(t, buildC(t, source, flags...), "3")
			})
		}
	}
}

func buildC(t testing.TB, source string, flags ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	args := append([]string{"--target=wasm32-wasi", source, "-o", out, "-lm"}, flags...)
	if b, err := exec.Command("clang", args...).CombinedOutput(); err != nil {
		t.Skipf("clang cannot build for wasm32-wasi here: %v\n%s", err, b)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// A Go program, with its goroutines, garbage collector and maps.
func TestGoGuest(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("builds and compiles for seconds")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	compareRuns(t, wasm)
}
