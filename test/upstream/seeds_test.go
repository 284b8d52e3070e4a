package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const seeds = "../../wasm-examples/seeds"

// intended are the seeds about which we say something else than upstream, and
// why.
var intended = map[string]string{
	"19-pod-header-map.json":           "after `kind: pod` we go on as if it said Pod, and report what is missing besides",
	"25-ydzs-site-two-containers.json": "upstream's decoder stops at the first port in quotes; we report both, and the stray brackets",
}

// Every seed is accepted by both or by neither; where upstream gets as far as
// validation, both report the same fields with the same messages.
func TestSeeds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(seeds, "*.*"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d seeds, %v", len(files), err)
	}
	for _, f := range files {
		name := filepath.Base(f)
		if strings.HasSuffix(name, ".md") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			v, err := upstream(data)
			if err != nil {
				t.Fatal(err)
			}
			objs, problems := ours(name, data)
			rejected := v.decode != nil || len(v.errs) > 0
			if rejected != (len(problems) > 0) {
				t.Fatalf("upstream: %v %v\nours: %v", v.decode, v.errs, problems)
			}
			if intended[name] != "" {
				return
			}
			if v.decode != nil {
				// Every field that upstream does not know, we do not know either.
				for _, part := range strings.Split(v.decode.Error(), ", ") {
					i := strings.Index(part, `unknown field "`)
					if i < 0 {
						continue
					}
					found := false
					for _, p := range problems {
						found = found || strings.Contains(p.Message, part[i:])
					}
					if !found {
						t.Errorf("upstream: %s\nours: %v", part[i:], problems)
					}
				}
				return
			}
			if d := cmp.Diff(v.texts(), ourTexts(problems)); d != "" {
				t.Errorf("problems (-upstream +ours)\n%s", d)
			}
			if objs != nil && len(objs.Pods) == 1 {
				comparePods(t, v.pod, objs.Pods[0])
			}
		})
	}
}
