// Package realprograms runs programs that nobody here wrote, as pods, through
// the built command: the Lua interpreter, the SQLite shell and esbuild, and a
// small C program of ours beside them.
package realprograms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const examples = "../../wasm-examples"

// patience is for one run on a busy machine, a first compilation of 20 MB of
// wasm included.
const patience = 5 * time.Minute

// binDir is where the command is built; empty while nothing has asked for it.
var binDir string

var wasmpod = sync.OnceValues(func() (string, error) {
	var err error
	if binDir, err = os.MkdirTemp("", "wasmpod-realprograms-"); err != nil {
		return "", err
	}
	bin := filepath.Join(binDir, "wasmpod")
	cmd := exec.Command("go", "build", "-o", bin, "../../cmd/wasmpod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binDir != "" {
		os.RemoveAll(binDir)
	}
	os.Exit(code)
}

// program builds a program as 'make guests' does, which does not build again what is
// newer than its sources, and returns the module. Where the script finds that it cannot
// be built, the test is skipped with the script's words, except in CI, which has all
// that is needed.
func program(t *testing.T, name, file string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if race {
		t.Skip("the command is built without the race detector: there is nothing to see that an ordinary run does not")
	}
	module, err := filepath.Abs(filepath.Join(examples, "bin", file))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(examples, "build.sh"), name).CombinedOutput()
	if err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, out)
	}
	if _, err := os.Stat(module); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
		t.Skipf("%s", bytes.TrimSpace(out))
	}
	return module
}

// command runs wasmpod and returns its exit code and output.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	bin, err := wasmpod()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	// Not the developer's configuration.
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0) {
		t.Fatalf("wasmpod %q: %v\n%s", args, err, e.String())
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// image makes an image of a module in a new store, and returns the data
// directory.
func image(t *testing.T, ref, module string) (dataDir string) {
	t.Helper()
	dataDir = t.TempDir()
	code, stdout, stderr := command(t, "image", "build", "-t", ref, "--data-dir", dataDir, module)
	if code != 0 || !strings.Contains(stdout, "@sha256:") {
		t.Fatalf("wasmpod image build: exit code %d\n%s%s", code, stdout, stderr)
	}
	return dataDir
}

// result is what a run of a manifest came to.
type result struct {
	code           int
	stdout, stderr string
	pod            corev1.Pod
}

// run runs a manifest with one pod.
func run(t *testing.T, dataDir, manifest string) result {
	t.Helper()
	status := filepath.Join(t.TempDir(), "status.json")
	var r result
	r.code, r.stdout, r.stderr = command(t, "run", "--data-dir", dataDir, "--log-prefix", "never",
		"--timeout", (patience / 2).String(), "--status-file", status, manifest)
	raw, err := os.ReadFile(status)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.stderr)
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	pods := 0
	for _, item := range list.Items {
		var kind struct{ Kind string }
		if err := json.Unmarshal(item, &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Kind != "Pod" {
			continue
		}
		pods++
		if err := json.Unmarshal(item, &r.pod); err != nil {
			t.Fatal(err)
		}
	}
	if pods != 1 {
		t.Fatalf("the status file has %d pods:\n%s", pods, raw)
	}
	return r
}

// succeeded checks that every container of the pod ended by itself, at the
// first try, with exit code 0.
func (r result) succeeded(t *testing.T, image string) {
	t.Helper()
	if r.code != 0 || r.pod.Status.Phase != corev1.PodSucceeded {
		t.Fatalf("exit code %d, phase %s\nstdout:\n%s\nstderr:\n%s", r.code, r.pod.Status.Phase, r.stdout, r.stderr)
	}
	statuses := append(r.pod.Status.InitContainerStatuses, r.pod.Status.ContainerStatuses...)
	for _, c := range statuses {
		if end := c.State.Terminated; end == nil || end.ExitCode != 0 || end.Reason != "Completed" || c.RestartCount != 0 {
			t.Errorf("container %s: %+v", c.Name, c.State)
		}
		if !strings.HasSuffix(c.Image, "/"+image) || !strings.Contains(c.ImageID, "@sha256:") {
			t.Errorf("IMG-12 container %s: image %q, imageID %q", c.Name, c.Image, c.ImageID)
		}
	}
}

// edited returns a copy of a manifest with a text replaced.
func edited(t *testing.T, manifest, old, new string) string {
	t.Helper()
	raw, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(raw), old) != 1 {
		t.Fatalf("%s does not have %q once", manifest, old)
	}
	path := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func TestLua(t *testing.T) {
	module := program(t, "lua", "lua.wasm")
	data := image(t, "lua:5.4", module)
	manifest := filepath.Join(examples, "lua", "pod.yaml")
	const output = "Lua 5.4 says hello to the world with 2 arguments\nARE PODS WHALES\nfalse\t42\n1 4 9 \n"

	t.Run("pod", func(t *testing.T) {
		r := run(t, data, manifest)
		r.succeeded(t, "lua:5.4")
		want(t, "stdout", r.stdout, output)
		if !strings.Contains(r.stderr, "this goes to stderr\n") {
			t.Errorf("stderr:\n%s", r.stderr)
		}
	})
	t.Run("STATE-03 the script's exit code is the container's", func(t *testing.T) {
		r := run(t, data, edited(t, manifest, `"/scripts/main.lua", "0"`, `"/scripts/main.lua", "3"`))
		if r.code != 3 || r.pod.Status.Phase != corev1.PodFailed {
			t.Fatalf("exit code %d, phase %s\n%s", r.code, r.pod.Status.Phase, r.stderr)
		}
		if end := r.pod.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 3 || end.Reason != "Error" {
			t.Errorf("terminated %+v", end)
		}
		want(t, "stdout", r.stdout, output)
	})
	t.Run("errors, coroutines and collections", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "script")
		if err := os.MkdirAll(script, 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, "testdata/torture.lua", filepath.Join(script, "torture.lua"))
		code, stdout, stderr := command(t, "run", "--data-dir", data, "-v", script+":/script:ro", "lua:5.4", "--", "/script/torture.lua")
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, stderr)
		}
		golden, err := os.ReadFile("testdata/torture.txt")
		if err != nil {
			t.Fatal(err)
		}
		want(t, "stdout", stdout, string(golden))
	})
}

