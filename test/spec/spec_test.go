package spec

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// The test writes SPEC.md: what wasmpod does with every field of a Pod, by which
// rules, and which tests show it. Run with -update to write it again.
var update = flag.Bool("update", false, "write SPEC.md")

const root = "../.."

// rules are those of docs/semantics.md that say what a field does. A field that
// is not listed has those of the field around it.
var rules = map[string]string{
	"restartPolicy":                           "RST-01 RST-02 RST-03 RST-04 RST-05 PHASE-07 PHASE-08 PHASE-09 MAN-08",
	"terminationGracePeriodSeconds":           "DEL-05 DEL-06 DEL-08 TIME-03",
	"activeDeadlineSeconds":                   "DEAD-01 DEAD-02",
	"hostname":                                "NET-01",
	"hostNetwork":                             "NET-05 DAPI-04",
	"imagePullSecrets":                        "IMG-10",
	"subdomain":                               "NET-02",
	"setHostnameAsFQDN":                       "NET-02",
	"hostnameOverride":                        "NET-01 NET-02",
	"hostAliases":                             "NET-03",
	"readinessGates":                          "COND-06 COND-09",
	"dnsPolicy":                               "NET-04",
	"dnsConfig":                               "NET-04",
	"enableServiceLinks":                      "ENV-01",
	"os":                                      "MAN-08",
	"containers":                              "MAIN-01 MAIN-02 STATE-02 STATE-03 STATE-11",
	"initContainers":                          "INIT-01 INIT-03 INIT-04 INIT-09 SIDE-01 SIDE-02 MAN-18",
	"volumes":                                 "VOL-01 VOL-20",
	"securityContext":                         "SEC-01",
	"securityContext.runAsUser":               "SEC-01 SEC-04",
	"securityContext.runAsGroup":              "SEC-01 SEC-04",
	"securityContext.runAsNonRoot":            "SEC-03",
	"securityContext.fsGroup":                 "VOL-42 SEC-05",
	"securityContext.fsGroupChangePolicy":     "VOL-42",
	"containers[].image":                      "IMG-01 IMG-02 IMG-03 IMG-07 IMG-12",
	"containers[].imagePullPolicy":            "IMG-01 IMG-04 IMG-05",
	"containers[].command":                    "ENV-11 ENV-12 ENV-14",
	"containers[].args":                       "ENV-11 ENV-12",
	"containers[].workingDir":                 "ENV-13",
	"containers[].ports":                      "MAN-15",
	"containers[].env":                        "ENV-01 ENV-03 ENV-04 ENV-07 MAN-21",
	"containers[].envFrom":                    "ENV-01 ENV-02",
	"containers[].env[].valueFrom":            "ENV-05",
	"containers[].env[].valueFrom.fieldRef":   "DAPI-01",
	"containers[].env[].valueFrom.fileKeyRef": "ENV-06",
	"containers[].env[].valueFrom.resourceFieldRef": "DAPI-05 DAPI-06",
	"resources":                                           "RES-03 RES-07",
	"resources.limits":                                    "RES-05 RES-07",
	"resources.requests":                                  "RES-03 RES-08",
	"containers[].resources":                              "RES-01 RES-03 MAN-24",
	"containers[].resources.limits[memory]":               "OOM-01 OOM-06",
	"containers[].resizePolicy":                           "RES-20 RES-21 COND-11 EVT-16",
	"containers[].volumeMounts":                           "MAN-22 VOL-21 VOL-33 VOL-34",
	"containers[].volumeMounts[].readOnly":                "VOL-32",
	"containers[].volumeMounts[].subPath":                 "VOL-30",
	"containers[].volumeMounts[].subPathExpr":             "VOL-31",
	"containers[].terminationMessagePath":                 "TMSG-01 TMSG-02",
	"containers[].terminationMessagePolicy":               "TMSG-02 TMSG-03",
	"containers[].stdin":                                  "MAIN-08",
	"containers[].stdinOnce":                              "EXEC-04",
	"containers[].tty":                                    "EXEC-04",
	"containers[].restartPolicy":                          "RST-10 SIDE-01 SIDE-02",
	"containers[].restartPolicyRules":                     "RST-11 RST-12",
	"containers[].restartPolicyRules[].action":            "RST-20 RST-21 RST-22",
	"containers[].livenessProbe":                          "PROBE-02 PROBE-06 PROBE-09 PROBE-11 PROBE-14 PROBE-21",
	"containers[].readinessProbe":                         "PROBE-03 PROBE-04 PROBE-12 COND-07",
	"containers[].startupProbe":                           "PROBE-05 PROBE-13 SIDE-03",
	"containers[].lifecycle":                              "HOOK-01 HOOK-02",
	"containers[].lifecycle.postStart":                    "HOOK-01 HOOK-02",
	"containers[].lifecycle.preStop":                      "HOOK-04 HOOK-05 SIDE-09",
	"containers[].securityContext":                        "SEC-01",
	"containers[].securityContext.runAsNonRoot":           "SEC-03",
	"containers[].securityContext.readOnlyRootFilesystem": "SEC-02",
	"volumes[].emptyDir":                                  "VOL-02",
	"volumes[].hostPath":                                  "VOL-04",
	"volumes[].configMap":                                 "VOL-10 VOL-11 VOL-12 VOL-13 VOL-14",
	"volumes[].secret":                                    "VOL-10 VOL-11 VOL-12 VOL-13 VOL-14",
	"volumes[].projected":                                 "VOL-16",
	"volumes[].downwardAPI":                               "DAPI-02",
	"volumes[].image":                                     "VOL-40",
	"volumes[].persistentVolumeClaim":                     "VOL-41",
	"volumes[].ephemeral":                                 "VOL-41",
}

