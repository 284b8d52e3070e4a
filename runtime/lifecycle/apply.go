package lifecycle

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// Apply folds one fact into o and returns the result, and the events that the
// fact gives rise to, oldest first (EVT). o itself is not changed. A fact that
// does not fit what is known (of an older attempt, about an unknown container,
// or said twice) is dropped: o comes back unchanged, without events. pod is the
// defaulted spec; its status is not read.
func (o Observed) Apply(pod *corev1.Pod, f Fact) (Observed, []Event) {
	if probe, ok := f.(ProbeFinished); ok {
		if next, events, done := o.probed(pod, probe); done {
			return next, events
		}
	}
	o = o.clone()
	o.Revision++
	a := applying{o: &o, pod: pod, at: f.when()}
	if o.passTime(pod, a.at) {
		a.podEvent(corev1.EventTypeNormal, "DeadlineExceeded", deadlineMessage)
	}
	a.overrun()
	a.fold(f)
	if !o.Admitted.IsZero() && !o.ending() && !o.Resetting && o.completed(pod) {
		o.Ending = Ending{Cause: Completed, At: a.at, Grace: gracePeriod(pod)}
	}
	a.endSync()
	a.redefined()
	a.refresh()
	a.askUnready()
	a.announce()
	a.resizesEnded()
	if o.Final == "" && o.ending() && o.Sandbox.State == SandboxAbsent {
		o.Final = finalPhase(pod, &o)
	}
	o.rememberConditions(pod, a.at)
	return o, a.events
}

// applying is one call of Apply: o is its own copy.
type applying struct {
	o      *Observed
	pod    *corev1.Pod
	at     time.Time
	events []Event
}

func (a *applying) fold(f Fact) {
	switch f := f.(type) {
	case PodAdmitted:
		if a.o.Admitted.IsZero() {
			a.o.Admitted = f.At
		}
	case PodUpdated:
		a.updated(f)
	case ContainerResized:
		a.resized(f)
	case ResizeFailed:
		a.resizeFailed(f)
	case ConditionSet:
		a.conditionSet(f)
	case PodDeleted:
		a.deleted(f)
	case PodEvicted:
		a.evicted(f)
	case VolumesMounted:
		a.o.Volumes.Mounted = !a.o.Volumes.Released
		a.registerProbes()
	case VolumesFailed:
		a.volumesFailed(f)
	case VolumesUnmounted:
		if a.o.ending() {
			a.o.Volumes.Mounted, a.o.Volumes.Released = false, true
		}
	case SandboxCreated:
		if s := &a.o.Sandbox; f.Attempt == s.Attempt && s.State == SandboxAbsent {
			s.State, s.ID, s.IP, s.RetryAt, s.Purge = SandboxReady, f.ID, f.IP, time.Time{}, false
			for _, m := range f.DNSWarnings {
				a.podEvent(corev1.EventTypeWarning, "DNSConfigForming", m)
			}
		}
	case SandboxFailed:
		a.sandboxFailed(f)
	case SandboxExited:
		if s := &a.o.Sandbox; f.Attempt == s.Attempt && s.State == SandboxReady {
			a.sandboxLost()
		}
	case SandboxRemoveFailed:
		if s := &a.o.Sandbox; f.Attempt == s.Attempt && s.State != SandboxAbsent {
			a.podEvent(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+f.Message) // DEL-12
		}
	case SandboxRemoved:
		a.sandboxRemoved(f)
	case ContainersRemoved:
		a.containersRemoved(f)
	case ImagePulling:
		a.attempt(f.Container, func(spec *corev1.Container, c *Container) {
			if len(f.MissingSecrets) > 0 {
				a.events = append(a.events, Event{
					At: a.at, Type: corev1.EventTypeWarning, Reason: "FailedToRetrieveImagePullSecret",
					Message: fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(f.MissingSecrets, ", ")),
				})
			}
			a.event(spec, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", f.Image))
		})
	case ImagePulled:
		a.attempt(f.Container, func(spec *corev1.Container, c *Container) {
			c.Image, c.ImageID = f.Image, f.ImageID
			a.event(spec, corev1.EventTypeNormal, "Pulled", f.Message)
		})
	case ImageFailed:
		a.try(f.Container, f.Try, func(spec *corev1.Container, c *Container) { a.imageFailed(f, spec, c) })
	case ContainerCreated:
		a.attempt(f.Container, func(spec *corev1.Container, c *Container) {
			c.CreatedID = f.ID
			a.event(spec, corev1.EventTypeNormal, "Created", "Container created")
		})
	case ContainerStarted:
		a.attempt(f.Container, func(spec *corev1.Container, c *Container) {
			c.instance(f.ID)
			c.tried(f.SpecImage, spec)
			c.State, c.StartedAt = ContainerRunning, f.At
			if c.Resources = f.Resources; c.Resources == nil {
				c.Resources = &spec.Resources
			}
			c.User = f.User
			if spec.Lifecycle != nil && spec.Lifecycle.PostStart != nil {
				c.PostStart = HookRunning
			} else {
				c.Waiting = Waiting{}
			}
			a.trackers(spec.Name, func(t probes.Tracker) probes.Tracker { return t.Started(f.ID) })
			a.event(spec, corev1.EventTypeNormal, "Started", "Container started")
		})
	case ContainerStartFailed:
		a.try(f.Container, f.Try, func(spec *corev1.Container, c *Container) { a.startFailed(f, spec, c) })
	case ContainersReset:
		a.containersReset(f)
	case ProbeFinished:
		a.probeFinished(f)
	case HookFinished:
		a.hookFinished(f)
	case ContainerExited:
		a.exited(f)
	}
}

