package inproc

import (
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// The bounds are of CPU time: how busy the machine is does not matter.
func TestCPULimitRES05_OOM05(t *testing.T) {
	for _, m := range []bpf.Mechanism{bpf.BTFTracepoint, bpf.ThreadClock} {
		t.Run(m.String(), func(t *testing.T) {
			cpu := bpf.Open(bpf.Config{Mechanism: m})
			defer cpu.Close()
			if cpu.Mechanism() != m {
				t.Skip(cpu.Missing())
			}
			n := sharedNode(t)
			n.Driver.cfg.CPU = cpu
			pod := n.pod(t, func(s *corev1.PodSpec) {
				s.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}
			}, "spin")
			s := n.sandbox(t, pod)
			c := n.start(t, s, pod)
			// A look takes memory: without a pause Go would collect garbage all the time, for
			// which guests give way and do not pay.
			look := time.NewTicker(time.Millisecond)
			defer look.Stop()
			until := func(enough func(sandbox.Usage) bool) sandbox.Usage {
				for ; ; <-look.C {
					if u := c.Usage(); enough(u) {
						return u
					}
				}
			}
			u := until(func(u sandbox.Usage) bool { return u.Throttle.Throttled >= 4 })
			const quota = 5 * time.Millisecond
			late := 25 * time.Millisecond
			if raceEnabled || os.Getenv("TEST_EMULATOR") != "" { // it takes long from one safepoint to the next
				late = time.Second
			}
			if most := time.Duration(u.Throttle.Periods+1)*quota + late; u.CPU > most || u.Throttle.Time == 0 || u.Limits.CPUMilli != 50 {
				t.Errorf("RES-05 at most %v: %+v", most, u)
			}
			if u.Fuel == 0 || u.Safepoints == 0 || u.MemoryBytes == 0 {
				t.Errorf("%+v", u)
			}
			if err := c.Update(container.Limits{}); err != nil {
				t.Fatal(err)
			}
			u = c.Usage() // periods may have begun before the limit was lifted
			after := until(func(now sandbox.Usage) bool { return now.CPU > u.CPU+100*time.Millisecond })
			if n := after.Throttle.Periods - u.Throttle.Periods; n > 1 {
				t.Errorf("RES-20 %d more periods without a limit", n)
			}
			c.Kill()
			<-c.Done()
			if final := c.Usage(); final.CPU < after.CPU || final.CPU != c.Usage().CPU || final.MemoryBytes != 0 {
				t.Errorf("at the end %+v, before %+v", final, after)
			}
		})
	}
}
