package wasip1

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wazeroTestdata is where the module cache has the guests that wazero tests its
// own host with: Rust, TinyGo, Zig, and C built by Zig.
func wazeroTestdata(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	dir := filepath.Join(strings.TrimSpace(string(out)), "imports/wasi_snapshot_preview1/testdata")
	if _, statErr := os.Stat(dir); err != nil || statErr != nil {
		t.Skipf("skipped: no source of wazero here (vendored?): %v, %v", err, statErr)
	}
	return dir
}

func TestToolchains(t *testing.T) {
	data, root := wazeroTestdata(t), t.TempDir()
	const tons = 8096
	for i := range tons {
		name := filepath.Join(root, "tons", fmt.Sprint(i))
		if i == 0 {
			for _, dir := range []string{"tons", "dir", "empty"} {
				if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"-", "a-", "ab-"} {
		if err := os.WriteFile(filepath.Join(root, "dir", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, toolchain := range []string{"cargo-wasi", "tinygo", "zig-cc", "zig"} {
		t.Run(toolchain, func(t *testing.T) {
			wasm := filepath.Join(data, toolchain, "wasi.wasm")
			dots := 0
			if toolchain == "zig-cc" { // the others leave "." and ".." out
				dots = 2
			}
			wasi := func(dir string, args ...string) string {
				t.Helper()
				r := run(t, context.Background(), wasm, ProcessConfig{
					Args: append([]string{"wasi"}, args...),
					Root: FS{Mounts: []Mount{{GuestPath: "/", Host: filepath.Join(root, dir), ReadOnly: true}}},
				})
				if r.code != 0 || r.stderr != "" {
					t.Errorf("%q: code %d, %s", args, r.code, r.stderr)
				}
				return r.stdout
			}
			lines := func(text string) []string {
				list := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
				list = slices.DeleteFunc(list, func(s string) bool { return s == "./." || s == "./.." || s == "" })
				slices.Sort(list)
				return list
			}
			if got := lines(wasi("dir", "ls", ".")); !slices.Equal(got, []string{"./-", "./a-", "./ab-"}) {
				t.Errorf("ls: %q", got)
			}
			// TinyGo's program takes only EBADF for a file that is no directory; here
			// as on Linux that is ENOTDIR.
			if toolchain != "tinygo" {
				if got := wasi("dir", "ls", "-"); got != "ENOTDIR\n" {
					t.Errorf("ls of a file: %q", got)
				}
			}
			if got := lines(wasi("empty", "ls", ".")); len(got) != 0 {
				t.Errorf("ls of nothing: %q", got)
			}
			all := wasi("tons", "ls", ".")
			if n := strings.Count(all, "\n"); n != tons+dots {
				t.Errorf("%d entries, want %d", n, tons+dots)
			}
			if got, want := wasi("dir", "stat"), "stdin isatty: false\nstdout isatty: false\nstderr isatty: false\n/ isatty: false\n"; got != want {
				t.Errorf("stat: %q", got)
			}
		})
	}
}

func TestToolchainPoll(t *testing.T) {
	wasm := filepath.Join(wazeroTestdata(t), "zig-cc", "wasi.wasm")
	compile(t, wasm)
	for name, test := range map[string]struct {
		stdin func() io.Reader
		want  string
		takes time.Duration
	}{
		"data":    {func() io.Reader { return strings.NewReader("test") }, "STDIN\n", 0},
		"end":     {func() io.Reader { return strings.NewReader("") }, "STDIN\n", 0},
		"nothing": {nil, "NOINPUT\n", 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := ProcessConfig{Args: []string{"wasi", "poll", "0", "500"}}
				if test.stdin != nil {
					c.Stdin = test.stdin()
				} else {
					r, w := io.Pipe()
					defer w.Close()
					c.Stdin = r
				}
				began := time.Now()
				r := run(t, t.Context(), wasm, c)
				if r.stdout != test.want || time.Since(began) != test.takes {
					t.Errorf("%q after %v, want %q after %v", r.stdout, time.Since(began), test.want, test.takes)
				}
			})
		})
	}
}

// TestSmallModules are written by hand, one of them against wasi_unstable.
func TestSmallModules(t *testing.T) {
	data := wazeroTestdata(t)
	for name, want := range map[string]result{
		"exit_on_start.wasm":          {code: 2},
		"exit_on_start_unstable.wasm": {code: 2},
		"print_args.wasm":             {stdout: "one\x00two\x00"},
		"print_prestat_dirname.wasm":  {stdout: "/"},
	} {
		if got := run(t, context.Background(), filepath.Join(data, name), ProcessConfig{Args: []string{"one", "two"}}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
