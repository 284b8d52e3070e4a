package manifest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// FuzzParse: whatever the input, Parse ends, does not panic, returns either
// objects or problems, and puts every problem on one line.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(seeds, "*.*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range hostile {
		if len(s) < 1<<12 {
			f.Add([]byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func check(t *testing.T, data []byte) (*manifest.Objects, *manifest.Error) {
	t.Helper()
	objs, err := manifest.Parse("ns", manifest.Source{Name: "-", Data: data})
	if err == nil {
		for _, p := range objs.Pods {
			if p.Namespace == "" || p.Spec.RestartPolicy == "" {
				t.Errorf("pod is not defaulted: %+v", p)
			}
		}
		return objs, nil
	}
	var e *manifest.Error
	if !errors.As(err, &e) || objs != nil || len(e.Problems) == 0 || len(e.Problems) > manifest.MaxProblems+1 {
		t.Fatalf("%v, %T with %d problems", objs, err, len(e.Problems))
	}
	for _, p := range e.Problems {
		if s := p.String(); strings.ContainsAny(s, "\n\r\x1b") || len(s) > 5000 || p.Message == "" || p.Line < 0 {
			t.Errorf("bad problem %q", s)
		}
	}
	return nil, e
}

const podHead = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: i\n"

var bomb = func() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		ref := "*a" + string(rune('a'+i-1))
		if i == 0 {
			ref = "*a0"
		}
		b.WriteString("k" + string(rune('a'+i)) + ": &a" + string(rune('a'+i)) + " [" + strings.Repeat(ref+",", 9) + ref + "]\n")
	}
	return b.String()
}()

// hostile inputs and what Parse says about them.
var hostile = map[string]string{
	"alias bomb":               bomb,
	"alias of itself":          "a: &a [*a]\n",
	"deep flow":                strings.Repeat("[", 5000),
	"deep flow, closed":        strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	"deep blocks":              strings.Repeat("- ", 5000),
	"deep JSON":                strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
	"huge exponent":            podHead + "    resources: {limits: {cpu: \"1e-1000000000\"}}\n",
	"huge number":              podHead + "    resources: {limits: {cpu: " + strings.Repeat("9", 100000) + "}}\n",
	"huge page size":           podHead + "    resources: {limits: {hugepages-1e-1000000000: 1}}\n",
	"too many replicas":        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec:\n  replicas: 2000000000\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n",
	"many unknown keys":        "apiVersion: v1\nkind: Pod\n" + strings.Repeat("k: 1\n", 3000),
	"many documents":           strings.Repeat("a: 1\n---\n", 30000),
	"too large":                strings.Repeat("#", manifest.MaxInput+1),
	"document too large":       "a: " + strings.Repeat("b", manifest.MaxDocument+1),
	"not UTF-8":                "a: \xff\xfe\n",
	"wasm":                     "\x00asm\x01\x00\x00\x00\xff",
	"control characters":       "apiVersion: v1\nkind: \"\\u001b[31mPod\"\n",
	"nested lists":             strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, 20) + strings.Repeat("]}", 20),
	"merge key":                "x: &x {a: 1}\n<<: *x\n",
	"list of nothing":          "[]",
	"number":                   "42",
	"a key that is a map":      "{a: 1}: 2\n",
	"unterminated JSON string": `{"apiVersion": "v1`,
}

func TestHostileInput(t *testing.T) {
	for name, input := range hostile {
		t.Run(name, func(t *testing.T) {
			if _, e := check(t, []byte(input)); e == nil {
				t.Error("accepted")
			} else {
				t.Log(e.Problems[0])
			}
		})
	}
	t.Run("size of all sources", func(t *testing.T) {
		half := []byte(strings.Repeat("#\n", manifest.MaxInput/3))
		if _, err := manifest.Parse("", manifest.Source{Name: "a", Data: half}, manifest.Source{Name: "b", Data: half}); err == nil || !strings.Contains(err.Error(), "b: manifests are too large") {
			t.Error(err)
		}
	})
}
