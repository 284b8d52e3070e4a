package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// conditions are the conditions that this package owns, in upstream's order
// (COND-01). s has the phase and the container statuses.
func conditions(pod *corev1.Pod, o *Observed, s *corev1.PodStatus, now time.Time) []corev1.PodCondition {
	ready := containersReady(pod, s)
	ready.Type = corev1.ContainersReady
	podReady := ready // COND-06
	podReady.Type = corev1.PodReady
	if podReady.Status == corev1.ConditionTrue {
		var missing []string
		for _, g := range pod.Spec.ReadinessGates {
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		}
		if len(missing) > 0 {
			podReady.Status, podReady.Reason, podReady.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
		}
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if o.Sandbox.State == SandboxReady { // COND-03, SBX-09
		sandbox.Status = corev1.ConditionTrue
	}
	list := []corev1.PodCondition{
		sandbox,
		initialized(pod, o, s),
		podReady,
		ready,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, // COND-02
	}
	if resetsOn(pod) {
		c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
		if o.Resetting {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "RestartAllContainersStarted", "container exited with restart policy rule"
		}
		list = append(list, c)
	}
	for i := range list {
		list[i].ObservedGeneration = pod.Generation // COND-12
		list[i].LastTransitionTime = apiTime(now)
		for _, m := range o.Conditions {
			if m.Type == list[i].Type && m.Status == list[i].Status {
				list[i].LastTransitionTime = apiTime(m.Since)
			}
		}
	}
	return list
}

// rememberConditions notes which conditions have flipped, and when.
func (o *Observed) rememberConditions(pod *corev1.Pod, at time.Time) {
	for _, c := range Status(pod, *o, at).Conditions {
		i := slices.IndexFunc(o.Conditions, func(m Condition) bool { return m.Type == c.Type })
		switch {
		case i < 0:
			o.Conditions = append(o.Conditions, Condition{Type: c.Type, Status: c.Status, Since: at})
		case o.Conditions[i].Status != c.Status:
			o.Conditions[i].Status, o.Conditions[i].Since = c.Status, at
		}
	}
}

// initialized is the condition Initialized without its times (COND-04).
func initialized(pod *corev1.Pod, o *Observed, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	for _, m := range o.Conditions { // once true it stays so
		if m.Type == corev1.PodInitialized && m.Status == corev1.ConditionTrue {
			return c
		}
	}
	for i := range pod.Spec.Containers { // a sidecar may be restarting
		if o.Containers[pod.Spec.Containers[i].Name].Starts > 0 {
			return c
		}
	}
	var incomplete []string
	for i := range s.InitContainerStatuses {
		spec, status := &pod.Spec.InitContainers[i], &s.InitContainerStatuses[i]
		done := status.Ready
		if isSidecar(spec) {
			done = *status.Started
		}
		if !done {
			incomplete = append(incomplete, spec.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

// containersReady is the verdict of the conditions ContainersReady and Ready
// (COND-05, COND-08).
func containersReady(pod *corev1.Pod, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Status: corev1.ConditionFalse}
	switch s.Phase {
	case corev1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case corev1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	ready := map[string]bool{}
	for _, status := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		ready[status.Name] = status.Ready
	}
	var unready []string
	for i := range pod.Spec.InitContainers {
		if spec := &pod.Spec.InitContainers[i]; isSidecar(spec) && !ready[spec.Name] {
			unready = append(unready, spec.Name)
		}
	}
	for i := range pod.Spec.Containers {
		if name := pod.Spec.Containers[i].Name; !ready[name] {
			unready = append(unready, name)
		}
	}
	if len(unready) > 0 {
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}
