package runtime

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

func TestObserve(t *testing.T) {
	module := wasmtest.BuildGo(t, guest)
	started := make(chan struct{}, 1)
	// Longer than the path of a socket may be.
	dataDir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	r, err := Open(t.Context(), Config{
		DataDir: dataDir, NodeName: "n", Interpreter: raceEnabled,
		OnProgress: func(_ *corev1.Pod, f lifecycle.Fact) {
			if _, ok := f.(lifecycle.ContainerStarted); ok {
				started <- struct{}{}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	yaml := strings.ReplaceAll(podOf("Never", `"0", "0", 1h`), "GUEST", module) + `
    resources: {limits: {memory: 64Mi, cpu: 500m}}
`
	objects, err := manifest.Parse("", manifest.Source{Name: t.Name(), Data: []byte(yaml)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(objects); err != nil {
		t.Fatal(err)
	}
	<-started
	pod := r.Pods()[0]

	t.Run("snapshot", func(t *testing.T) {
		s := r.Snapshot()
		if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 || s.Pods[0].Network == nil {
			t.Fatalf("%+v", s.Pods)
		}
		c := s.Pods[0].Containers[0]
		if c.Name != "c" || c.MemoryLimit != 64<<20 || c.CPUMilli != 500 || c.CPUShares != 512 || c.Memory > c.MemoryPeak || c.Started.IsZero() {
			t.Errorf("%+v", c)
		}
		if c.FSBytes < 0 || c.FSInodes == 0 {
			t.Errorf("files: %d bytes, %d inodes", c.FSBytes, c.FSInodes)
		}
		// The pause module and the guest.
		if c := s.Node.Compile; c.Compiled+c.Cached != 2 || c.Failed != 0 || c.Time == 0 {
			t.Errorf("%+v", c)
		}
		if n := s.Node; n.Name != "n" || n.Memory.Capacity == 0 || n.FS.Capacity == 0 || n.Process.CPU == 0 {
			t.Errorf("%+v", n)
		}
	})
	t.Run("others of this user may ask", func(t *testing.T) {
		if list, err := Running(t.Context(), dataDir); err != nil || len(list) != 0 {
			t.Fatalf("before it serves: %v %v", list, err)
		}
		stop, err := r.ServeControl()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		list, err := Running(t.Context(), dataDir)
		if err != nil || len(list) != 1 || list[0].Pods[0].Name != "p" || list[0].Pods[0].Containers[0].MemoryLimit != 64<<20 {
			t.Errorf("%+v %v", list, err)
		}
		if list, err := Running(t.Context(), t.TempDir()); err != nil || list != nil {
			t.Errorf("where nobody runs: %v %v", list, err)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		h, err := r.MetricsHandler()
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			"/metrics":          `container_spec_memory_limit_bytes{container="c"`,
			"/metrics/resource": `container_memory_working_set_bytes{container="c",namespace="default",pod="p"}`,
			"/stats/summary":    `"podRef":{"name":"p"`,
		} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: %d, no %q", path, w.Code, want)
			}
		}
	})
	if err := r.DeletePod(context.WithoutCancel(t.Context()), pod.UID, 0); err != nil {
		t.Error(err)
	}
	if s := r.Snapshot(); len(s.Pods) > 0 && (len(s.Pods[0].Containers) > 0 || s.Pods[0].Network != nil) {
		t.Errorf("a deleted pod consumes: %+v", s.Pods[0])
	}
	// Of one that has ended before somebody deleted it there are series until it is
	// removed.
	r.progress(pod, lifecycle.ProbeFinished{Container: lifecycle.ContainerRef{Name: "c"}})
	if err := r.RemovePod(pod.UID); err != nil {
		t.Error(err)
	}
	registry := prometheus.NewRegistry()
	if err := r.RegisterMetrics(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.Contains(f.String(), `value:"p"`) {
			t.Errorf("a removed pod has a series: %v", f)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
