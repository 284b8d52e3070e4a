package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	initialBackoff = 10 * time.Second  // TIME-04, TIME-07
	maxBackoff     = 300 * time.Second // TIME-04, TIME-07
	forgetBackoff  = 600 * time.Second // TIME-05, TIME-07

	// retryDelay is when a failed start is tried again (TIME-09). Upstream adds
	// up to half of it at random, to spread the load of many nodes; one node's
	// pods gain nothing from that.
	retryDelay = 10 * time.Second

	initialMountDelay = 500 * time.Millisecond        // TIME-16
	maxMountDelay     = 2*time.Minute + 2*time.Second // TIME-16
	resync            = time.Second                   // TIME-11

	// maxWait is longer than anything but a probe ever waits for by itself.
	maxWait = maxBackoff
)

// Reasons of waiting and terminated containers.
const (
	reasonContainerCreating  = "ContainerCreating"
	reasonPodInitializing    = "PodInitializing"
	reasonCrashLoopBackOff   = "CrashLoopBackOff"
	reasonImagePullBackOff   = "ImagePullBackOff"
	reasonErrImageNever      = "ErrImageNeverPull"
	reasonInvalidImageName   = "InvalidImageName"
	reasonImageInspectError  = "ImageInspectError"
	reasonRunContainerError  = "RunContainerError"
	reasonStartError         = "StartError"
	reasonOOMKilled          = "OOMKilled"
	reasonPostStartHookError = "PostStartHookError"
	reasonRestartingAll      = "RestartingAllContainers"
	reasonStatusUnknown      = "ContainerStatusUnknown"
)

// exitStartError is the exit code of a container that could not be started, and
// exitUnknown that of one whose end nobody saw (STATE-11).
const (
	exitStartError = 128
	exitUnknown    = 137
)

// policyOf is a container's effective restart policy (RST-01, RST-10).
func policyOf(pod *corev1.Pod, c *corev1.Container) corev1.RestartPolicy {
	if c.RestartPolicy != nil {
		return corev1.RestartPolicy(*c.RestartPolicy)
	}
	return pod.Spec.RestartPolicy
}

// restartable decides whether a container that exited with this code is
// restarted: the first rule that matches, then the effective policy (RST-01,
// RST-11, RST-12).
func restartable(pod *corev1.Pod, c *corev1.Container, exitCode int32) bool {
	if ruleFor(c, exitCode) != nil {
		return true
	}
	switch policyOf(pod, c) {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

func matches(on *corev1.ContainerRestartRuleOnExitCodes, exitCode int32) bool {
	if on == nil {
		return false
	}
	switch listed := slices.Contains(on.Values, exitCode); on.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return listed
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !listed
	}
	return false
}

// initFailed reports whether an ordinary init container has failed. Running
// out of memory is a failure whatever the exit code (INIT-03, OOM-02).
func initFailed(t *Termination) bool {
	return t.ExitCode != 0 || t.Reason == reasonOOMKilled
}

// initRestarts decides whether an ended ordinary init container is started
// again: only after a failure, whatever its policy (INIT-03, INIT-04).
func initRestarts(pod *corev1.Pod, spec *corev1.Container, c Container) bool {
	return initFailed(c.Ended) && (c.Lost || c.Again || restartable(pod, spec, c.Ended.ExitCode))
}

// regularRestarts decides the same for a regular container. One that was lost
// with its sandbox had not come to its own end, so that Never does not apply to
// it; a success under OnFailure stands (SBX-05).
func regularRestarts(pod *corev1.Pod, spec *corev1.Container, c Container) bool {
	return c.Again || restartable(pod, spec, c.Ended.ExitCode) ||
		c.Lost && policyOf(pod, spec) == corev1.RestartPolicyNever
}

// backOff moves an ended container up the restart ladder and returns the delay
// from its end to its next start: none after the first end, then 10, 20, 40,
// 80, 160, 300, 300 … seconds. The ladder begins anew if more than 600 s lie
// between the last start attempt and the end (RST-03, RST-05).
func (c *Container) backOff(finished time.Time) time.Duration {
	delay := c.Backoff
	if finished.Sub(c.BeganAt) > forgetBackoff {
		delay = 0
	}
	c.Backoff = min(max(2*delay, initialBackoff), maxBackoff)
	c.NotBefore = finished.Add(delay)
	return delay
}

// fail records one more failed pull of an image (TIME-07).
func (p Pull) fail(at time.Time, always bool) Pull {
	if at.Sub(p.Failed) > forgetBackoff {
		p.Delay = 0
	}
	p.Delay = min(max(2*p.Delay, initialBackoff), maxBackoff)
	p.Failed = at
	p.Always = always
	return p
}

// blocks reports whether the backoff keeps a container from starting: it would
// have to pull. After a failed pull under Always the image may be present, and
// then IfNotPresent needs no pull.
func (p Pull) blocks(policy corev1.PullPolicy) bool {
	switch policy {
	case corev1.PullNever:
		return false
	case corev1.PullAlways:
		return true
	}
	return !p.Always
}

// A start is a container that may be started, and from when on.
type start struct {
	action   StartContainer
	at       time.Time
	underWay bool // facts have said so
}

// starts lists what may be started in the sandbox there is, init containers
// first, each kind in spec order. A start that is under way stays in the list
// though a sidecar before it has ended meanwhile: as upstream's sync, it is
// carried through, and a long pull is not thrown away.
func (o *Observed) starts(pod *corev1.Pod) []start {
	inits, done := o.nextInit(pod)
	list := o.ephemeralStarts(pod)
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		if slices.Contains(inits, i) || o.Containers[spec.Name].starting() {
			list = append(list, o.start(spec))
		}
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := o.Containers[spec.Name]
		due := c.State == ContainerAbsent || c.State == ContainerEnded && regularRestarts(pod, spec, c)
		if done && due || c.starting() {
			list = append(list, o.start(spec))
		}
	}
	return list
}

