package runtime

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/podworker"
)

// running is the worker of a pod that has not ended.
func (r *Runtime) running(pod types.UID) (*podworker.Worker, error) {
	w := r.worker(pod)
	if w == nil || ended(w.Done()) {
		return nil, fmt.Errorf("pod %s does not run", pod)
	}
	return w, nil
}

// UpdatePod changes a pod to pod, which has its UID, as far as a living pod may be
// changed (MAN-27): its labels and annotations, a shorter active deadline, images,
// which restart their containers (MAIN-04), and the cpu and memory of its
// containers, which are resized in place or by a restart, as their resizePolicy says
// (RES-20). It returns before that is done; the status says
// how far it is.
func (r *Runtime) UpdatePod(pod *corev1.Pod) error {
	w, err := r.running(pod.UID)
	if err != nil {
		return err
	}
	pod = pod.DeepCopy()
	manifest.DefaultPod(pod)
	return w.Update(pod)
}

// SetCondition sets a condition of a pod that is not the kubelet's, such as that of
// a readiness gate (COND-06, COND-09).
func (r *Runtime) SetCondition(pod types.UID, c corev1.PodCondition) error {
	w, err := r.running(pod)
	if err == nil {
		w.SetCondition(c)
	}
	return err
}

// AddEphemeral adds an ephemeral container to a pod. It is started as soon as the
// pod has a sandbox, and never again (INIT-15).
func (r *Runtime) AddEphemeral(pod types.UID, c corev1.EphemeralContainer) error {
	w, err := r.running(pod)
	if err != nil {
		return err
	}
	c = *c.DeepCopy()
	if errs := manifest.AdmitEphemeral(&c); len(errs) > 0 {
		return errs.ToAggregate()
	}
	return w.AddEphemeral(c)
}

// RemovePod forgets a pod that has ended, with its logs. Its name may then be used
// again (DEL-06, DEL-13).
func (r *Runtime) RemovePod(pod types.UID) error {
	if _, err := r.running(pod); err == nil {
		return fmt.Errorf("pod %s has not ended", pod)
	}
	object := r.store.Pod(pod)
	if object == nil {
		return nil
	}
	r.mu.Lock()
	delete(r.workers, pod)
	delete(r.blocked, pod)
	delete(r.waiting, pod)
	r.mu.Unlock()
	r.store.Remove(pod)
	r.events.Forget(object)
	return r.RemoveLogs(object)
}
