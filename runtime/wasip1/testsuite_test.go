package wasip1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// testsuiteSpec is the JSON next to a test of the wasi-testsuite.
type testsuiteSpec struct {
	Root           string            `json:"root"` // preopened; without one nothing is
	Dirs           []string          `json:"dirs"` // preopened ones, before 2025-08
	Args           []string          `json:"args"`
	Env            map[string]string `json:"env"`
	ExitCode       int               `json:"exit_code"`
	Stdout, Stderr *string
}

// A difference is the one thing of a test that is meant to be otherwise here: the
// test has to come that far, and to end with this message.
type difference struct{ why, message string }

var (
	differences = map[string]difference{
		"rust/symlink_create": {
			"absolute links are made here, as in a container on Linux, and resolved inside the container",
			"creating a symlink to an absolute path",
		},
	}
	// oldDifferences are of tests that upstream has corrected since.
	oldDifferences = map[string]difference{
		"c/pwrite-with-append": {
			"pwrite does not disregard O_APPEND here, nor on Linux; today's test accepts both",
			"Assertion failed",
		},
	}
)

// testsuiteCase is a program of the suite, built or as source.
type testsuiteCase struct {
	name, path string
	build      func(t testing.TB, source string) string
}

// TestWASITestsuite runs the preview 1 tests of
// https://github.com/WebAssembly/wasi-testsuite. They are not part of this
// repository: WASI_TESTSUITE names a checkout of any of its branches. Programs in
// C and AssemblyScript are built from it, see [wasmtest.BuildC] and
// [wasmtest.BuildAssemblyScript]; branch prod/testsuite-base has all of them built,
// those in Rust as well.
func TestWASITestsuite(t *testing.T) {
	dir := os.Getenv("WASI_TESTSUITE")
	if dir == "" {
		t.Skip("skipped: WASI_TESTSUITE does not name a checkout of wasi-testsuite")
	}
	for _, test := range testsuiteCases(t, dir) {
		t.Run(test.name, func(t *testing.T) {
			wasm := test.path
			if test.build != nil {
				text, err := os.ReadFile(test.path)
				if err != nil {
					t.Fatal(err)
				}
				wasm = test.build(t, string(text))
			}
			for kind, root := range rootKinds {
				t.Run(kind, func(t *testing.T) {
					want, differs := differences[test.name]
					if old, ok := oldDifferences[strings.TrimSuffix(test.name, ".c")]; ok && isOldTestsuite(dir) {
						want, differs = old, true
					}
					failure, stderr := runTestsuite(t, wasm, test.path, root)
					switch {
					case differs && (failure == "" || !strings.Contains(stderr, want.message)):
						t.Errorf("%q, want it to end with %q (%s)\n%s", failure, want.message, want.why, stderr)
					case !differs && failure != "":
						t.Errorf("%s\n%s", failure, stderr)
					}
				})
			}
		})
	}
}

// isOldTestsuite says that a checkout has its built tests where they were before 2025-08.
func isOldTestsuite(dir string) bool {
	old, _ := filepath.Glob(filepath.Join(dir, "tests/*/testsuite/*.wasm"))
	return len(old) > 0
}

func testsuiteCases(t *testing.T, dir string) (list []testsuiteCase) {
	t.Helper()
	buildC := func(t testing.TB, source string) string { return wasmtest.BuildC(t, source) }
	for _, kind := range []struct {
		extension string
		build     func(t testing.TB, source string) string
		least     int // of them, if there are any
		globs     []string
	}{
		{".wasm", nil, 70, []string{"tests/*/testsuite/wasm32-wasip1", "tests/*/testsuite"}},
		{".c", buildC, 14, []string{"tests/c/src", "tests/c/testsuite/wasm32-wasip1", "tests/c/testsuite"}},
		{".ts", wasmtest.BuildAssemblyScript, 12, []string{"tests/assemblyscript/wasm32-wasip1/src",
			"tests/assemblyscript/testsuite/wasm32-wasip1", "tests/assemblyscript/testsuite"}},
	} {
		for _, glob := range kind.globs {
			found, err := filepath.Glob(filepath.Join(dir, glob, "*"+kind.extension))
			if err != nil || len(found) > 0 && len(found) < kind.least {
				t.Fatalf("only %d of %s in %s (%v)", len(found), glob, dir, err)
			}
			for _, path := range found {
				rel, _ := filepath.Rel(filepath.Join(dir, "tests"), path)
				language, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
				name := language + "/" + strings.TrimSuffix(filepath.Base(path), kind.extension)
				if kind.build != nil {
					name += kind.extension
				}
				list = append(list, testsuiteCase{name, path, kind.build})
			}
			if len(found) > 0 {
				break
			}
		}
	}
	if len(list) < 26 {
		t.Fatalf("only %d tests in %s", len(list), dir)
	}
	return list
}

// runTestsuite says what is not as the specification next to path, a test's
// source or module, wants it.
func runTestsuite(t *testing.T, wasm, path string, rootFS func(t testing.TB, dir string) FS) (failure, stderr string) {
	t.Helper()
	spec := testsuiteSpec{}
	text, err := os.ReadFile(strings.TrimSuffix(path, filepath.Ext(path)) + ".json")
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
	var out, errs bytes.Buffer
	c := ProcessConfig{Args: append([]string{"test.wasm"}, spec.Args...), Stdout: &out, Stderr: &errs}
	for k, v := range spec.Env {
		c.Env = append(c.Env, k+"="+v)
	}
	sort.Strings(c.Env)
	if spec.Root != "" {
		root := t.TempDir()
		fixture := filepath.Join(filepath.Dir(path), spec.Root) // not there if empty
		if err := os.CopyFS(filepath.Join(root, mounted), os.DirFS(fixture)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		// A zip does not have the fixtures' empty directory.
		if err := os.MkdirAll(filepath.Join(root, mounted, "writeable"), 0o755); err != nil {
			t.Fatal(err)
		}
		c.Root = rootFS(t, root)
	}
	p, err := NewProcess(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	if spec.Root == "" {
		p.fds.close(3) // nothing is preopened
	}
	r, err := sharedRuntime()
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.InstantiateModule(WithProcess(context.Background(), p), compile(t, wasm), anonymous)
	if m != nil {
		m.Close(context.Background())
	}
	code := 0
	if exit := new(sys.ExitError); errors.As(err, &exit) {
		code, err = int(exit.ExitCode()), nil
	}
	switch {
	case err != nil:
		return err.Error(), errs.String()
	case code != spec.ExitCode:
		return fmt.Sprintf("exit code %d, want %d", code, spec.ExitCode), errs.String()
	case spec.Stdout != nil && *spec.Stdout != out.String():
		return "stdout " + out.String(), errs.String()
	case spec.Stderr != nil && *spec.Stderr != errs.String():
		return "another stderr is wanted: " + *spec.Stderr, errs.String()
	}
	return "", errs.String()
}