func rulesOf(path string) []string {
	for p := path; ; {
		if r, ok := rules[p]; ok {
			return strings.Fields(r)
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			return nil
		}
		p = strings.TrimSuffix(p[:i], "[")
	}
}

var (
	id      = regexp.MustCompile(`(?:MAN|SBX|INIT|SIDE|MAIN|IMG|HOOK|PROBE|COND|PHASE|STATE|TMSG|RST|DEAD|DEL|OOM|ENV|DAPI|VOL|LOG|EXEC|RES|NET|SEC|KCTL|EVT|WL|TIME|FEAT)-?[0-9]{2}`)
	defined = regexp.MustCompile(`(?m)^(?:- |\| )([A-Z]+-[0-9]{2})\b`)
	heading = regexp.MustCompile(`(?m)^## [0-9]+\. (.*)$`)
)

// shown maps each rule to the tests that name it: Go test files, scenarios and
// scripts.
func shown(t *testing.T) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		scenario := strings.Contains(path, "testdata/") && strings.HasSuffix(path, ".txt") || strings.HasSuffix(path, ".txtar")
		switch {
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || path == "test/spec"):
			return fs.SkipDir
		case d.IsDir() || !scenario && !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		for _, rule := range id.FindAllString(string(text), -1) {
			if !strings.Contains(rule, "-") { // in the name of a Go function
				rule = rule[:len(rule)-2] + "-" + rule[len(rule)-2:]
			}
			if !slices.Contains(tests[rule], path) {
				tests[rule] = append(tests[rule], path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

func TestSpec(t *testing.T) {
	tests := shown(t)
	var b bytes.Buffer
	b.WriteString(`# What wasmpod does with a Pod

Made by ` + "`go test ./test/spec -update`" + ` from the table that the validation uses (` + "`runtime/manifest/fields.go`" + `) and
from the rules that tests name. *Honoured*: as Kubernetes does. *Ignored*: accepted with a warning. *Rejected*: the
manifest is not run, and the message says why. ` + "`containers[]`" + ` stands for init containers too. The rules are those of
[docs/semantics.md](docs/semantics.md).

## Fields of a PodSpec

| field | | note | rules |
|---|---|---|---|
`)
	for _, f := range manifest.Fields {
		r := rulesOf(f.Path)
		if f.Support != manifest.Honoured {
			r = nil
		} else if !slices.ContainsFunc(r, func(id string) bool { return len(tests[id]) > 0 }) {
			t.Errorf("%s is called honoured, but no test names a rule of it (%v)", f.Path, r)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Path, f.Support, f.Note, strings.Join(r, " "))
	}
	b.WriteString(`
Validation and defaults of all of them (MAN-01 to MAN-29) are compared with upstream's own code by ` + "`make test-upstream`" + `.

## Rules and the tests that show them

| rules of section | shown | by |
|---|---|---|
`)
	why, err := OutOfScope(filepath.Join(root, "docs", "out-of-scope.md"))
	if err != nil {
		t.Fatal(err)
	}
	var detail, left strings.Builder
	semantics, err := os.ReadFile(filepath.Join(root, "docs", "semantics.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := heading.FindAllStringSubmatchIndex(string(semantics), -1)
	for i, at := range sections {
		end := len(semantics)
		if i+1 < len(sections) {
			end = sections[i+1][0]
		}
		all, by := map[string]bool{}, map[string]bool{}
		var have []string
		for _, m := range defined.FindAllStringSubmatch(string(semantics[at[0]:end]), -1) {
			if all[m[1]] {
				continue
			}
			all[m[1]] = true
			files := tests[m[1]]
			switch {
			case why[m[1]] != "":
				fmt.Fprintf(&left, "| %s | %s |\n", m[1], why[m[1]])
			case len(files) == 0:
				fmt.Fprintf(&left, "| %s | no test names it |\n", m[1])
			}
			if len(files) > 0 && why[m[1]] == "" {
				have = append(have, m[1])
				fmt.Fprintf(&detail, "| %s | %s |\n", m[1], strings.Join(files, ", "))
				for _, f := range files {
					by[filepath.Dir(f)] = true
				}
			}
		}
		if len(all) == 0 {
			continue
		}
		title, _, _ := strings.Cut(string(semantics[at[2]:at[3]]), " (")
		fmt.Fprintf(&b, "| %s | %d of %d: %s | %s |\n", title, len(have), len(all),
			strings.Join(have, " "), strings.Join(slices.Sorted(maps.Keys(by)), ", "))
	}
	b.WriteString("\n## Each rule and its tests\n\n| rule | named in |\n|---|---|\n" + detail.String())
	b.WriteString("\n## Rules that are not followed, and why\n\n| rule | reason |\n|---|---|\n" + left.String())
	name := filepath.Join(root, "SPEC.md")
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if old, err := os.ReadFile(name); err != nil || !bytes.Equal(old, b.Bytes()) {
		t.Errorf("SPEC.md is not up to date (%v): run go test ./test/spec -update", err)
	}
}
