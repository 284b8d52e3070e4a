package lifecycle

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmpod/wasmpod/cgroup"
)

const (
	deadlineReason    = "DeadlineExceeded"
	evictedReason     = "Evicted"
	deadlineMessage   = "Pod was active on the node longer than the specified deadline"
	notLocatedMessage = "The container could not be located when the pod was terminated"

	// maxMessages is what all termination messages of a pod's status may take
	// together, in bytes (TMSG-05).
	maxMessages = 12288

	containerIDScheme = "wasmpod://"
)

// Status is the pod's status as the API shows it at now. It is a function of
// its arguments alone and shares no memory with them. Host addresses and
// conditions that others own are for the caller to add.
func Status(pod *corev1.Pod, o Observed, now time.Time) corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodPending, QOSClass: cgroup.QOSClass(&pod.Spec), ObservedGeneration: pod.Generation}
	if o.Admitted.IsZero() && !o.ending() {
		return s
	}
	if !o.Admitted.IsZero() {
		at := apiTime(o.Admitted)
		s.StartTime = &at
	}
	if o.Sandbox.IP != "" {
		s.PodIP = o.Sandbox.IP
		s.PodIPs = []corev1.PodIP{{IP: o.Sandbox.IP}}
	}
	for i := range pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, containerStatus(pod, &o, &pod.Spec.InitContainers[i], true, now))
	}
	for i := range pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, containerStatus(pod, &o, &pod.Spec.Containers[i], false, now))
	}
	for i := range pod.Spec.EphemeralContainers {
		c := containerStatus(pod, &o, ephemeral(pod, i), false, now)
		c.Ready, c.Started = false, nil // nobody asks
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, c)
	}
	s.Phase = shownPhase(pod, &o)
	if o.Final != "" {
		finalStatuses(pod, &o, &s)
		switch o.Ending.Cause {
		case Deadline:
			s.Reason, s.Message = deadlineReason, deadlineMessage
		case Evicted:
			s.Reason, s.Message = evictedReason, o.Ending.Message
		}
	}
	slices.SortFunc(s.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) }) // STATE-10
	limitMessages(&s)
	s.Conditions = conditions(pod, &o, &s, now)
	return s
}

// apiTime has the API's resolution of a second, so that a status is the same
// before and after it has been stored.
func apiTime(t time.Time) metav1.Time {
	return metav1.NewTime(t.Truncate(time.Second))
}

// containerStatus is one container's status (STATE).
func containerStatus(pod *corev1.Pod, o *Observed, spec *corev1.Container, init bool, now time.Time) corev1.ContainerStatus {
	c := o.view(spec.Name)
	running, started := c.State == ContainerRunning, c.Started
	s := corev1.ContainerStatus{
		Name:         spec.Name,
		Image:        cmp.Or(c.Image, spec.Image),
		ImageID:      c.ImageID,
		RestartCount: int32(max(c.Starts-1, 0)),
		Started:      &started,
		Ready:        c.Ready && (!init || isSidecar(spec)), // COND-07
		VolumeMounts: mountStatuses(spec),
	}
	if c.ID != "" {
		s.ContainerID = containerIDScheme + c.ID
	}
	if c.Starts > 0 { // STATE-13
		s.Resources, s.AllocatedResources = o.actualResources(spec, &c)
		s.User = c.User.DeepCopy()
	}
	if c.reset() {
		s.RestartCount = int32(c.Starts) // RST-21
	}
	if c.Previous != nil {
		s.LastTerminationState.Terminated = terminated(c.Previous)
	}
	switch {
	case running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: apiTime(c.StartedAt)}
	case c.Waiting.Reason != "" && !o.ending() && (c.State != ContainerEnded || restarts(pod, spec, c)):
		// A start has failed since: that is what it waits for (STATE-04).
		if c.Ended != nil {
			s.LastTerminationState.Terminated = terminated(c.Ended)
		}
		s.State.Waiting = c.Waiting.shown(now)
	case c.Ended != nil:
		s.State.Terminated = terminated(c.Ended)
		s.Ready = init && !isSidecar(spec) && !initFailed(c.Ended) // STATE-09
	case c.Waiting.Reason != "":
		s.State.Waiting = c.Waiting.shown(now)
	case len(pod.Spec.InitContainers) > 0:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reasonPodInitializing}
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reasonContainerCreating}
	}
	return s
}

