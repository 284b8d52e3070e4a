package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// LogsOf says which attempt of a container has the log that is asked for, by the
// pod's status: the running one, else the last that has ended; or else, with
// previous, the last that has ended (LOG-06). The error says what clients show if
// there is none (LOG-07).
func LogsOf(pod *corev1.Pod, container string, previous bool) (attempt int, err error) {
	s := pod.Status
	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses)
	i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == container })
	if i < 0 {
		if find(pod, container) == nil {
			return 0, fmt.Errorf("container %s is not valid for pod %s", container, pod.Name)
		}
		return 0, fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	}
	c := &all[i]
	last := int(c.RestartCount)
	if w := c.State.Waiting; w != nil && w.Reason == reasonRestartingAll {
		last-- // the count is that of the attempt to come (RST-21)
	}
	switch {
	case previous && c.LastTerminationState.Terminated == nil:
		return 0, fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous && c.State.Waiting == nil:
		return last - 1, nil
	case previous, c.State.Running != nil, c.State.Terminated != nil, c.LastTerminationState.Terminated != nil:
		return last, nil // while it waits, the last that has ended is the newest
	}
	why := "ContainerCreating"
	if w := c.State.Waiting; w != nil {
		switch why = w.Reason; w.Reason {
		case "ErrImagePull":
			why = "image can't be pulled"
		case reasonImagePullBackOff:
			why = "trying and failing to pull image"
		}
	}
	return 0, fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, why)
}

const defaultContainer = "kubectl.kubernetes.io/default-container"

// DefaultContainer is the container that is meant where none is named, and what
// clients say about that choice on stderr; nothing if there was none (LOG-10,
// EXEC-03).
func DefaultContainer(pod *corev1.Pod) (name, note string) {
	if name := pod.Annotations[defaultContainer]; name != "" && find(pod, name) != nil {
		return name, ""
	}
	if len(pod.Spec.Containers) == 0 {
		return "", ""
	}
	name = pod.Spec.Containers[0].Name
	var names []string
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		names = append(names, c.Name+" (ephem)")
	}
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name+" (init)")
	}
	if len(names) == 1 {
		return name, ""
	}
	return name, fmt.Sprintf("Defaulted container %q out of: %s", name, strings.Join(names, ", "))
}
