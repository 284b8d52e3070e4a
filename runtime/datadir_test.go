package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// codeCache is where all tests of this process keep compiled code: of a guest that
// several of them run, compiling is most of what a test takes.
var codeCache string

func TestMain(m *testing.M) {
	var err error
	if codeCache, err = os.MkdirTemp("", "wasmpod-code-"); err != nil {
		panic(err)
	}
	// The process's accounting of CPU time loads its program a while after it was first
	// asked for, and is never closed.
	accounting := goleak.IgnoreAnyFunction("github.com/wasmpod/wasmpod/cgroup/bpf.(*Accounting).startResting.func1")
	goleak.VerifyTestMain(m, accounting, goleak.Cleanup(func(code int) {
		os.RemoveAll(codeCache)
		os.Exit(code)
	}))
}

// dataDir is a data directory of a test, empty but for compiled code.
func dataDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(codeCache, filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	return dir
}
