package wasip1

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// goStdTests are packages of the Go standard library whose own tests know more
// about files than we do. All of them pass.
var goStdTests = []string{"os", "io/fs", "path/filepath", "io/ioutil", "bufio"}

// TestGoStandardLibrary runs the standard library's own tests as guests.
func TestGoStandardLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: compiles five large guests, not for -short")
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	goroot := strings.TrimSpace(string(out))
	for _, pkg := range goStdTests {
		t.Run(pkg, func(t *testing.T) {
			// The source tree read-only, with a writable copy of the package in it.
			root, src := t.TempDir(), t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "tmp"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(src, os.DirFS(filepath.Join(goroot, "src", pkg))); err != nil {
				t.Fatal(err)
			}
			fs := rootFS(root)
			fs.Mounts = append(fs.Mounts,
				Mount{GuestPath: "/go", Host: goroot, ReadOnly: true},
				Mount{GuestPath: "/go/src/" + pkg, Host: src})
			r := run(t, context.Background(), wasmtest.BuildGoTest(t, pkg), ProcessConfig{
				Args: []string{"test", "-test.short", "-test.v"},
				Env:  []string{"PWD=/go/src/" + pkg, "GOROOT=/go", "TMPDIR=/tmp", "PATH=/bin", "HOME=/tmp"},
				Root: fs,
			})
			var failed []string
			for _, m := range regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`).FindAllStringSubmatch(r.stdout, -1) {
				failed = append(failed, m[1])
			}
			passed := strings.Count(r.stdout, "--- PASS: ")
			t.Logf("%d passed, %d skipped, exit code %d", passed, strings.Count(r.stdout, "--- SKIP: "), r.code)
			if len(failed) > 0 || passed == 0 || r.code != 0 {
				t.Errorf("failed: %s\n%s\n%s", failed, r.stdout, r.stderr)
			}
		})
	}
}
