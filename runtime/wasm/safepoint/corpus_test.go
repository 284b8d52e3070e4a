package safepoint_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst

// wazeroDir is where the module cache has wazero, whose test data is a corpus
// of hand-written and compiled modules.
var wazeroDir = sync.OnceValue(func() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})

// corpus calls f with every module of wazero's test data.
func corpus(t testing.TB, f func(name string, wasm []byte)) {
	t.Helper()
	if wazeroDir() == "" {
		t.Skip("the module cache has no wazero sources")
	}
	n := 0
	err := filepath.WalkDir(wazeroDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".wasm" {
			return err
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(wazeroDir(), path)
		f(name, wasm)
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Skip("wazero's sources come without test data")
	}
}

func accepts(ctx context.Context, r wazero.Runtime, wasm []byte) error {
	cm, err := r.CompileModule(ctx, wasm)
	if err != nil {
		return err
	}
	return cm.Close(ctx)
}

// Whatever wazero accepts, it accepts rewritten; and what it refuses, the
// rewriter does not make acceptable.
func TestRewriteCorpus(t *testing.T) {
	ctx := context.Background()
	// The interpreter decodes and validates as the compiler does, but faster.
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer r.Close(ctx)
	var same, both, onlyUs int
	corpus(t, func(name string, wasm []byte) {
		before := accepts(ctx, r, wasm)
		out, err := safepoint.Rewrite(wasm, safepoint.Options{TableElements: 1 << 27})
		if err != nil {
			// wazero decodes some of a proposal that it has not been told to enable.
			if before == nil && !strings.Contains(name, "typed-function-references") {
				t.Errorf("%s: wazero accepts it, the rewriter says: %v", name, err)
			}
			both++
			return
		}
		after := accepts(ctx, r, out)
		switch {
		case before == nil && after != nil:
			t.Errorf("%s: accepted before, refused when rewritten: %v", name, after)
		case before != nil && after == nil:
			t.Errorf("%s: refused before (%v), accepted when rewritten", name, before)
		case before == nil:
			same++
		default:
			onlyUs++
		}
	})
	t.Logf("%d accepted, %d refused by both, %d refused by wazero's validator only", same, both, onlyUs)
}
