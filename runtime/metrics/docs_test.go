package metrics

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"
)

// The dashboard, the rules and the documentation name only what there is.
func TestDocs(t *testing.T) {
	e := NewEvents()
	observe(e, testPod())
	e.Evicted("memory.available")
	r := prometheus.NewRegistry()
	if err := Register(r, testSnapshot, e); err != nil {
		t.Fatal(err)
	}
	r.MustRegister(resourceNames{})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, f := range families {
		known[f.GetName()] = true
	}
	for _, d := range append(append(append(stateDescs[:len(stateDescs):len(stateDescs)], usageDescs...), engineDescs...), kubeletDescs...) {
		known[regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(d.String())[1]] = true
	}
	dir := filepath.Join("..", "..", "docs")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read("prometheus/rules.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	var expressions []string
	recorded := make(map[string]bool)
	for _, g := range rules.Groups {
		for _, rule := range g.Rules {
			expressions = append(expressions, rule.Expr)
			recorded[rule.Record] = true
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read("prometheus/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	name := regexp.MustCompile(`\b(container|kube|kubelet|prober|wasmpod|machine|node)_[a-z0-9_]+\b(:[a-z0-9_:]+)?|\b[a-z_]+:[a-z0-9_:]+`)
	check := func(where, text string) {
		for _, m := range name.FindAllString(text, -1) {
			base := strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_")
			if !known[base] && !recorded[m] && base != "container_state" {
				t.Errorf("%s: there is no %s", where, m)
			}
		}
	}
	for _, expr := range expressions {
		check(expr, regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, ""))
	}
	// Names with a wildcard and parts of names begin with an underscore or end
	// with an asterisk.
	for _, m := range regexp.MustCompile("`[a-z][a-z0-9_]*[a-z0-9]`").FindAllString(string(read("metrics.md")), -1) {
		check("metrics.md", strings.Trim(m, "`"))
	}
}

// resourceNames has the names of /metrics/resource that nothing else has.
type resourceNames struct{}

func (resourceNames) Describe(ch chan<- *prometheus.Desc) { ch <- nodeCPU; ch <- nodeMemory }
func (resourceNames) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(nodeCPU, prometheus.CounterValue, 0)
	ch <- prometheus.MustNewConstMetric(nodeMemory, prometheus.GaugeValue, 0)
}
