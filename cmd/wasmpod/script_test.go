package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// TestMain lets scripts run this test's binary as wasmpod.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wasmpod": main})
}

// TestScripts runs test/scripts: manifests, commands and what they print.
func TestScripts(t *testing.T) {
	if raceEnabled {
		t.Skip("compiling or interpreting the scripts' guests takes minutes under the race detector; the packages' own tests use small ones")
	}
	// Its name is that of its image's entry point.
	busybox := filepath.Join(t.TempDir(), "busybox.wasm")
	if err := os.Link(wasmtest.BuildGo(t, filepath.Join("..", "..", "wasm-examples", "busybox")), busybox); err != nil {
		t.Fatal(err)
	}
	// Shared by all scripts, so that the module is compiled once.
	data := t.TempDir()
	for _, args := range [][]string{
		{"image", "build", "--data-dir", data, "-t", "busybox", "-t", "busybox:1.28", busybox},
		{"run", "--data-dir", data, "busybox", "--", "true"}, // compiles it
	} {
		if code := realMain(context.Background(), args, nil, os.Stdout, os.Stderr); code != 0 {
			t.Fatalf("wasmpod %q: exit code %d", args, code)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "test", "scripts"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("WASMPOD_DATA_DIR", data)
			// The least that runs: it has a memory and ends at once.
			tiny := "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b"
			if err := os.WriteFile(filepath.Join(env.WorkDir, "tiny.wasm"), []byte(tiny), 0o644); err != nil {
				return err
			}
			// Scripts have no home, which is where Go would keep what it compiles.
			if out, err := exec.Command("go", "env", "GOCACHE").Output(); err == nil {
				env.Setenv("GOCACHE", strings.TrimSpace(string(out)))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "waitfile": waitfile, "term": terminate},
	})
}

// code runs a command and expects an exit code: code N COMMAND ARG...
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// waitfile waits until a file is there: waitfile NAME.
func waitfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile NAME")
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	tooLate := time.After(time.Minute)
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-look.C:
		case <-tooLate:
			ts.Fatalf("%s does not come", args[0])
		}
	}
}

// terminate sends SIGTERM to what runs in the background, which testscript's kill does
// not know: term.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: term")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}
