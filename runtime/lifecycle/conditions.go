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
		if closed := closedGates(pod, o); len(closed) > 0 {
			podReady.Status, podReady.Reason, podReady.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(closed, ", ")
		}
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if o.Sandbox.State == SandboxReady { // COND-03, SBX-09
		sandbox.Status = corev1.ConditionTrue
	}
	list := resizeConditions(pod, o)
	if o.Ending.Cause == Evicted && o.Final != "" { // COND-10
		list = append(list, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: o.Ending.Message,
		})
	}
	list = append(list,
		sandbox,
		initialized(pod, o, s),
		podReady,
		ready,
		corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}) // COND-02
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
	return append(slices.Clone(o.Foreign), list...)
}

// closedGates says of every readiness gate whose condition is not True why it
// keeps the pod from being ready (COND-06).
func closedGates(pod *corev1.Pod, o *Observed) (messages []string) {
	for _, g := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(o.Foreign, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			messages = append(messages, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case o.Foreign[i].Status != corev1.ConditionTrue:
			messages = append(messages, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, o.Foreign[i].Status))
		}
	}
	return messages
}

// owned reports whether a condition is one that this package writes.
func owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
		corev1.PodScheduled, corev1.AllContainersRestarting, corev1.PodResizePending, corev1.PodResizeInProgress,
		corev1.DisruptionTarget:
		return true
	}
	return false
}

// conditionSet keeps what others say of the pod. Its lastTransitionTime is when
// its status last flipped, whatever they say (COND-01, COND-09).
func (a *applying) conditionSet(f ConditionSet) {
	if owned(f.Condition.Type) {
		return
	}
	c := f.Condition
	c.Message = clean(c.Message)
	c.LastTransitionTime = apiTime(f.At)
	i := slices.IndexFunc(a.o.Foreign, func(old corev1.PodCondition) bool { return old.Type == c.Type })
	switch {
	case i >= 0:
		if a.o.Foreign[i].Status == c.Status {
			c.LastTransitionTime = a.o.Foreign[i].LastTransitionTime
		}
		a.o.Foreign[i] = c
	case len(a.o.Foreign) < maxForeign:
		a.o.Foreign = append(a.o.Foreign, c)
	}
}

// maxForeign bounds the conditions that others may set.
const maxForeign = 64

// rememberConditions notes which conditions have flipped, and when.
func (o *Observed) rememberConditions(pod *corev1.Pod, at time.Time) {
	shown := Status(pod, *o, at).Conditions[len(o.Foreign):]
	o.Conditions = slices.DeleteFunc(o.Conditions, func(m Condition) bool { // it begins anew if it comes again
		return !slices.ContainsFunc(shown, func(c corev1.PodCondition) bool { return c.Type == m.Type })
	})
	for _, c := range shown {
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
