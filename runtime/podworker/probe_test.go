package podworker

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// The manifest 05: a file is removed after 30 s, which a liveness probe looks for
// every 5 s. The guest ignores SIGTERM.
func TestWorkerPROBE11_LivenessExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour, ignores: true}}}}
		n.exec = func(_ context.Context, _ string, e sandbox.ExecConfig) (int32, error) {
			if since := time.Since(n.begin); since <= 30*time.Second || since > 70*time.Second {
				return 0, nil
			}
			_, _ = e.Stderr.Write([]byte("cat: no such file"))
			return 1, nil
		}
		pod := testPod(func(s *corev1.PodSpec) {
			s.RestartPolicy = corev1.RestartPolicyAlways
			s.Containers[0].LivenessProbe = &corev1.Probe{
				InitialDelaySeconds: 5, PeriodSeconds: 5,
				ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/healthy"}}},
			}
		})
		final, s := play(t, n, pod, 2*time.Minute, nil)
		n.trace = n.trace[:4] // and then the worker is abandoned
		n.expect(t, "0s start a/0", "45s signal a", "1m15s exit a/0 137", "1m15s start a/1")
		if c := final.Status.ContainerStatuses[0]; c.RestartCount != 1 || !c.Ready {
			t.Errorf("status %+v", c)
		}
		var got []string
		for _, e := range s.Events() {
			if e.Reason == "Unhealthy" || e.Reason == "Killing" {
				got = append(got, e.Message+" x"+string(rune('0'+e.Count)))
			}
		}
		if want := []string{"Liveness probe failed: cat: no such file x3", "Container a failed liveness probe, will be restarted x1"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

func TestWorkerPROBE09_TIME14_CannotBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}}
		tries := 0
		n.exec = func(context.Context, string, sandbox.ExecConfig) (int32, error) {
			tries++
			return 0, &sandbox.ExecError{Code: 127, Err: context.DeadlineExceeded}
		}
		pod := testPod(func(s *corev1.PodSpec) {
			s.Containers[0].LivenessProbe = &corev1.Probe{
				FailureThreshold: 1,
				ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}},
			}
		})
		final, s := play(t, n, pod, 15*time.Second, nil)
		if tries != 6 || final.Status.Phase != corev1.PodRunning {
			t.Errorf("%d tries, phase %s", tries, final.Status.Phase)
		}
		if !slices.ContainsFunc(s.Events(), func(e *corev1.Event) bool {
			return strings.HasPrefix(e.Message, "Liveness probe errored and resulted in unknown state: ")
		}) {
			t.Error("no event")
		}
	})
}

// preStop comes before SIGTERM and takes its time out of the grace period;
// postStart holds the next container back.
func TestWorkerHOOK05_HooksAndGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour, ignores: true}}, "b": {{runs: time.Hour}}}}
		pod := testPod(func(s *corev1.PodSpec) {
			s.Containers[0].Lifecycle = &corev1.Lifecycle{
				PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3}},
				PreStop:   &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 8}},
			}
			s.Containers = append(s.Containers, corev1.Container{Name: "b", Image: "img:1"})
		})
		play(t, n, pod, time.Hour, func(w *Worker) {
			time.Sleep(10 * time.Second)
			w.Delete(20 * time.Second)
		})
		slices.Sort(n.trace[2:4])
		n.expect(t, "0s start a/0", "3s start b/0", // HOOK-01
			"10s exit b/0 143", "10s signal b",
			"18s signal a", "30s exit a/0 137", "30s remove sandbox0", "30s unmount")
	})
}

func TestWorkerHOOK02_PostStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}}
		n.exec = func(_ context.Context, _ string, e sandbox.ExecConfig) (int32, error) {
			_, _ = e.Stderr.Write([]byte("oh"))
			return 1, nil
		}
		pod := testPod(func(s *corev1.PodSpec) {
			s.RestartPolicy = corev1.RestartPolicyAlways
			s.Containers[0].Lifecycle = &corev1.Lifecycle{
				PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "exit 1"}}},
			}
		})
		var waiting *corev1.ContainerStateWaiting
		final, s := play(t, n, pod, 5*time.Second, func(w *Worker) {
			time.Sleep(500 * time.Millisecond)
			waiting = w.cfg.Store.Pod(w.uid).Status.ContainerStatuses[0].State.Waiting
		})
		want := `Exec lifecycle hook ([sh -c exit 1]) for Container "a" in Pod "p_default(u)" failed - error: command 'sh -c exit 1' exited with 1: oh, message: "oh"`
		if waiting == nil || waiting.Reason != "PostStartHookError" || waiting.Message != want {
			t.Errorf("waiting %+v", waiting)
		}
		if c := final.Status.ContainerStatuses[0]; c.RestartCount != 1 || c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" {
			t.Errorf("%+v", c)
		}
		if !slices.ContainsFunc(s.Events(), func(e *corev1.Event) bool {
			return e.Reason == "FailedPostStartHook" && e.Message == "PostStartHook failed"
		}) {
			t.Error("no FailedPostStartHook")
		}
	})
}

func TestWorkerHOOK08_TCPSocketIsNoHook(t *testing.T) {
	if _, err := (target{}).hook(t.Context(), &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{}}, nil); err == nil || !strings.HasPrefix(err.Error(), "invalid handler") {
		t.Errorf("%v", err)
	}
}
