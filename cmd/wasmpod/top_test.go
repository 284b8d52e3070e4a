package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/metrics"
)

func TestTop(t *testing.T) {
	at := time.Unix(1000, 0)
	sample := func(at time.Time, cpu time.Duration, fuel, rx uint64, periods, throttled int64) []runtime.Snapshot {
		return []runtime.Snapshot{{Time: at, Pods: []runtime.PodUsage{
			{
				Pod: &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "busy"},
					Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "spin", RestartCount: 3}}},
				},
				Network: &metrics.Network{RxBytes: rx},
				Containers: []runtime.ContainerUsage{{
					Name: "spin", ID: "busy/spin/3", Started: at.Add(-time.Hour), CPU: cpu, CPUMilli: 500, Fuel: fuel, Memory: 3 << 20, MemoryLimit: 64 << 20,
					Throttle: cgroup.ThrottleStats{Periods: periods, Throttled: throttled},
				}},
			},
			{
				Pod:        &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "idle"}},
				Containers: []runtime.ContainerUsage{{Name: "c", ID: "idle/c/0", Started: at.Add(-10 * time.Second), CPU: 10 * time.Second, Memory: 8 << 20}},
			},
		}}}
	}
	before, now := sample(at, time.Second, 1000, 0, 10, 5), sample(at.Add(2*time.Second), 1500*time.Millisecond, 5_001_000, 2048, 30, 20)
	before[0].Pods = before[0].Pods[:1] // idle has just been started
	rows := topRows(before, now, topOptions{sort: "cpu"})
	if len(rows) != 2 || rows[0].Pod != "idle" || rows[1].Pod != "busy" {
		t.Fatalf("%+v", rows)
	}
	if r := rows[1]; r.CPUMilli != 250 || r.ThrottledPercent != 75 || r.FuelPerSecond != 2_500_000 || r.RxBytesPerSecond != 1024 || r.Restarts != 3 {
		t.Errorf("%+v", r)
	}
	if r := rows[0]; r.CPUMilli < 833 || r.CPUMilli > 1000 {
		t.Errorf("since its start: %+v", r)
	}
	for order, first := range map[string]string{"memory": "idle", "fuel": "busy", "name": "busy"} {
		if rows := topRows(before, now, topOptions{sort: order}); rows[0].Pod != first {
			t.Errorf("by %s: %+v", order, rows)
		}
	}
	if rows := topRows(before, now, topOptions{sort: "cpu", namespace: "other"}); len(rows) != 1 || rows[0].Pod != "idle" {
		t.Errorf("%+v", rows)
	}
	var out bytes.Buffer
	writeTop(&out, now, rows[1:])
	want := `2 pods, 1 containers: 250m CPU, 3Mi memory
NAMESPACE  POD   CONTAINER  CPU        THROTTLED  MEMORY    FUEL/S  RX/S   TX/S  RESTARTS
default    busy  spin       250m/500m  75%        3Mi/64Mi  2.5M    1.02k  0     3
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestTopRefuses(t *testing.T) {
	for _, args := range []string{"--sort size", "--interval 1ms", "--once", "extra"} {
		var out bytes.Buffer
		cmd := newCommand(strings.NewReader(""), &out, &out)
		cmd.SetArgs(append([]string{"top", "--data-dir", t.TempDir()}, strings.Fields(args)...))
		if err := cmd.Execute(); err == nil {
			t.Errorf("top %s: no error", args)
		}
	}
}
