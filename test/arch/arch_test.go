// Package arch keeps the import directions of ARCHITECTURE.md.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wasmpod/wasmpod/"

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	// Looking at every source file makes them inputs of the test: go test would
	// take an old result for good otherwise, as it does not see what go list reads.
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var list []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		list = append(list, p)
	}
}

// pure packages take values and return values.
var pure = []string{
	"runtime/manifest", "runtime/workload", "runtime/service", "runtime/lifecycle", "runtime/container", "runtime/wasm/safepoint", "runtime/wasm/schedule",
	"probes", "cgroup",
}

// impure is what a pure package may not import, with the reason.
var impure = map[string]string{
	"context":  "a pure function has nothing to wait for",
	"os":       "input comes as bytes, output goes as values",
	"net":      "no I/O",
	"net/http": "no I/O",
	"log":      "problems are returned",
	"log/slog": "problems are returned",

	"math/rand":    "chance is an argument",
	"math/rand/v2": "chance is an argument",
	"crypto/rand":  "chance is an argument",

	"github.com/tetratelabs/wazero": "a decision must not depend on the engine",
}

func TestPurePackages(t *testing.T) {
	list := packages(t)
	for _, name := range pure {
		i := slices.IndexFunc(list, func(p pkg) bool { return p.ImportPath == name })
		if i < 0 {
			t.Errorf("%s is not there any more: mend this list", name)
			continue
		}
		for _, imported := range list[i].Imports {
			if why, ok := impure[imported]; ok {
				t.Errorf("%s imports %s: %s", name, imported, why)
			}
			if own, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(pure, own) {
				t.Errorf("%s imports %s, which is not pure", name, own)
			}
		}
	}
}

// homes are the only packages that import a heavy dependency: who replaces it
// has one place to look at.
var homes = map[string][]string{
	"github.com/tetratelabs/wazero":          {"runtime/wasm", "runtime/wasip1", "test/bench/engine", "test/bench/limits"},
	"github.com/google/go-containerregistry": {"runtime/image"},
	"github.com/klauspost/compress":          {"runtime/image"},
	"github.com/spf13/viper":                 {"cmd/wasmpod"},
	"github.com/spf13/cobra":                 {"cmd/wasmpod"},
	"github.com/prometheus/client_golang":    {"runtime/metrics", "runtime"},
	"github.com/miekg/dns":                   {"podnet/dns"},
	"github.com/containernetworking/cni":     {"podnet/cni"},
	"k8s.io/kubernetes":                      nil,
	"github.com/cilium/ebpf":                 {"cgroup/bpf", "cgroup/netwall"},
	"github.com/opencontainers/cgroups":      {"cgroup/cgroupfs"},
	"k8s.io/client-go":                       {"runtime/agent"},
}

func TestHeavyDependenciesHaveOneHome(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for dependency, allowed := range homes {
				if (imported == dependency || strings.HasPrefix(imported, dependency+"/")) && !slices.Contains(allowed, p.ImportPath) {
					t.Errorf("%s imports %s, whose home is %v", p.ImportPath, imported, allowed)
				}
			}
		}
	}
}

// rule: whoever matches from may not import what matches to.
type rule struct{ from, to, why string }

var rules = []rule{
	{"runtime/...", "cmd/...", "commands are what is on top"},
	{"podnet/...", "runtime/...", "the pod network knows neither WebAssembly nor Kubernetes"},
	{"podnet/...", "k8s.io/...", "the pod network knows neither WebAssembly nor Kubernetes"},
	{"runtime/store", "runtime/podworker", "the store is a meeting place: it knows nobody who meets there"},
	{"runtime/sandbox/...", "runtime/podworker", "a sandbox does what it is told and reports; it knows no worker"},
	{"runtime/sandbox/...", "runtime/store", "a sandbox gets values, it looks nothing up"},
	{"runtime/sandbox/...", "runtime/lifecycle", "policy is decided above"},
	{"runtime/podworker", "runtime/sandbox/inproc", "the worker drives any isolation class through sandbox.Driver"},
	{"runtime/podworker", "runtime/wasm/...", "the worker does not know that guests are WebAssembly"},
	{"runtime/podworker", "runtime/wasip1", "the worker does not know that guests are WebAssembly"},
	{"cmd/...", "runtime/podworker", "commands go through package runtime"},
	{"cmd/...", "runtime/sandbox/...", "commands go through package runtime"},
	{"cmd/...", "runtime/wasm/...", "commands go through package runtime"},
}

// mechanisms do not import one another: package sandbox introduces them.
var mechanisms = []string{"runtime/wasm", "runtime/wasip1", "runtime/image", "runtime/volume", "runtime/logs", "podnet", "podnet/dns", "podnet/egress", "podnet/hostport", "podnet/cni"}

func TestImportDirections(t *testing.T) {
	for _, a := range mechanisms {
		for _, b := range mechanisms {
			if a != b {
				rules = append(rules, rule{a, b, "mechanisms do not know one another"})
			}
		}
		for _, above := range []string{"runtime/sandbox/...", "runtime/podworker", "runtime/store", "runtime/lifecycle"} {
			rules = append(rules, rule{a, above, "mechanisms decide nothing and know nobody above"})
		}
	}
	for _, p := range packages(t) {
		if p.Doc == "" && !strings.HasPrefix(p.ImportPath, "test/") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if imported == module+"runtime" && !strings.HasPrefix(p.ImportPath, "cmd/") && p.ImportPath != "runtime/podtest" {
				t.Errorf("%s imports the composition root: only commands and podtest do", p.ImportPath)
			}
			imported, ours := strings.CutPrefix(imported, module)
			if first, _, _ := strings.Cut(imported, "/"); !ours && !strings.Contains(first, ".") {
				continue // the standard library, which has a package runtime too
			}
			for _, r := range rules {
				if matches(r.from, p.ImportPath) && matches(r.to, imported) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, r.why)
				}
			}
		}
	}
}

func matches(pattern, path string) bool {
	prefix, deep := strings.CutSuffix(pattern, "/...")
	return path == prefix || deep && strings.HasPrefix(path, prefix+"/")
}
