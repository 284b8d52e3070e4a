package runtime

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

func TestMemoryPressure(t *testing.T) {
	module := wasmtest.BuildGo(t, guest)
	pod := func(name, resources string) string {
		yaml := strings.Replace(podOf("Always", `"0", "0", 10h`), "name: p}", "name: "+name+"}", 1)
		return strings.ReplaceAll(yaml, "GUEST", module) + "    resources: " + resources + "\n---\n"
	}
	yaml := pod("guaranteed", "{limits: {memory: 256Mi, cpu: 100m}}") + pod("best-effort", "{}") + pod("critical", "{}")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var evicted []string
		r, err := Open(t.Context(), Config{
			DataDir: dataDir(t), Interpreter: raceEnabled,
			EvictBelow: 1 << 60, // nobody has that much
			OnEvent: func(e *corev1.Event) {
				if e.Reason == "Evicted" {
					mu.Lock()
					defer mu.Unlock()
					evicted = append(evicted, e.InvolvedObject.Name)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		objects, err := manifest.Parse("", manifest.Source{Name: t.Name(), Data: []byte(yaml)})
		if err != nil {
			t.Fatal(err)
		}
		priority := int32(2_000_001_000)
		for _, p := range objects.Pods {
			if p.Name == "critical" {
				p.Spec.Priority = &priority
			}
		}
		if err := r.Apply(objects); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		mu.Lock()
		got := strings.Join(evicted, " ")
		mu.Unlock()
		if got != "best-effort guaranteed" {
			t.Errorf("RES-31: evicted %q", got)
		}
		for _, p := range r.Pods() {
			if p.Name == "critical" {
				if p.Status.Phase != corev1.PodRunning {
					t.Errorf("RES-32: the critical pod is %s", p.Status.Phase)
				}
				continue
			}
			if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || !strings.HasPrefix(p.Status.Message, "The node was low on resource: memory. Threshold quantity: 1Ei, available: ") {
				t.Errorf("RES-32: %s is %s, %s: %s", p.Name, p.Status.Phase, p.Status.Reason, p.Status.Message)
			}
			if p.Name == "best-effort" && !strings.Contains(p.Status.Message, "request is 0, has larger consumption of memory. ") {
				t.Errorf("RES-31: %s", p.Status.Message)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReserved(t *testing.T) {
	for _, text := range []string{"cpu", "cpu=", "disk=1", "memory=-1", "cpu=1,x"} {
		if list, err := ParseReserved(text); err == nil {
			t.Errorf("%q: %v", text, list)
		}
	}
	list, err := ParseReserved("cpu=100m, memory=1Mi")
	if err != nil {
		t.Fatal(err)
	}
	all := thisNode("").Allocatable
	was := all[corev1.ResourceMemory]
	if err := reserve(all, list); err != nil {
		t.Fatal(err)
	}
	if got := all[corev1.ResourceMemory]; got.Value() != was.Value()-1<<20 {
		t.Errorf("%d of %d", got.Value(), was.Value())
	}
	if list, err = ParseReserved("memory=1Ei"); err != nil || reserve(all, list) == nil {
		t.Errorf("more than there is was reserved: %v", err)
	}
}
