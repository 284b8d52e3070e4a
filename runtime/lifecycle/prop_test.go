package lifecycle

import (
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// TestProperties drives random pods with a simulated node, which carries out
// plans in any order and with any failures, loses sandboxes, repeats old facts
// and reports late. What must hold all the time is in (*sim).check; what must
// hold in the end is here.
func TestProperties(t *testing.T) {
	t.Run("a deleted pod is always released: DEL-05 DEL-06 PHASE-14", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			s := newSim(t, rapid.Custom(drawPod).Draw(t, "pod"))
			s.steps(rapid.IntRange(0, 80).Draw(t, "steps"))
			s.apply(PodDeleted{At: s.now, Grace: time.Duration(rapid.IntRange(0, 40).Draw(t, "grace")) * time.Second})
			s.steps(rapid.IntRange(0, 20).Draw(t, "steps while deleting"))
			s.settle()
			if plan := Decide(s.pod, s.o, s.now); !plan.Finished {
				t.Fatalf("never finished: %+v\n%+v", plan, s.o)
			}
			if phase := Status(s.pod, s.o, s.now).Phase; phase != corev1.PodSucceeded && phase != corev1.PodFailed {
				t.Fatalf("finished as %s", phase)
			}
		})
	})
	t.Run("a pod that succeeds is released by itself: SBX-07 DEL-11 PHASE-08", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			pod := rapid.Custom(drawPod).Draw(t, "pod")
			pod.Spec.RestartPolicy = rapid.SampledFrom([]corev1.RestartPolicy{corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure}).Draw(t, "policy")
			pod.Spec.ActiveDeadlineSeconds = nil
			for i := range pod.Spec.Containers {
				pod.Spec.Containers[i].RestartPolicy, pod.Spec.Containers[i].RestartPolicyRules = nil, nil
			}
			for i := range pod.Spec.InitContainers { // they would go round and round
				pod.Spec.InitContainers[i].RestartPolicyRules = nil
			}
			s := newSim(t, pod)
			s.exits = true
			s.settle()
			if !Decide(s.pod, s.o, s.now).Finished || Status(s.pod, s.o, s.now).Phase != corev1.PodSucceeded {
				t.Fatalf("%+v", s.o)
			}
		})
	})
}

// check looks at everything that is observable now.
func (s *sim) check() Plan {
	t := s.t
	plan := Decide(s.pod, s.o, s.now)
	if again := Decide(s.pod, s.o, s.now); !reflect.DeepEqual(plan, again) {
		t.Fatalf("asked twice: %+v, then %+v", plan, again)
	}
	if !plan.Wake.IsZero() && !plan.Wake.After(s.now) {
		t.Fatalf("wake-up at %s is over at %s", plan.Wake.Sub(begin), s.now.Sub(begin))
	}
	if len(plan.Actions) == 0 && plan.Wake.IsZero() && !plan.Finished &&
		len(s.reported) == 0 && len(s.running) == 0 && len(s.queue) == 0 {
		t.Fatalf("stuck: %+v", s.o)
	}
	if plan.Finished && (len(plan.Actions) > 0 || !plan.Wake.IsZero()) {
		t.Fatalf("finished, but %+v", plan)
	}
	starts, fresh := 0, 0
	for _, a := range plan.Actions {
		switch a := a.(type) {
		case StartContainer:
			starts++
			if !s.o.Containers[a.Name].starting() {
				fresh++
			}
			if s.deleted {
				t.Fatalf("%+v in a deleted pod", a) // MAIN-07
			}
			if a.Attempt != s.instances[a.Name] {
				t.Fatalf("%+v, but the next attempt is %d", a, s.instances[a.Name])
			}
			for i := range s.pod.Spec.InitContainers {
				init := &s.pod.Spec.InitContainers[i]
				if !s.isInit(a.Name) && !isEphemeral(s.pod, a.Name) && !isSidecar(init) && !s.initDone[init.Name] {
					t.Fatalf("%+v before %s has succeeded", a, init.Name) // INIT-01
				}
			}
		case StopContainer:
			if !s.reported[a.Name] || a.Attempt != s.instances[a.Name]-1 {
				t.Fatalf("%+v, but nothing like it runs", a)
			}
			if a.Grace < minimumStop {
				t.Fatalf("%+v", a) // TIME-02
			}
		case RemoveSandbox:
			if len(s.reported) > 0 {
				t.Fatalf("%+v while %v run", a, s.reported)
			}
		}
	}
	if starts > 1 && fresh > 0 {
		t.Fatalf("%d starts at once: %+v", starts, plan) // MAIN-01
	}
	// A start that is known to be under way is carried through.
	o := s.o
	if o.passTime(s.pod, s.now); !o.ending() && o.Sandbox.State == SandboxReady {
		for a := range s.running {
			if st, ok := a.(StartContainer); ok && s.begun[st] && !slices.Contains(plan.Actions, a) {
				t.Fatalf("%+v has begun, but %+v", a, plan)
			}
		}
	}
	s.checkStatus()
	return plan
}

func (s *sim) checkStatus() {
	t := s.t
	status := Status(s.pod, s.o, s.now)
	if again := Status(s.pod, s.o, s.now); !reflect.DeepEqual(status, again) {
		t.Fatalf("asked twice: %+v, then %+v", status, again)
	}
	all := slices.Concat(status.InitContainerStatuses, status.ContainerStatuses)
	if n := len(s.pod.Spec.InitContainers) + len(s.pod.Spec.Containers); len(all) != n {
		t.Fatalf("%d statuses for %d containers", len(all), n)
	}
	for _, c := range all {
		if c.RestartCount < s.restarts[c.Name] {
			t.Fatalf("restartCount of %s falls from %d to %d", c.Name, s.restarts[c.Name], c.RestartCount) // STATE-07
		}
		s.restarts[c.Name] = c.RestartCount
		if c.Ready && c.State.Running == nil && !s.isInit(c.Name) {
			t.Fatalf("ready, but %+v", c)
		}
	}
	terminal := status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed
	if terminal && len(s.live) > 0 {
		t.Fatalf("%s while %v run", status.Phase, s.live) // PHASE-12
	}
	if s.final != "" && status.Phase != s.final {
		t.Fatalf("%s after %s", status.Phase, s.final) // PHASE-11
	}
	if terminal {
		s.final = status.Phase
	}
}