// turns is when a failure is shown as a backoff: the first look after the failure
// finds the image or the container backing off (IMG-07, IMG-08, RST-09, TIME-11).
func (w Waiting) turns() (time.Time, bool) {
	return w.At.Add(resync), w.BackOff != ""
}

func (w Waiting) shown(now time.Time) *corev1.ContainerStateWaiting {
	if t, ok := w.turns(); ok && !now.Before(t) {
		return &corev1.ContainerStateWaiting{Reason: w.Then, Message: w.BackOff}
	}
	return &corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}
}

func terminated(t *Termination) *corev1.ContainerStateTerminated {
	s := &corev1.ContainerStateTerminated{
		ExitCode: t.ExitCode, Reason: t.Reason, Message: t.Message,
		StartedAt: apiTime(t.StartedAt), FinishedAt: apiTime(t.FinishedAt),
	}
	if t.ID != "" {
		s.ContainerID = containerIDScheme + t.ID
	}
	return s
}

// mountStatuses lists the container's mounts. Read-only holds for everything
// below a mount here, so a request for recursion is always met.
func mountStatuses(spec *corev1.Container) []corev1.VolumeMountStatus {
	var list []corev1.VolumeMountStatus
	for _, m := range spec.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if r := m.RecursiveReadOnly; r != nil && *r != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		list = append(list, s)
	}
	return list
}

// finalStatuses gives every container of an ended pod a terminated state.
// Containers that never ran get a synthetic one, except those whose turn had
// not come: regular ones of a pod that was not initialized, and the init
// containers after the last that ran (STATE-08).
func finalStatuses(pod *corev1.Pod, o *Observed, s *corev1.PodStatus) {
	end := func(list []corev1.ContainerStatus) {
		for i := range list {
			if list[i].State.Terminated == nil {
				list[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode: exitUnknown, Reason: reasonStatusUnknown, Message: notLocatedMessage,
				}}
			}
		}
	}
	if wasInitialized(pod, o) {
		end(s.ContainerStatuses)
	}
	ran := min(1, len(s.InitContainerStatuses))
	for i := range s.InitContainerStatuses {
		if o.Containers[s.InitContainerStatuses[i].Name].Starts > 0 {
			ran = i + 1
		}
	}
	end(s.InitContainerStatuses[:ran])
}

// wasInitialized reports whether the regular containers' turn had ever come.
func wasInitialized(pod *corev1.Pod, o *Observed) bool {
	inits := pod.Spec.InitContainers
	if len(inits) == 0 {
		return true
	}
	for i := range pod.Spec.Containers {
		if o.Containers[pod.Spec.Containers[i].Name].Starts > 0 {
			return true
		}
	}
	last := &inits[len(inits)-1]
	c := o.Containers[last.Name]
	return !isSidecar(last) && c.Ended != nil && !initFailed(c.Ended)
}

// limitMessages cuts each termination message to its share of what a pod may
// publish, at the end of a character (TMSG-05).
func limitMessages(s *corev1.PodStatus) {
	n := len(s.InitContainerStatuses) + len(s.ContainerStatuses) + len(s.EphemeralContainerStatuses)
	if n == 0 {
		return
	}
	limit := maxMessages / n
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			for _, t := range []*corev1.ContainerStateTerminated{list[i].State.Terminated, list[i].LastTerminationState.Terminated} {
				if t != nil {
					t.Message = prefix(t.Message, limit)
				}
			}
		}
	}
}

// prefix is the longest prefix of s of at most n bytes that does not end inside
// a character.
func prefix(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
