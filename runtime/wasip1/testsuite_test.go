package wasip1

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// testsuiteSpec is the JSON next to a test of the wasi-testsuite.
type testsuiteSpec struct {
	Root           string            `json:"root"`
	Dirs           []string          `json:"dirs"` // preopened ones, before 2025-08
	Args           []string          `json:"args"`
	Env            map[string]string `json:"env"`
	ExitCode       int               `json:"exit_code"`
	Stdout, Stderr *string
}

// notHere are tests that ask for something else than a container is to have.
var notHere = map[string]string{
	"c/sock_shutdown-invalid_fd": "takes fd 3 for closed, but a container always has its root there",
	"rust/symlink_create":        "wants absolute links refused; here they are resolved inside the container",
}

// notOld are tests that upstream has removed or corrected since.
var notOld = map[string]string{
	"c/fopen-with-no-access": "wants no preopened directory, but a container always has its root",
	"c/pwrite-with-append":   "wants pwrite to disregard O_APPEND; today's accepts what Linux does, too",
}

// TestWASITestsuite runs the built preview 1 tests (C, Rust and AssemblyScript)
// of https://github.com/WebAssembly/wasi-testsuite. They are not part of this
// repository: WASI_TESTSUITE names a checkout of its branch
// prod/testsuite-base, which has them built.
func TestWASITestsuite(t *testing.T) {
	dir := os.Getenv("WASI_TESTSUITE")
	if dir == "" {
		t.Skip("skipped: WASI_TESTSUITE does not name a checkout of wasi-testsuite, branch prod/testsuite-base")
	}
	tests, err := filepath.Glob(filepath.Join(dir, "tests/*/testsuite/wasm32-wasip1/*.wasm"))
	skip := maps.Clone(notHere)
	if err == nil && len(tests) == 0 { // before 2025-08
		maps.Copy(skip, notOld)
		tests, err = filepath.Glob(filepath.Join(dir, "tests/*/testsuite/*.wasm"))
	}
	if err != nil || len(tests) < 70 {
		t.Fatalf("only %d tests in %s (%v)", len(tests), dir, err)
	}
	for _, wasm := range tests {
		rel, _ := filepath.Rel(filepath.Join(dir, "tests"), wasm)
		language, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
		name := language + "/" + strings.TrimSuffix(filepath.Base(wasm), ".wasm")
		t.Run(name, func(t *testing.T) {
			if why := skip[name]; why != "" {
				t.Skipf("skipped: %s", why)
			}
			for kind, root := range rootKinds {
				t.Run(kind, func(t *testing.T) { runTestsuite(t, wasm, root) })
			}
		})
	}
}

func runTestsuite(t *testing.T, wasm string, rootFS func(t testing.TB, dir string) FS) {
	spec := testsuiteSpec{}
	text, err := os.ReadFile(strings.TrimSuffix(wasm, ".wasm") + ".json")
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	mounted := "."
	if len(spec.Dirs) == 1 {
		// Its program is given the name of the directory, or uses it in paths. Here
		// only the root is preopened.
		if spec.Root = spec.Dirs[0]; slices.Equal(spec.Args, spec.Dirs) {
			spec.Args = []string{"/"}
		} else {
			mounted = spec.Root
		}
	}
	c := ProcessConfig{Args: append([]string{filepath.Base(wasm)}, spec.Args...)}
	for k, v := range spec.Env {
		c.Env = append(c.Env, k+"="+v)
	}
	sort.Strings(c.Env)
	if spec.Root != "" {
		root := t.TempDir()
		fixture := filepath.Join(filepath.Dir(wasm), spec.Root) // not there if empty
		if err := os.CopyFS(filepath.Join(root, mounted), os.DirFS(fixture)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		// A zip does not have the fixtures' empty directory.
		if err := os.MkdirAll(filepath.Join(root, mounted, "writeable"), 0o755); err != nil {
			t.Fatal(err)
		}
		c.Root = rootFS(t, root)
	}
	r := run(t, context.Background(), wasm, c)
	if r.code != spec.ExitCode ||
		spec.Stdout != nil && *spec.Stdout != r.stdout ||
		spec.Stderr != nil && *spec.Stderr != r.stderr {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, spec.ExitCode, r.stdout, r.stderr)
	}
}
