// Package wasmtest builds WebAssembly guests for tests: once per test process,
// and for sources given as text once per machine, in the user's cache directory.
package wasmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// builds has a function per guest, made by sync.OnceValues.
var builds sync.Map

// BuildGo builds a Go program for GOOS=wasip1 and returns the path of the module.
// program is the directory of a main package or, if it has a line break, the
// source of one that imports only the standard library. Flags go to go build.
func BuildGo(t testing.TB, program string, flags ...string) string {
	t.Helper()
	env := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}
	if strings.Contains(program, "\n") {
		key := append([]string{"go", goVersion(), program}, flags...)
		return build(t, key, true, func(dir, out string) *exec.Cmd {
			src := filepath.Join(dir, "main.go")
			args := append(append([]string{"build", "-o", out}, flags...), src)
			cmd := exec.Command("go", args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), append(env, "GOFLAGS=", "GOWORK=off", "GO111MODULE=off")...)
			return cmd
		}, file{"main.go", program})
	}
	abs, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	key := append([]string{"go dir", abs}, flags...)
	return build(t, key, false, func(_, out string) *exec.Cmd {
		cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), ".")...)
		cmd.Dir = abs
		cmd.Env = append(os.Environ(), env...)
		return cmd
	})
}

// BuildGoTest builds the tests of a package, as go test -c does.
func BuildGoTest(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	key := append([]string{"go test", goVersion(), pkg}, flags...)
	return build(t, key, !strings.Contains(pkg, "."), func(dir, out string) *exec.Cmd {
		cmd := exec.Command("go", append(append([]string{"test", "-c", "-o", out}, flags...), pkg)...)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		return cmd
	})
}

// BuildC builds a C program with clang and wasi-libc and returns the path of the
// module. It skips the test where there is no such toolchain, see [missing]. The
// sysroot is Debian's, or WASI_SYSROOT. Flags go to clang.
func BuildC(t testing.TB, source string, flags ...string) string {
	t.Helper()
	sysroot := os.Getenv("WASI_SYSROOT")
	if sysroot == "" {
		sysroot = "/usr"
	}
	clang, err := exec.LookPath("clang")
	if err != nil {
		Missing(t, "clang is not installed, so C guests cannot be built")
	}
	if found, _ := filepath.Glob(filepath.Join(sysroot, "lib/wasm32-wasi*/libc.a")); len(found) == 0 {
		Missing(t, "there is no wasi-libc under %s (set WASI_SYSROOT), so C guests cannot be built", sysroot)
	}
	key := append([]string{"c", clang, sysroot, source}, flags...)
	return build(t, key, true, func(dir, out string) *exec.Cmd {
		args := append([]string{"--target=wasm32-wasi", "--sysroot=" + sysroot, "-O1", "-o", out, "main.c"}, flags...)
		cmd := exec.Command(clang, args...)
		cmd.Dir = dir
		return cmd
	}, file{"main.c", source})
}

// BuildAssemblyScript builds a program in AssemblyScript and returns the path of
// the module. It skips the test where there is no asc in PATH, or none that has the
// package @assemblyscript/wasi-shim beside it in node_modules, see [Missing].
func BuildAssemblyScript(t testing.TB, source string) string {
	t.Helper()
	asc, err := exec.LookPath("asc")
	if err == nil {
		asc, err = filepath.EvalSymlinks(asc)
	}
	if err != nil {
		Missing(t, "asc (npm's package assemblyscript) is not installed, so AssemblyScript guests cannot be built")
	}
	modules := filepath.Join(filepath.Dir(asc), "../..") // of assemblyscript/bin
	const shim = "@assemblyscript/wasi-shim/asconfig.json"
	if _, err := os.Stat(filepath.Join(modules, shim)); err != nil {
		Missing(t, "npm's package @assemblyscript/wasi-shim is not installed beside asc: %v", err)
	}
	return build(t, []string{"asc", asc, source}, true, func(dir, out string) *exec.Cmd {
		// asc looks for packages in the program's own directory.
		if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
			t.Error(err)
		}
		cmd := exec.Command(asc, "main.ts", "--config", "node_modules/"+shim, "-o", out)
		cmd.Dir = dir
		return cmd
	}, file{"main.ts", source})
}

// BuildWAT assembles a guest in the text format and returns the path of the
// module, which keeps the source's names. path is a file or, if it begins with a
// parenthesis or a comment, the text itself. It skips the test where there is no
// wat2wasm, see [missing].
func BuildWAT(t testing.TB, path string) string {
	t.Helper()
	text := path
	if trimmed := strings.TrimSpace(path); !strings.HasPrefix(trimmed, "(") && !strings.HasPrefix(trimmed, ";") {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	RequireWAT(t)
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		t.Fatal(err)
	}
	return build(t, []string{"wat", tool, text}, true, func(dir, out string) *exec.Cmd {
		cmd := exec.Command(tool, "--enable-all", "--debug-names", "main.wat", "-o", out)
		cmd.Dir = dir
		return cmd
	}, file{"main.wat", text})
}

// RequireWAT skips a test that will need BuildWAT in places where it cannot be
// skipped: in its subtests' helpers or in other goroutines.
func RequireWAT(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("wat2wasm"); err != nil {
		Missing(t, "wat2wasm (package wabt) is not installed, so guests in text form cannot be assembled")
	}
}

// Missing ends a test that needs what this host lacks: skipped on somebody's machine, failed
// where CI=true says that all is meant to be there, so that a test cannot
// drop out unnoticed.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf("skipped: "+format, args...)
}

type file struct{ name, text string }

// build runs a compiler once per key and test process. With keep a result of
// an earlier process is as good: the key holds all that it depends on.
func build(t testing.TB, key []string, keep bool, command func(dir, out string) *exec.Cmd, files ...file) string {
	t.Helper()
	sum := sha256.Sum256([]byte(strings.Join(key, "\x00")))
	name := hex.EncodeToString(sum[:16])
	once, _ := builds.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		cache = filepath.Join(cache, "wasmpod-guests")
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return "", err
		}
		path := filepath.Join(cache, name+".wasm")
		if _, err := os.Stat(path); err == nil && keep {
			return path, nil
		}
		dir, err := os.MkdirTemp("", "wasmtest")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), 0o644); err != nil {
				return "", err
			}
		}
		out := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
		defer os.Remove(out)
		cmd := command(dir, out)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", cmd, err, text)
		}
		return path, os.Rename(out, path) // whole or not at all, for tests of other processes
	}))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatalf("building a guest: %v", err)
	}
	return path
}

var goVersion = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
})
