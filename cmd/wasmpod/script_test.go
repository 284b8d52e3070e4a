package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wasmpod/wasmpod/runtime"
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
	module, err := os.ReadFile(wasmtest.BuildGo(t, filepath.Join("..", "..", "wasm-examples", "busybox")))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(busybox, module, 0o644); err != nil { // no link: it may be another filesystem
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
		Condition: func(name string) (bool, error) {
			switch name {
			case "cni":
				return cniPossible()
			case "wall":
				return wallPossible()
			}
			return false, fmt.Errorf("there is no condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "waitfile": waitfile, "waitline": waitline, "term": terminate},
	})
}

// cniPossible says whether pods can have interfaces of the kernel here. Where CI runs
// the tests as root on Linux they must, if the kernel lets root make network
// namespaces: that something else is missing is an error.
func cniPossible() (bool, error) {
	if goruntime.GOOS != "linux" || os.Geteuid() != 0 {
		return false, nil
	}
	var missing []string
	for _, name := range []string{"/usr/lib/cni/bridge", "/usr/lib/cni/host-local", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); strings.Contains(string(out), "Operation not permitted") {
		return false, nil
	} else if err != nil {
		missing = append(missing, fmt.Sprintf("network namespaces: %v: %s", err, out))
	}
	if len(missing) > 0 && os.Getenv("CI") == "true" {
		return false, fmt.Errorf("missing: %s", strings.Join(missing, ", "))
	}
	return len(missing) == 0, nil
}

// wallPossible says whether the kernel can check the sockets of pods here. Where CI
// runs the tests as root on Linux it must, if there is a cgroup v2 hierarchy to write to.
func wallPossible() (bool, error) {
	for _, c := range runtime.Checks(runtime.Config{DataDir: os.TempDir(), EgressWall: runtime.WallAuto}) {
		if c.Name != "egress, by the kernel" || c.Status == "enforced" {
			continue
		}
		groups := !slices.ContainsFunc([]string{"not supported", "read-only file system", "operation not permitted", "permission denied", "function not implemented", "device or resource busy"}, func(why string) bool {
			return strings.Contains(c.Mechanism, why)
		})
		if goruntime.GOOS == "linux" && os.Geteuid() == 0 && groups && os.Getenv("CI") == "true" {
			return false, errors.New(c.Mechanism)
		}
		return false, nil
	}
	return true, nil
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

// scriptPatience bounds every wait of a script: nothing that is waited for takes this
// long, however much else the machine does.
const scriptPatience = 4 * time.Minute

// waitfile waits until a file is there: waitfile NAME.
func waitfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile NAME")
	}
	waitUntil(ts, args[0], func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil
	})
}

// waitline waits until what a command in the background writes into a file has lines
// that match: waitline FILE PATTERN...
func waitline(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitline FILE PATTERN...")
	}
	for _, pattern := range args[1:] {
		re, err := regexp.Compile("(?m)" + pattern)
		ts.Check(err)
		waitUntil(ts, pattern, func() bool {
			text, _ := os.ReadFile(ts.MkAbs(args[0])) // which may not be there yet
			return re.Match(text)
		})
	}
}

func waitUntil(ts *testscript.TestScript, what string, there func() bool) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	tooLate := time.After(scriptPatience)
	for !there() {
		select {
		case <-look.C:
		case <-tooLate:
			ts.Fatalf("%s does not come", what)
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
