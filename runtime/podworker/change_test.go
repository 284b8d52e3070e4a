package podworker

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestForceDeletion(t *testing.T) {
	t.Run("DEL-04 TIME-02 TIME-03 without grace the guest still has the runtime's floor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Hour, ignores: true}}}}
			final, _ := play(t, n, testPod(func(*corev1.PodSpec) {}), time.Hour, func(w *Worker) {
				time.Sleep(5 * time.Second)
				if period := w.Delete(0); period != 0 {
					t.Errorf("period %v", period)
				}
			})
			n.expect(t, "0s start a/0", "5s signal a", "7s exit a/0 137", "7s remove sandbox0", "7s unmount")
			if *final.DeletionGracePeriodSeconds != 0 {
				t.Errorf("DEL-04: deletionGracePeriodSeconds %d", *final.DeletionGracePeriodSeconds)
			}
			if final.Status.ObservedGeneration != final.Generation || final.Generation != 2 {
				t.Errorf("COND-12: generation %d, observed %d", final.Generation, final.Status.ObservedGeneration)
			}
		})
	})
	t.Run("DEL-14 a pod that has ended is deleted at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &node{scripts: map[string][]script{"a": {{runs: time.Second}}}}
			play(t, n, testPod(func(*corev1.PodSpec) {}), time.Hour, func(w *Worker) {
				<-w.Done()
				if period := w.Delete(time.Minute); period != 0 {
					t.Errorf("period %v", period)
				}
			})
		})
	})
}

func TestReadinessGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gate = corev1.PodConditionType("example.com/up")
		n := &node{scripts: map[string][]script{"a": {{runs: time.Hour}}}}
		pod := testPod(func(s *corev1.PodSpec) { s.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: gate}} })
		play(t, n, pod, time.Minute, func(w *Worker) {
			ready := func(want corev1.ConditionStatus) {
				t.Helper()
				synctest.Wait()
				conditions := w.cfg.Store.Pod(w.uid).Status.Conditions
				for _, c := range conditions {
					if c.Type == corev1.PodReady && c.Status != want {
						t.Errorf("COND-06: Ready is %s, want %s: %s", c.Status, want, c.Message)
					}
				}
			}
			ready(corev1.ConditionFalse)
			w.SetCondition(corev1.PodCondition{Type: gate, Status: corev1.ConditionTrue})
			ready(corev1.ConditionTrue)
			w.SetCondition(corev1.PodCondition{Type: gate, Status: corev1.ConditionFalse})
			ready(corev1.ConditionFalse)
			w.SetCondition(corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
			ready(corev1.ConditionFalse)
		})
	})
}

func TestEphemeralContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{scripts: map[string][]script{
			"a": {{runs: time.Minute}}, "debug": {{runs: time.Hour}}, "short": {{runs: time.Second, code: 1}},
		}}
		add := func(name string) corev1.EphemeralContainer {
			return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: name, Image: "img:1", ImagePullPolicy: corev1.PullIfNotPresent,
			}}
		}
		final, s := play(t, n, testPod(func(*corev1.PodSpec) {}), time.Hour, func(w *Worker) {
			time.Sleep(10 * time.Second)
			for _, name := range []string{"debug", "short"} {
				if err := w.AddEphemeral(add(name)); err != nil {
					t.Error(err)
				}
			}
			if err := w.AddEphemeral(add("a")); err == nil {
				t.Error("a second container of that name was added")
			}
			<-w.Done()
			if err := w.AddEphemeral(add("late")); err == nil {
				t.Error("a container was added to a pod that has ended")
			}
		})
		// Neither does the pod wait for it, nor is it started again.
		n.expect(t, "0s start a/0", "10s start debug/0", "10s start short/0", "11s exit short/0 1",
			"1m0s exit a/0 0", "1m0s signal debug", "1m0s exit debug/0 143", "1m0s remove sandbox0", "1m0s unmount")
		if final.Status.Phase != corev1.PodSucceeded || final.Status.ObservedGeneration != 3 {
			t.Errorf("PHASE-08 COND-12: phase %s, observed generation %d", final.Status.Phase, final.Status.ObservedGeneration)
		}
		list := final.Status.EphemeralContainerStatuses
		if len(list) != 2 || list[0].State.Terminated == nil || list[0].State.Terminated.ExitCode != 143 || list[0].Ready {
			t.Errorf("%+v", list)
		}
		seen := false
		for _, e := range s.Events() {
			seen = seen || e.InvolvedObject.FieldPath == "spec.ephemeralContainers{debug}" && e.Reason == "Started"
		}
		if !seen {
			t.Error("EVT-04: no event of the ephemeral container")
		}
	})
}
