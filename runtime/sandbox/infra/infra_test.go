package infra

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

func TestModuleIsTiny(t *testing.T) {
	if len(Module) >= 1024 {
		t.Errorf("%d bytes", len(Module))
	}
}

func TestModuleIsUpToDate(t *testing.T) {
	wasmtest.RequireWAT(t)
	out := filepath.Join(t.TempDir(), "pause.wasm")
	if b, err := exec.Command("wat2wasm", "pause.wat", "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Module) {
		t.Error("pause.wat has changed: run go generate")
	}
}

// What it asks of its host: an endless sleep, again and again.
func TestModuleSleeps(t *testing.T) {
	const success, intr, inval = 0, 27, 28
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	var calls []uint64
	answers := []uint32{success, intr, success, inval}
	_, err := r.NewHostModuleBuilder("wasi_snapshot_preview1").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, in, _, n, _ uint32) uint32 {
		id, _ := m.Memory().ReadUint32Le(in + 16)
		timeout, _ := m.Memory().ReadUint64Le(in + 24)
		flags, _ := m.Memory().ReadUint16Le(in + 40)
		if tag, _ := m.Memory().ReadByte(in + 8); n != 1 || tag != 0 || id != 1 || flags != 0 {
			t.Errorf("%d subscriptions, tag %d, clock %d, flags %d", n, tag, id, flags)
		}
		calls = append(calls, timeout)
		return answers[len(calls)-1]
	}).Export("poll_oneoff").
		NewFunctionBuilder().WithFunc(func(code uint32) { panic(sys.NewExitError(code)) }).Export("proc_exit").
		Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Instantiate(ctx, Module)
	var exit *sys.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if len(calls) != len(answers) {
		t.Errorf("%d calls", len(calls))
	}
	for _, timeout := range calls {
		if timeout < 1<<62 {
			t.Errorf("timeout of %d ns", timeout)
		}
	}
}
