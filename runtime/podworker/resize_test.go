package podworker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// give changes the memory limit of the pod's first container.
func give(w *Worker, memory string, edit ...func(*corev1.PodSpec)) error {
	pod := w.cfg.Store.Pod(w.uid)
	pod.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse(memory)
	for _, e := range edit {
		e(&pod.Spec)
	}
	return w.Update(pod)
}

func limited(edit func(*corev1.Container)) *corev1.Pod {
	return testPod(func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyAlways
		c := &s.Containers[0]
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Mi"), corev1.ResourceCPU: resource.MustParse("100m")}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
		edit(c)
	})
}

func events(w *Worker, prefix string) (list []string) {
	for _, e := range w.cfg.Store.Events() {
		if strings.HasPrefix(e.Reason, prefix) {
			list = append(list, e.Reason)
		}
	}
	return list
}

func TestResize(t *testing.T) {
	t.Run("RES-20 RES-21 EVT-16 in place, once the guest uses less", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}, updateErrs: []error{
				&sandbox.ResizeError{Err: sandbox.ErrNotRunning}, &sandbox.ResizeError{Err: sandbox.ErrNotRunning},
			}}
			play(t, n, limited(func(*corev1.Container) {}), 40*time.Second, func(w *Worker) {
				time.Sleep(5 * time.Second)
				if err := give(w, "12Mi"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				s := w.cfg.Store.Pod(w.uid).Status
				if c := s.Conditions[0]; c.Type != corev1.PodResizeInProgress || c.Reason != "Error" {
					t.Errorf("COND-11: %+v", c)
				}
				time.Sleep(30 * time.Second)
				got := w.cfg.Store.Pod(w.uid).Status.ContainerStatuses[0]
				if got.Resources.Limits.Memory().Value() != 12<<20 || got.RestartCount != 0 {
					t.Errorf("%+v", got)
				}
				n.expect(t, "0s start a/0", "5s update a to 12 MiB, 102 shares", "15s update a to 12 MiB, 102 shares",
					"25s update a to 12 MiB, 102 shares")
				if got := strings.Join(events(w, "Resize"), " "); got != "ResizeStarted ResizeError ResizeCompleted" {
					t.Error(got)
				}
			})
		})
	})
	t.Run("RES-20 MAIN-04 by a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}}
			pod := limited(func(c *corev1.Container) {
				c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
			})
			play(t, n, pod, 10*time.Second, func(w *Worker) {
				time.Sleep(5 * time.Second)
				if err := give(w, "12Mi"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				got := w.cfg.Store.Pod(w.uid).Status.ContainerStatuses[0]
				if got.Resources.Limits.Memory().Value() != 12<<20 || got.RestartCount != 1 {
					t.Errorf("%+v", got)
				}
				n.expect(t, "0s start a/0", "5s signal a", "5s exit a/0 143", "5s start a/1")
			})
		})
	})
	t.Run("COND-11 what the node does not have is not tried", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}, allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}
			play(t, n, limited(func(*corev1.Container) {}), 10*time.Second, func(w *Worker) {
				time.Sleep(time.Second)
				err := give(w, "16Mi", func(s *corev1.PodSpec) {
					s.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("3")
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				s := w.cfg.Store.Pod(w.uid).Status
				if c := s.Conditions[0]; c.Type != corev1.PodResizePending || c.Reason != "Infeasible" ||
					c.Message != "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000" {
					t.Errorf("%+v", c)
				}
				if c := s.ContainerStatuses[0]; c.AllocatedResources.Cpu().MilliValue() != 100 {
					t.Errorf("RES-21: %+v", c)
				}
				n.expect(t, "0s start a/0")
			})
		})
	})
	t.Run("MAN-27 what may not change does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}}
			play(t, n, limited(func(*corev1.Container) {}), time.Second, func(w *Worker) {
				before := w.pod().Generation
				if err := give(w, "16Mi", func(s *corev1.PodSpec) { s.Containers[0].Args = []string{"other"} }); err == nil {
					t.Error("the arguments were changed")
				}
				if g := w.pod().Generation; g != before {
					t.Errorf("generation %d", g)
				}
			})
		})
	})
}