// deleted begins the end of the pod, or shortens what is left of it (DEL-02,
// DEL-05).
func (a *applying) deleted(f PodDeleted) {
	e := &a.o.Ending
	grace := max(f.Grace, minimumPodGrace)
	switch {
	case e.Cause == NotEnding:
		*e = Ending{Cause: Deleted, At: f.At, Grace: grace}
	case f.At.Add(grace).Before(e.At.Add(e.Grace)):
		e.At, e.Grace = f.At, grace
	}
}

// evicted begins the end of a pod that lives (RES-32).
func (a *applying) evicted(f PodEvicted) {
	if a.o.ending() {
		return
	}
	message := clean(f.Message)
	a.o.Ending = Ending{Cause: Evicted, At: f.At, Grace: max(f.Grace, minimumPodGrace), Message: message}
	a.podEvent(corev1.EventTypeWarning, evictedReason, message)
}

// evictionPatience is how long an eviction may take at least, beyond which it is told
// of (DEL-12).
const evictionPatience = 10 * time.Second

// overrun tells of an eviction that takes longer than one and a half times its grace
// period: with the fact that comes next, as it changes nothing.
func (a *applying) overrun() {
	e := &a.o.Ending
	if e.Cause != Evicted || e.Overran || a.o.Final != "" || a.at.Sub(e.At) < max(e.Grace+e.Grace/2, evictionPatience) {
		return
	}
	e.Overran = true
	a.podEvent(corev1.EventTypeWarning, "ExceededGracePeriod", "Container runtime did not kill the pod within specified grace period.")
}

func (a *applying) volumesFailed(f VolumesFailed) {
	v := &a.o.Volumes
	if a.o.ending() || v.Mounted || f.Attempt != v.Attempt {
		return
	}
	v.Attempt++
	v.Delay = min(max(2*v.Delay, initialMountDelay), maxMountDelay)
	v.RetryAt = f.At.Add(v.Delay)
	for _, m := range f.Messages {
		a.podEvent(corev1.EventTypeWarning, "FailedMount", m)
	}
}

func (a *applying) sandboxFailed(f SandboxFailed) {
	s := &a.o.Sandbox
	if a.o.ending() || f.Attempt != s.Attempt || s.State != SandboxAbsent {
		return // SBX-08: no event once the pod is being deleted
	}
	s.Attempt++
	s.RetryAt = f.At.Add(retryDelay)
	a.podEvent(corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+f.Message)
}

