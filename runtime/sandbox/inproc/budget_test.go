package inproc

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// together starts the containers of a pod with limits of its own.
func together(t *testing.T, n *node, limits corev1.ResourceList, args ...string) []sandbox.Container {
	t.Helper()
	pod := n.pod(t, func(s *corev1.PodSpec) {
		s.Resources = &corev1.ResourceRequirements{Limits: limits}
		first := s.Containers[0]
		s.Containers = nil
		for i, arg := range args {
			c := first
			c.Name, c.Args = fmt.Sprintf("c%d", i), []string{arg}
			s.Containers = append(s.Containers, c)
		}
	})
	s := n.sandbox(t, pod)
	var running []sandbox.Container
	for i := range args {
		one := pod.DeepCopy()
		one.Spec.Containers = one.Spec.Containers[i:]
		running = append(running, n.start(t, s, one))
	}
	return running
}

func TestPodLevelLimits(t *testing.T) {
	t.Run("RES-05 RES-07 two containers have the pod's CPU together", func(t *testing.T) {
		cpu := bpf.Open(bpf.Config{Mechanism: bpf.ThreadClock})
		defer cpu.Close()
		n := sharedNode(t)
		n.Driver.cfg.CPU = cpu
		const quota = 5 * time.Millisecond
		began := time.Now() // the first may run for a while before the second does
		c := together(t, n, corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}, "spin", "spin")
		sum := func() time.Duration { return c[0].Usage().CPU + c[1].Usage().CPU }
		look := time.NewTicker(time.Millisecond) // as in TestCPULimitRES05_OOM05
		defer look.Stop()
		for sum() < 6*quota {
			<-look.C
		}
		late := 50 * time.Millisecond
		if raceEnabled || os.Getenv("TEST_EMULATOR") != "" { // it takes long from one safepoint to the next
			late = 2 * time.Second
		}
		used := sum()
		periods := time.Since(began)/(100*time.Millisecond) + 2 // not before: more may begin
		if used > periods*quota+late {
			t.Errorf("%v in %d periods of %v each", used, periods, quota)
		}
	})
	t.Run("RES-07 OOM-01 and its memory", func(t *testing.T) {
		const limit = 64 << 20
		n := sharedNode(t)
		pod := n.pod(t, func(s *corev1.PodSpec) {
			s.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(limit, resource.BinarySI)}}
		}, "eat")
		s := n.sandbox(t, pod)
		// The neighbour asks for no memory any more by the time there is none left for it.
		asleep := n.startNamed(t, s, pod, "asleep", wasmtest.BuildWAT(t, sleeper))
		for n.output() == "" {
			runtime.Gosched()
		}
		eats := n.start(t, s, pod)
		<-eats.Done()
		got := eats.Status()
		if got.Code != 137 || got.Reason != "OOMKilled" || got.Message != fmt.Sprintf("memory limit of %d bytes exceeded", limit) {
			t.Errorf("%+v", got)
		}
		other := asleep.Usage().MemoryBytes
		if peak := eats.Usage().MemoryPeak; peak > limit-other || other == 0 {
			t.Errorf("%d bytes, and %d of its neighbour", peak, other)
		}
		select {
		case <-asleep.Done():
			t.Errorf("its neighbour has ended: %+v", asleep.Status())
		default:
		}
	})
}
