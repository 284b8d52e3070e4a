package manifest_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files; commit only the changes you understand")

const seeds = "../../wasm-examples/seeds"

// The seeds are manifests as people find them on the web, with the mistakes
// they come with. testdata/seeds.txt is what a user is told about each of them.
func TestSeeds(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(filepath.Join(seeds, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 50 {
		t.Fatalf("%d seeds found", len(files))
	}
	sort.Strings(files)
	var got strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(f)
		objs, err := manifest.Parse("", manifest.Source{Name: name, Data: data})
		got.WriteString("=== " + name + "\n")
		var problems *manifest.Error
		// A .fixed list of arguments is still no object.
		if err != nil && strings.Contains(name, ".fixed.") && !strings.HasPrefix(name, "22-") {
			t.Errorf("%s is rejected", name)
		}
		switch {
		case errors.As(err, &problems):
			got.WriteString(problems.Error() + "\n")
			for _, w := range problems.Warnings {
				got.WriteString("warning: " + w.String() + "\n")
			}
		case err != nil:
			t.Fatalf("%s: %T is not an *Error", name, err)
		default:
			if !strings.Contains(name, ".fixed.") && !strings.HasPrefix(name, "24-") {
				t.Errorf("%s is accepted", name)
			}
			got.WriteString("ok\n")
			for _, w := range objs.Warnings {
				got.WriteString("warning: " + w.String() + "\n")
			}
		}
	}
	golden(t, "testdata/seeds.txt", got.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); go test -run %s -update rewrites it\n%s", file, t.Name(), d)
	}
}
