package podworker

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// Update changes the pod's definition to that of pod, as far as that may be changed
// while a pod lives (MAN-27, RES-20, MAIN-04): resources are changed in place or by
// a restart, another image is by a restart, and status says how far that is. It
// returns before that.
func (w *Worker) Update(pod *corev1.Pod) error {
	return w.change(func(old *corev1.Pod) error {
		if errs := manifest.ValidatePodUpdate(pod, old); len(errs) > 0 {
			return errs.ToAggregate()
		}
		old.Labels, old.Annotations = pod.DeepCopy().Labels, pod.DeepCopy().Annotations
		pod.Spec.DeepCopyInto(&old.Spec)
		return nil
	})
}

// infeasible says why this node can never give the pod what it asks for; nothing if
// it can (COND-11).
func (w *Worker) infeasible(pod *corev1.Pod) string {
	requests := container.PodResourceRequests(pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		want, has := requests[name], w.cfg.Node.Allocatable[name]
		if has.IsZero() || want.Cmp(has) <= 0 {
			continue
		}
		if name == corev1.ResourceCPU { // upstream counts in thousandths
			return fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want.MilliValue(), has.MilliValue())
		}
		return fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want.Value(), has.Value())
	}
	return ""
}

// resizeContainer gives a container the resources of the newest definition. An
// action that was overtaken does no harm: it sets what a later one would.
func (w *Worker) resizeContainer(a lifecycle.ResizeContainer) {
	w.resizes.Lock()
	defer w.resizes.Unlock()
	pod := w.pod()
	spec := containerSpec(pod, a.Name)
	w.mu.Lock()
	c := w.containers[a.ContainerRef]
	w.mu.Unlock()
	if c == nil || spec == nil {
		return // its end was reported
	}
	if err := c.Update(container.ContainerLimits(pod, spec)); err != nil {
		w.report(lifecycle.ResizeFailed{
			At: time.Now(), Container: a.ContainerRef, Generation: a.Generation, Try: a.Try, Message: err.Error(),
		})
		return
	}
	w.report(lifecycle.ContainerResized{
		At: time.Now(), Container: a.ContainerRef, Generation: pod.Generation, Resources: &spec.Resources,
	})
}