// sandboxLost is the end of the infra module. The pod starts over in a new
// sandbox (SBX-03..05), unless its policy is Never and something has already
// run: then it ends here (SBX-06).
func (a *applying) sandboxLost() {
	o := a.o
	o.Sandbox.State, o.Sandbox.LostAt = SandboxLost, a.at
	if o.ending() {
		return
	}
	if a.pod.Spec.RestartPolicy == corev1.RestartPolicyNever && o.anyRecord() {
		o.Ending = Ending{Cause: Killed, At: a.at, Grace: gracePeriod(a.pod)}
		return
	}
	a.podEvent(corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
}

func (o *Observed) anyRecord() bool {
	for _, c := range o.Containers {
		if c.State != ContainerAbsent {
			return true
		}
	}
	return false
}

func (a *applying) sandboxRemoved(f SandboxRemoved) {
	o := a.o
	if f.Attempt != o.Sandbox.Attempt || o.Sandbox.State == SandboxAbsent {
		return
	}
	if o.Sandbox.State == SandboxReady && !o.ending() {
		a.sandboxLost() // nobody asked for it: it is lost all the same
	}
	// Nothing can run without the sandbox. A container whose exit was not
	// reported has ended in a way that nobody saw (STATE-08).
	for _, spec := range containers(a.pod) {
		if c := o.Containers[spec.Name]; c.State == ContainerRunning {
			a.ended(spec, &c, Termination{
				ExitCode: exitUnknown, Reason: reasonStatusUnknown, Message: notLocatedMessage,
				StartedAt: c.StartedAt, FinishedAt: f.At, ID: c.ID,
			})
			o.Containers[spec.Name] = c
		}
	}
	for name, c := range o.Containers {
		if c.starting() { // the removal has cut it short
			c.retry(c.NotBefore)
			o.Containers[name] = c
		}
	}
	o.Sandbox.State = SandboxAbsent
	o.Sandbox.Attempt++
	for i := range a.pod.Spec.InitContainers {
		if o.Containers[a.pod.Spec.InitContainers[i].Name].State != ContainerAbsent {
			o.Sandbox.Purge = true
		}
	}
}

// containersRemoved forgets the init containers' records, so that they run
// again from the first one on. What the API has shown of them stays: their
// restart count and last end (INIT-13).
func (a *applying) containersRemoved(f ContainersRemoved) {
	s := &a.o.Sandbox
	if !s.Purge || f.SandboxAttempt != s.Attempt-1 {
		return
	}
	s.Purge = false
	for i := range a.pod.Spec.InitContainers {
		name := a.pod.Spec.InitContainers[i].Name
		if c, ok := a.o.Containers[name]; ok {
			c.State, c.Waiting, c.NotBefore = ContainerAbsent, Waiting{}, time.Time{}
			a.o.Containers[name] = c
		}
	}
}

// attempt calls do for a fact about the start of the container's next attempt,
// if the fact is about that.
func (a *applying) attempt(ref ContainerRef, do func(*corev1.Container, *Container)) {
	a.try(ref, a.o.Containers[ref.Name].Try, do)
}

// try is attempt for a fact that also names the try.
func (a *applying) try(ref ContainerRef, try int, do func(*corev1.Container, *Container)) {
	spec := find(a.pod, ref.Name)
	c := a.o.Containers[ref.Name]
	if spec == nil || c.State == ContainerRunning || ref.Attempt != c.Starts || try != c.Try ||
		a.o.Sandbox.State == SandboxAbsent || a.o.Final != "" {
		return
	}
	if c.BeganAt.IsZero() {
		a.beginSync(ref)
		c.BeganAt = a.at
	}
	do(spec, &c)
	a.put(ref.Name, c)
}

func (a *applying) put(name string, c Container) {
	if a.o.Containers == nil {
		a.o.Containers = map[string]Container{}
	}
	a.o.Containers[name] = c
}

// retry puts the next try of the same attempt off until at.
func (c *Container) retry(at time.Time) {
	c.Try++
	c.NotBefore, c.BeganAt, c.CreatedID = at, time.Time{}, ""
}

// imageFailed is not a failure of the container: no restart count, no crash
// loop (IMG-11).
func (a *applying) imageFailed(f ImageFailed, spec *corev1.Container, c *Container) {
	if a.abandoned() {
		return
	}
	f.Message = clean(f.Message)
	c.Waiting = Waiting{Reason: f.Reason, Message: f.Message, At: f.At}
	c.tried(f.Image, spec)
	image := cmp.Or(f.Volume, f.Image)
	failed := func(what string) { a.event(spec, corev1.EventTypeWarning, "Failed", what) }
	switch f.Reason {
	case reasonErrImageNever:
		a.event(spec, corev1.EventTypeWarning, reasonErrImageNever, f.Message)
	case reasonInvalidImageName, reasonImageInspectError:
		a.event(spec, corev1.EventTypeWarning, "InspectFailed", f.Message)
	default: // a failed pull
		failed(fmt.Sprintf("Failed to pull image %q: %s", image, f.Message))
		failed("Error: " + f.Reason)
		c.Waiting.Then = reasonImagePullBackOff
		c.Waiting.BackOff = fmt.Sprintf("Back-off pulling image %q: %s: %s", image, f.Reason, f.Message)
		key := cmp.Or(f.Volume, c.Tried)
		pull := a.o.Pulls[key].fail(f.At, spec.ImagePullPolicy == corev1.PullAlways)
		a.pullBackOff(spec, f.Image)
		if a.o.Pulls == nil {
			a.o.Pulls = map[string]Pull{}
		}
		a.o.Pulls[key] = pull
		if c.catchUp(spec) {
			c.retry(time.Time{})
			return
		}
		c.retry(pull.Until())
		if f.Volume == "" {
			a.blockOthers(spec, *c, f.Image)
		}
		return
	}
	failed("Error: " + f.Reason)
	if c.catchUp(spec) {
		c.retry(time.Time{})
		return
	}
	c.retry(f.At.Add(retryDelay))
}

// abandoned reports whether starts are cut short now, so that their failure
// says nothing about the container or its image.
func (a *applying) abandoned() bool {
	return a.o.ending() || a.o.Sandbox.State == SandboxLost
}

func (a *applying) pullBackOff(spec *corev1.Container, image string) {
	a.event(spec, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", image))
	a.event(spec, corev1.EventTypeWarning, "Failed", "Error: "+reasonImagePullBackOff)
}

// blockOthers shows the backoff of an image at every other container whose
// turn it would be and which needs the same image (TIME-07).
func (a *applying) blockOthers(failed *corev1.Container, c Container, image string) {
	for _, s := range a.o.starts(a.pod) {
		spec := find(a.pod, s.action.Name)
		if spec.Name == failed.Name || spec.Image != failed.Image || !a.o.Pulls[spec.Image].blocks(spec.ImagePullPolicy) {
			continue
		}
		other := a.o.Containers[spec.Name]
		other.Waiting = Waiting{Reason: reasonImagePullBackOff, Message: c.Waiting.BackOff, At: a.at}
		a.pullBackOff(spec, image)
		a.put(spec.Name, other)
	}
}

func (a *applying) startFailed(f ContainerStartFailed, spec *corev1.Container, c *Container) {
	if a.abandoned() && f.Reason != reasonRunContainerError {
		return
	}
	f.Message = clean(f.Message)
	a.event(spec, corev1.EventTypeWarning, "Failed", "Error: "+f.Message)
	if f.Reason == reasonRunContainerError {
		// An instance existed, so this counts as a run that ended at once (RST-09).
		c.instance(c.CreatedID)
		c.Waiting = Waiting{Reason: f.Reason, Message: f.Message, At: f.At}
		a.ended(spec, c, Termination{
			ExitCode: exitStartError, Reason: reasonStartError, Message: f.Message,
			StartedAt: f.At, FinishedAt: f.At, ID: c.ID,
		})
		return
	}
	c.Waiting = Waiting{Reason: f.Reason, Message: f.Message, At: f.At}
	c.retry(f.At.Add(retryDelay))
}

// instance makes the next attempt of c the newest one (STATE-07).
func (c *Container) instance(id string) {
	c.Starts++
	c.ID, c.CreatedID, c.Try, c.NotBefore = id, "", 0, time.Time{}
	if c.Ended != nil {
		c.Previous = c.Ended // STATE-06
	}
	c.Ended, c.Lost, c.Again = nil, false, false
	c.Resources, c.Resize, c.User = nil, Resize{}, nil
	c.Started, c.Ready, c.OpenAt = false, false, time.Time{}
	c.PostStart, c.PreStop, c.PreStopDone, c.Stop, c.Killing = HookAbsent, HookAbsent, time.Time{}, nil, ""
}

func (a *applying) exited(f ContainerExited) {
	spec := find(a.pod, f.Container.Name)
	c := a.o.Containers[f.Container.Name]
	if spec == nil {
		return
	}
	if c.State == ContainerRunning && f.Container.Attempt == c.Starts-1 {
		a.exit(f, spec, &c)
		a.put(spec.Name, c)
		return
	}
	// The exit of an attempt whose start was not reported implies the start.
	a.attempt(f.Container, func(spec *corev1.Container, c *Container) {
		c.instance(c.CreatedID)
		c.StartedAt, c.Waiting = f.At, Waiting{}
		a.exit(f, spec, c)
	})
}

func (a *applying) exit(f ContainerExited, spec *corev1.Container, c *Container) {
	a.ended(spec, c, Termination{
		ExitCode: f.ExitCode, Reason: f.Reason, Message: f.Message,
		StartedAt: c.StartedAt, FinishedAt: f.At, ID: c.ID,
	})
	if a.triggers(spec, f.ExitCode) {
		a.put(spec.Name, *c)
		a.reset()
	}
}

// ended records the end of the newest attempt, and if it will be restarted,
// when (RST-03, RST-04).
func (a *applying) ended(spec *corev1.Container, c *Container, t Termination) {
	t.Message = clean(t.Message)
	c.State, c.Ended = ContainerEnded, &t
	c.Lost = a.o.Sandbox.State == SandboxLost && !a.o.ending()
	if c.PostStart == HookRunning {
		c.Waiting = Waiting{} // the end of the guest is the end of its hook
	}
	if c.Stop != nil {
		c.Waiting = c.Stop.Waiting
		c.Again = c.Stop.Again && c.killedAgain(t.FinishedAt)
	}
	c.PostStart, c.Stop, c.Started, c.Ready = HookAbsent, nil, false, false
	a.trackers(spec.Name, probes.Tracker.Stopped)
	if c.catchUp(spec) {
		c.Backoff = 0
	}
	if !c.Again && restarts(a.pod, spec, *c) && !a.o.ending() && !a.o.Resetting && !a.triggers(spec, t.ExitCode) {
		if delay := c.backOff(t.FinishedAt); delay > 0 {
			a.crashLoop(spec, c, delay)
		}
	}
	c.BeganAt = time.Time{}
}

// crashLoop says that a container waits to be restarted: at once, or if its start
// has failed, at the next look (RST-04, RST-09).
func (a *applying) crashLoop(spec *corev1.Container, c *Container, delay time.Duration) {
	message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, spec.Name, podName(a.pod))
	if c.Waiting.Reason == "" {
		c.Waiting = Waiting{Reason: reasonCrashLoopBackOff, Message: message, At: a.at}
	} else {
		c.Waiting.At, c.Waiting.Then, c.Waiting.BackOff = a.at, reasonCrashLoopBackOff, message
	}
	a.event(spec, corev1.EventTypeWarning, "BackOff",
		fmt.Sprintf("Back-off restarting failed container %s in pod %s", spec.Name, podName(a.pod)))
}

// restarts decides whether an ended container is started again while its pod
// lives (RST-01, INIT-03, SIDE-02).
func restarts(pod *corev1.Pod, spec *corev1.Container, c Container) bool {
	if isEphemeral(pod, spec.Name) {
		return false
	}
	if c.Again {
		return true
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == spec.Name {
			return isSidecar(spec) || initRestarts(pod, spec, c)
		}
	}
	return regularRestarts(pod, spec, c)
}

// podName is how messages name a pod.
func podName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// clean makes a message of a fact fit for the API: guests and registries have a
// say in it, and it need be neither short nor text.
func clean(message string) string {
	return prefix(strings.ToValidUTF8(message, "\uFFFD"), maxMessages)
}

func (a *applying) podEvent(eventType, reason, message string) {
	a.events = append(a.events, Event{At: a.at, Type: eventType, Reason: reason, Message: clean(message)})
}

func (a *applying) event(spec *corev1.Container, eventType, reason, message string) {
	path := "spec.containers{" + spec.Name + "}"
	if _, init := lookup(a.pod, spec.Name); init {
		path = "spec.initContainers{" + spec.Name + "}"
	} else if isEphemeral(a.pod, spec.Name) {
		path = "spec.ephemeralContainers{" + spec.Name + "}"
	}
	a.events = append(a.events, Event{At: a.at, Type: eventType, Reason: reason, Message: clean(message), FieldPath: path})
}

// containers lists the pod's containers, init containers first.
func containers(pod *corev1.Pod) []*corev1.Container {
	list := make([]*corev1.Container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers)+len(pod.Spec.EphemeralContainers))
	for i := range pod.Spec.InitContainers {
		list = append(list, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		list = append(list, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		list = append(list, ephemeral(pod, i))
	}
	return list
}

// each calls do for every container of the pod, init containers first; ephemeral
// ones, which nothing is declared for, are left out.
func each(pod *corev1.Pod, do func(spec *corev1.Container, init bool)) {
	for i := range pod.Spec.InitContainers {
		do(&pod.Spec.InitContainers[i], true)
	}
	for i := range pod.Spec.Containers {
		do(&pod.Spec.Containers[i], false)
	}
}

// lookup returns the spec of a container, nil if the pod has none of that name,
// and whether it is an init container.
func lookup(pod *corev1.Pod, name string) (spec *corev1.Container, init bool) {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i], true
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i], false
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return ephemeral(pod, i), false
		}
	}
	return nil, false
}

// find returns the spec of a container, nil if the pod has none of that name.
func find(pod *corev1.Pod, name string) *corev1.Container {
	spec, _ := lookup(pod, name)
	return spec
}
