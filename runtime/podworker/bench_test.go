package podworker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// BenchmarkProbes runs 1,000 pods with a readiness and a liveness probe every
// second for some seconds, and says how late attempts begin. What a probe does is
// free here: this is what the worker and the decisions cost. An attempt is late
// by how long after a whole second since its pod's ticks began it starts.
func BenchmarkProbes(b *testing.B) {
	const pods, seconds = 1000, 5
	for b.Loop() {
		var mu sync.Mutex
		var lateness []time.Duration
		begin := map[types.UID]time.Time{}
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}, begin: time.Now()}
		n.exec = func(context.Context, string, sandbox.ExecConfig) (int32, error) { return 0, nil }
		s := store.New()
		ctx, cancel := context.WithCancel(b.Context())
		var workers []*Worker
		for i := range pods {
			pod := testPod(func(s *corev1.PodSpec) {
				p := corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
				s.Containers[0].ReadinessProbe, s.Containers[0].LivenessProbe = &p, p.DeepCopy()
			})
			pod.UID, pod.Name = types.UID(fmt.Sprint("u", i)), fmt.Sprint("p", i)
			if err := s.AddPod(pod); err != nil {
				b.Fatal(err)
			}
			workers = append(workers, Start(ctx, Config{
				Driver: n, Images: n, Volumes: n, Store: s, Node: Node{Name: "node"},
				RemoveLogs: func(*corev1.Pod, string) error { return nil },
				Log:        slog.New(slog.DiscardHandler),
				OnProgress: func(pod *corev1.Pod, f lifecycle.Fact) {
					mu.Lock()
					defer mu.Unlock()
					switch f := f.(type) {
					case lifecycle.VolumesMounted: // what liveness ticks count from
						begin[pod.UID] = f.At
					case lifecycle.ProbeFinished:
						if d := f.Began.Sub(begin[pod.UID]); f.Kind == 0 {
							lateness = append(lateness, d%time.Second)
						}
					}
				},
			}, pod))
			if i%10 == 9 {
				time.Sleep(10 * time.Millisecond) // a node does not start a thousand in an instant
			}
		}
		time.Sleep(seconds * time.Second)
		cancel()
		for _, w := range workers {
			<-w.Done()
		}
		slices.Sort(lateness)
		b.ReportMetric(float64(lateness[len(lateness)*99/100].Microseconds())/1000, "p99-ms-late")
		b.ReportMetric(float64(lateness[len(lateness)/2].Microseconds())/1000, "p50-ms-late")
		b.ReportMetric(float64(len(lateness)), "liveness-attempts")
	}
}
