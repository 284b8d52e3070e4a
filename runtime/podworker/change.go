package podworker

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

// Delete asks the pod to end within grace, which a later call can only shorten,
// and returns the period that counts (DEL-01, DEL-02). If that is nothing the
// object is to be removed at once; what runs still has a second (DEL-04, TIME-03).
func (w *Worker) Delete(grace time.Duration) (period time.Duration) {
	now := time.Now()
	period, changed := w.cfg.Store.Delete(w.uid, now, grace)
	if changed {
		w.adopt(w.cfg.Store.Pod(w.uid))
		w.report(lifecycle.PodDeleted{At: now, Grace: period})
	}
	return period
}

// Evict ends the pod for good because it uses too much of something, which message
// tells (RES-30, RES-32).
func (w *Worker) Evict(grace time.Duration, message string) {
	w.report(lifecycle.PodEvicted{At: time.Now(), Grace: grace, Message: message})
}

// SetCondition sets a condition of the pod that is not the kubelet's, such as that
// of a readiness gate (COND-06, COND-09).
func (w *Worker) SetCondition(c corev1.PodCondition) {
	w.report(lifecycle.ConditionSet{At: time.Now(), Condition: c})
}

// AddEphemeral adds an ephemeral container to the pod, which is started as soon as
// there is a sandbox. c has been defaulted and validated. Names are unique among
// all containers of the pod, and for good: what has been added stays.
func (w *Worker) AddEphemeral(c corev1.EphemeralContainer) error {
	return w.change(func(pod *corev1.Pod) error {
		if containerSpec(pod, c.Name) != nil {
			return fmt.Errorf("spec.ephemeralContainers: Duplicate value: %q", c.Name)
		}
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, *c.DeepCopy())
		return nil
	})
}

// change changes the pod's definition, in the store first.
func (w *Worker) change(change func(*corev1.Pod) error) error {
	if name := w.pod().Name; ended(w.done) {
		return fmt.Errorf("pod %q has ended", name)
	}
	pod, err := w.cfg.Store.Change(w.uid, change)
	if err != nil {
		return err
	}
	w.adopt(pod)
	w.report(lifecycle.PodUpdated{At: time.Now(), Generation: pod.Generation, Infeasible: w.infeasible(pod)})
	return nil
}

// adopt takes a newer definition over.
func (w *Worker) adopt(pod *corev1.Pod) {
	for pod != nil {
		old := w.spec.Load()
		if pod.Generation < old.Generation || w.spec.CompareAndSwap(old, pod) {
			return
		}
	}
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