func TestSQLite(t *testing.T) {
	data := image(t, "sqlite:3", program(t, "sqlite", "sqlite3.wasm"))
	manifest := filepath.Join(examples, "sqlite", "pod.yaml")
	t.Run("a database made by one container is read by another", func(t *testing.T) {
		r := run(t, data, manifest)
		r.succeeded(t, "sqlite:3")
		want(t, "stdout", r.stdout, "ok\nname,metres\nblue,29.9\nsperm,16.0\nminke,8.8\nwhales,longest\n4,29.9\n")
	})
	t.Run("a failing statement fails the pod", func(t *testing.T) {
		r := run(t, data, edited(t, manifest, "SELECT count(*) AS whales, max(metres) AS longest FROM whales;", "SELECT nope FROM whales;"))
		if r.code == 0 || r.pod.Status.Phase != corev1.PodFailed || !strings.Contains(r.stderr, "no such column: nope") {
			t.Errorf("exit code %d, phase %s\n%s", r.code, r.pod.Status.Phase, r.stderr)
		}
	})
	t.Run("a host directory as volume", func(t *testing.T) {
		dir := t.TempDir()
		sql := "PRAGMA page_size=4096; CREATE TABLE n(i INTEGER PRIMARY KEY, t TEXT);" +
			"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000) INSERT INTO n SELECT x, printf('%040d', x) FROM c;" +
			"CREATE INDEX nt ON n(t); DELETE FROM n WHERE i%3=0; VACUUM; SELECT count(*), sum(i) FROM n; PRAGMA integrity_check;"
		code, stdout, stderr := command(t, "run", "--data-dir", data, "-v", dir+":/data", "sqlite:3", "--", "-bail", "/data/n.db", sql)
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, stderr)
		}
		want(t, "stdout", stdout, "13334|133346667\nok\n")
		raw, err := os.ReadFile(filepath.Join(dir, "n.db"))
		if err != nil || !bytes.HasPrefix(raw, []byte("SQLite format 3\x00")) || len(raw)%4096 != 0 {
			t.Errorf("the database on the host: %d bytes, %v", len(raw), err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("journals were left behind: %v, %v", files, err)
		}
	})
}

func TestEsbuild(t *testing.T) {
	data := image(t, "esbuild", program(t, "esbuild", "esbuild.wasm"))
	r := run(t, data, filepath.Join(examples, "esbuild", "pod.yaml"))
	r.succeeded(t, "esbuild:latest")
	want(t, "stdout", r.stdout, "(()=>{var e=o=>`hello ${o.name}`;console.log(e({name:\"pod\"}))})();\n")

	t.Run("a syntax error is reported, and fails the run", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "bad.ts"), []byte("let x: = 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := command(t, "run", "--data-dir", data, "-v", dir+":/src:ro", "esbuild", "--", "/src/bad.ts")
		if code != 1 || !strings.Contains(stderr, "src/bad.ts:1:7") {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
	})
}

func TestHelloC(t *testing.T) {
	data := image(t, "hello-c", program(t, "hello-c", "hello-c.wasm"))
	manifest := filepath.Join(examples, "hello-c", "pod.yaml")
	r := run(t, data, manifest)
	r.succeeded(t, "hello-c:latest")
	for _, line := range []string{
		"hello from /hello-c.wasm", "argument: hello", "argument: world", "environment: HOSTNAME=hello-c",
		"environment: GREETING=hello", "today is a good day for pods", "tick 1", "tick 2", "tick 3",
	} {
		if !strings.Contains(r.stdout, line+"\n") {
			t.Errorf("stdout has no line %q:\n%s", line, r.stdout)
		}
	}
	if !strings.Contains(r.stderr, "hello exits with 0\n") {
		t.Errorf("stderr:\n%s", r.stderr)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}