func (o *Observed) start(spec *corev1.Container) start {
	c := o.Containers[spec.Name]
	s := start{
		action:   StartContainer{ContainerRef: ContainerRef{Name: spec.Name, Attempt: c.Starts}, Try: c.Try},
		at:       c.NotBefore,
		underWay: c.starting(),
	}
	if p, ok := o.Pulls[spec.Image]; ok && p.blocks(spec.ImagePullPolicy) {
		s.at = later(s.at, p.Until())
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// nextInit lists the init containers that have to be started, by index, and
// says whether regular containers may run. As upstream does, it goes backwards
// from the last init container that has a record, so that ordinary ones which
// came before it are not asked again (INIT-01, INIT-02, INIT-06, SIDE-01,
// SIDE-02, SIDE-11).
func (o *Observed) nextInit(pod *corev1.Pod) (starts []int, done bool) {
	inits := pod.Spec.InitContainers
	initialized := len(inits) == 0
	for i := range pod.Spec.Containers {
		if o.Containers[pod.Spec.Containers[i].Name].State == ContainerRunning {
			initialized = true
		}
	}
	done = initialized
	earlier := initialized // a later init container has a record
	for i := len(inits) - 1; i >= 0; i-- {
		spec := &inits[i]
		c := o.Containers[spec.Name]
		switch {
		case c.State == ContainerAbsent:
			if earlier && isSidecar(spec) {
				starts = append(starts, i)
			}
			continue
		case isSidecar(spec):
			if c.State == ContainerEnded {
				starts = append(starts, i)
			} else if c.Started && !earlier { // the next one's turn
				if i == len(inits)-1 {
					done = true
				} else {
					starts = append(starts, i+1)
				}
			}
		case earlier:
		case c.State == ContainerEnded && !initFailed(c.Ended):
			if i == len(inits)-1 {
				done = true
			} else {
				starts = append(starts, i+1)
			}
		case c.State == ContainerEnded && initRestarts(pod, spec, c):
			starts = append(starts, i)
		}
		earlier = true
	}
	if !earlier {
		starts = append(starts, 0)
	}
	slices.Sort(starts)
	return starts, done
}

// completed reports whether the pod has come to its natural end: an ordinary
// init container has failed for good, or no regular container runs or will run
// again (INIT-03, SBX-07, PHASE-01, PHASE-08, PHASE-09).
func (o *Observed) completed(pod *corev1.Pod) bool {
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := o.Containers[spec.Name]
		if !isSidecar(spec) && c.State == ContainerEnded && initFailed(c.Ended) && !initRestarts(pod, spec, c) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := o.Containers[spec.Name]
		if c.State != ContainerEnded || regularRestarts(pod, spec, c) {
			return false
		}
	}
	return true
}
