package podtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/podtest"
)

// example builds a guest of wasm-examples, unless it is up to date, and returns
// its path.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../wasm-examples/bin/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("../../wasm-examples/build.sh", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func seed(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../wasm-examples/seeds/" + name + ".fixed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The manifests as they are, with real guests, in fake time. Expected is what
// section 33 of the semantics derives, within one tick of the probe: what the guest
// does and what the probe sees at one moment come in any order.
func TestSeeds(t *testing.T) {
	t.Run("05 liveness-exec: PROBE-02 PROBE-06 PROBE-11 PROBE-21 RST-08 MAIN-04 STATE-14", func(t *testing.T) {
		spec := image.BuildSpec{Refs: []string{"busybox:latest"}, Module: example(t, "busybox"), Cmd: []string{"sh"}}
		manifest := seed(t, "05-liveness-exec")
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, manifest, podtest.Build(spec))
			podtest.Advance(65 * time.Second)
			// Removed at 30 s, looked for every 5 s; the third failure kills. The shell has
			// no handler of SIGTERM, so that it ends at once here, with 143.
			expectKill(t, pods.Get("liveness-exec"), 35*time.Second, 45*time.Second, 143,
				"cat: can't open '/tmp/healthy': No such file or directory\n")
		})
	})
	t.Run("11 liveness-http: PROBE-02 PROBE-17 PROBE-18 RST-08", func(t *testing.T) {
		spec := image.BuildSpec{Refs: []string{"k8s.gcr.io/liveness:latest"}, Module: example(t, "liveness")}
		manifest := seed(t, "11-liveness-http")
		synctest.Test(t, func(t *testing.T) {
			pods := podtest.Run(t, manifest, podtest.Build(spec))
			podtest.Advance(45 * time.Second)
			// Healthy for 10 s, looked at from 15 s on, every 10 s: 20, 30, 40 s.
			expectKill(t, pods.Get("liveness-http"), 30*time.Second, 50*time.Second, 143, "HTTP probe failed with statuscode: 500")
		})
	})
}

// expectKill wants a container to have been killed, once, for three failures of its
// liveness probe, and to run again.
func expectKill(t *testing.T, pod *podtest.Pod, from, to time.Duration, code int32, output string) {
	t.Helper()
	o := pod.Object()
	killing, unhealthy := pod.WaitEvent("Killing"), pod.WaitEvent("Unhealthy")
	at := killing.FirstTimestamp.Sub(o.Status.StartTime.Time)
	if at < from || at > to {
		t.Errorf("killed after %v, not between %v and %v", at, from, to)
	}
	if unhealthy.Count != 3 || unhealthy.Message != "Liveness probe failed: "+output {
		t.Errorf("%d times %q", unhealthy.Count, unhealthy.Message)
	}
	c := o.Status.ContainerStatuses[0]
	last := c.LastTerminationState.Terminated
	if c.RestartCount != 1 || c.State.Running == nil || last == nil {
		t.Fatalf("%+v", c)
	}
	if last.ExitCode != code || !c.State.Running.StartedAt.Equal(&last.FinishedAt) {
		t.Errorf("ended with %d at %v, started again at %v", last.ExitCode, last.FinishedAt, c.State.Running.StartedAt)
	}
	for _, condition := range o.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status != corev1.ConditionTrue {
			t.Errorf("%+v", condition)
		}
	}
}
