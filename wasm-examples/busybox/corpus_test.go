package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

var update = flag.Bool("update", false, "record what the busybox of this machine does, and what ours does in cases that say how they differ")

// asBusybox makes the test binary the program under test.
const asBusybox = "BUSYBOX_TEST_AS_BUSYBOX"

func TestMain(m *testing.M) {
	if os.Getenv(asBusybox) != "" {
		os.Unsetenv(asBusybox)
		os.Exit(run(os.Args))
	}
	os.Exit(m.Run())
}

// A script of the corpus, in files of blocks:
//
//	### why it differs from busybox, if it does; or, after "native:", why it does not hold on WASI
//	script
//	===> exit status
//	standard output
type testCase struct {
	differs string
	native  string
	script  string
	status  int
	stdout  string
}

func (c testCase) name() string {
	first, _, _ := strings.Cut(c.script, "\n")
	return first[:min(len(first), 60)]
}

func readCorpus(t *testing.T, file string) []testCase {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []testCase
	for _, block := range strings.Split("\n"+strings.TrimSuffix(string(data), "\n"), "\n###")[1:] {
		var c testCase
		head, rest, _ := strings.Cut(block, "\n")
		c.differs = strings.TrimSpace(head)
		if why, native := strings.CutPrefix(c.differs, "native:"); native {
			c.differs, c.native = "", why
		}
		var result string
		c.script, result, _ = strings.Cut(rest, "\n===> ")
		status, stdout, wrote := strings.Cut(result, "\n")
		c.status, _ = strconv.Atoi(strings.TrimSpace(status))
		if text, unended := strings.CutSuffix(stdout, "\n\\"); unended {
			c.stdout = text
		} else if wrote {
			c.stdout = stdout + "\n"
		}
		cases = append(cases, c)
	}
	return cases
}

func writeCorpus(t *testing.T, file string, cases []testCase) {
	t.Helper()
	var b strings.Builder
	for _, c := range cases {
		head := c.differs
		if c.native != "" {
			head = "native:" + c.native
		}
		fmt.Fprintf(&b, "%s\n%s\n===> %d\n", strings.TrimRight("### "+head, " "), c.script, c.status)
		if out, ended := strings.CutSuffix(c.stdout, "\n"); ended {
			b.WriteString(out + "\n")
		} else if c.stdout != "" {
			b.WriteString(c.stdout + "\n\\\n") // a backslash on the last line: the output has no newline at its end
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

type result struct {
	stdout, stderr string
	status         int
}

func (c testCase) check(t *testing.T, got result) {
	t.Helper()
	if got.stdout != c.stdout || got.status != c.status {
		t.Errorf("%s\n--- got %d\n%s--- want %d\n%s--- stderr\n%s", c.script, got.status, got.stdout, c.status, c.stdout, got.stderr)
	}
}

func runCommand(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second // for what it has left behind
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// patience is for one script: only one that hangs takes as long.
const patience = 5 * time.Minute

var corpora = []string{"testdata/shell.txt", "testdata/edge.txt", "testdata/applets.txt"}

// TestNative runs the corpus on the program built for this machine.
func TestNative(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	native := func(ctx context.Context, t *testing.T, c testCase) result {
		cmd := exec.CommandContext(ctx, self)
		cmd.Args = []string{"sh", "-c", c.script}
		cmd.Dir = t.TempDir()
		cmd.Env = []string{"PATH=/bin", "HOME=/root", "PWD=" + cmd.Dir, asBusybox + "=1"}
		return runCommand(t, cmd)
	}
	if !*update {
		eachCase(t, true, native)
		return
	}
	for _, file := range corpora {
		cases := readCorpus(t, file)
		for i, c := range cases {
			if c.differs != "" {
				got := native(t.Context(), t, c)
				cases[i].stdout, cases[i].status = got.stdout, got.status
			}
		}
		writeCorpus(t, file, cases)
	}
}

func eachCase(t *testing.T, native bool, run func(context.Context, *testing.T, testCase) result) {
	t.Helper()
	for _, file := range corpora {
		for _, c := range readCorpus(t, file) {
			if c.native != "" && !native {
				continue
			}
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				c.check(t, run(ctx, t, c))
			})
		}
	}
}

// TestOracle compares the corpus with the busybox of this machine, and with -update records what that says.
func TestOracle(t *testing.T) {
	oracle, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("there is no busybox on this machine to compare with (apt-get install busybox)")
	}
	bin := t.TempDir()
	if out, err := exec.Command(oracle, "--install", "-s", bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range corpora {
		cases := readCorpus(t, file)
		for i, c := range cases {
			if c.differs != "" {
				continue
			}
			t.Run(c.name(), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cmd := exec.CommandContext(ctx, oracle, "sh", "-c", c.script)
				cmd.Dir = t.TempDir()
				cmd.Env = []string{"PATH=" + bin, "HOME=/root", "PWD=" + cmd.Dir}
				cmd.Args[0] = filepath.Base(oracle)
				got := runCommand(t, cmd)
				if *update {
					cases[i].stdout, cases[i].status = got.stdout, got.status
					return
				}
				c.check(t, got)
			})
		}
		if *update {
			writeCorpus(t, file, cases)
		}
	}
}

// TestWASI runs the corpus on the module, in wazero with its own WASI host.
func TestWASI(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the module: seconds")
	}
	module := filepath.Join(t.TempDir(), "busybox.wasm")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", module, ".")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binary, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 8 << 20
	if len(binary) > limit {
		t.Errorf("the module has %d bytes, more than %d: its size is its start-up time", len(binary), limit)
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	compiled, err := r.CompileModule(ctx, binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("corpus", func(t *testing.T) {
		eachCase(t, false, func(ctx context.Context, t *testing.T, c testCase) result {
			return runModule(ctx, t, r, compiled, "sh", "-c", c.script)
		})
	})
}

func runModule(ctx context.Context, t *testing.T, r wazero.Runtime, m wazero.CompiledModule, args ...string) result {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"tmp", "root", "work"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	config := wazero.NewModuleConfig().WithName("").WithArgs(args...).
		WithEnv("PATH", "/bin").WithEnv("HOME", "/root").WithEnv("PWD", "/work").
		WithStdout(&stdout).WithStderr(&stderr).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(sysfs.DirFS(root), "/"))
	instance, err := r.InstantiateModule(ctx, m, config)
	if instance != nil {
		instance.Close(ctx)
	}
	res := result{stdout: stdout.String()}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		res.status = int(exit.ExitCode())
	} else if err != nil {
		t.Errorf("%v", err)
	}
	res.stderr = stderr.String()
	return res
}
