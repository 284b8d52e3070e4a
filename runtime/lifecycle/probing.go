package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// registerProbes begins the trackers of the pod's probes, once its volumes are
// there (SBX-01, PROBE-01).
func (a *applying) registerProbes() {
	if a.o.Probes != nil {
		return
	}
	each(a.pod, func(spec *corev1.Container, init bool) {
		if init && !isSidecar(spec) {
			return
		}
		for _, kind := range []probes.Kind{probes.Startup, probes.Liveness, probes.Readiness} {
			if kind.Of(spec) != nil {
				a.o.Probes = append(a.o.Probes, probes.New(spec.Name, kind, a.at))
			}
		}
	})
}

// probed takes the result of an attempt that changes no verdict, which is nearly
// every one, without a copy of anything but the trackers. It reports false if
// there is more to it.
func (o Observed) probed(pod *corev1.Pod, f ProbeFinished) (Observed, []Event, bool) {
	i, spec := o.tracker(pod, f)
	if i < 0 {
		return o, nil, true
	}
	t := o.Probes[i].Observed(f.Kind.Of(spec), f.Seq, f.Began, f.At, f.result())
	if t.Verdict != o.Probes[i].Verdict || t.OnHold != o.Probes[i].OnHold {
		return o, nil, false
	}
	if _, ok := o.deadline(pod); ok {
		if p := o; p.passTime(pod, f.At) {
			return o, nil, false
		}
	}
	a := applying{o: &o, pod: pod, at: f.At}
	if t.Seq != o.Probes[i].Seq {
		a.probeEvent(spec, f)
	}
	o.Probes = slices.Clone(o.Probes)
	o.Probes[i] = t
	return o, a.events, true
}

// tracker finds the tracker that a result is for: -1 if it is of another attempt,
// or of a container that does not run any more.
func (o *Observed) tracker(pod *corev1.Pod, f ProbeFinished) (int, *corev1.Container) {
	c := o.Containers[f.Container.Name]
	spec, _ := lookup(pod, f.Container.Name)
	if c.State != ContainerRunning || f.Container != c.ref(f.Container.Name) || spec == nil || f.Kind.Of(spec) == nil {
		return -1, nil
	}
	for i := range o.Probes {
		if t := &o.Probes[i]; t.Container == f.Container.Name && t.Kind == f.Kind && t.Seq == f.Seq {
			return i, spec
		}
	}
	return -1, nil
}

// result is what counts: an attempt that could not be made does not (PROBE-09).
func (f ProbeFinished) result() probes.Result {
	if f.Error != "" {
		return probes.Unknown
	}
	return f.Result
}

// probeEvent says what an attempt has found, whether it changes anything or not
// (PROBE-09, PROBE-10).
func (a *applying) probeEvent(spec *corev1.Container, f ProbeFinished) {
	switch {
	case f.Error != "":
		a.event(spec, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %s", f.Kind, f.Error))
	case f.Result == probes.Failure:
		a.event(spec, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", f.Kind, f.Output))
	case f.Result == probes.Warning:
		a.event(spec, corev1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", f.Kind, f.Output))
	}
}

// probeFinished takes a result that changes a verdict.
func (a *applying) probeFinished(f ProbeFinished) {
	o := a.o
	i, spec := o.tracker(a.pod, f)
	if i < 0 {
		return
	}
	t := o.Probes[i].Observed(f.Kind.Of(spec), f.Seq, f.Began, f.At, f.result())
	if t.Seq != o.Probes[i].Seq {
		a.probeEvent(spec, f)
	}
	o.Probes[i] = t
	c := o.Containers[spec.Name]
	if t.Kind != probes.Readiness && t.Verdict == probes.Failure && c.Stop == nil && !o.ending() &&
		!o.Resetting && o.Sandbox.State == SandboxReady { // PROBE-16
		a.unhealthy(f.Kind, spec, c)
	}
}

// unhealthy stops a container whose liveness or startup probe has failed, and
// starts it again unless its policy is Never: rules are not asked, because there
// is no exit code (PROBE-11, PROBE-13, PROBE-14, MAIN-04, SIDE-03).
func (a *applying) unhealthy(kind probes.Kind, spec *corev1.Container, c Container) {
	_, init := lookup(a.pod, spec.Name)
	again := init || policyOf(a.pod, spec) != corev1.RestartPolicyNever
	message := fmt.Sprintf("Container %s failed %s probe", spec.Name, strings.ToLower(kind.String()))
	switch {
	case init:
		message = "Init c" + message[1:]
	case again:
		message += ", will be restarted"
	case !a.o.keeps(a.pod, spec.Name):
		// With nothing left to keep, it is the pod that is killed (SBX-07).
		a.o.Ending = Ending{Cause: Completed, At: a.at, Grace: gracePeriod(a.pod)}
		return
	}
	c.Stop = &Stop{At: a.at, Grace: containerGrace(a.pod, kind.Of(spec)), Message: message, Again: again}
	a.put(spec.Name, c)
}

// keeps reports whether a regular container other than this one runs or will run.
func (o *Observed) keeps(pod *corev1.Pod, but string) bool {
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		c := o.Containers[spec.Name]
		if spec.Name != but && (c.State != ContainerEnded || regularRestarts(pod, spec, c)) {
			return true
		}
	}
	return false
}

// instance tells the trackers of a container of its new instance, or of the end
// of the newest.
func (a *applying) trackers(name string, change func(probes.Tracker) probes.Tracker) {
	for i := range a.o.Probes {
		if a.o.Probes[i].Container == name {
			a.o.Probes[i] = change(a.o.Probes[i])
		}
	}
}

// refresh works out which containers have started and are ready (STATE-09,
// COND-07, PROBE-04, PROBE-05).
func (a *applying) refresh() {
	for name, c := range a.o.Containers {
		before := c
		runs := c.State == ContainerRunning && !a.o.hidden(name)
		c.Started = runs && a.o.verdict(name, probes.Startup)
		c.Ready = c.Started && a.o.verdict(name, probes.Readiness)
		if c.Started && !before.Started {
			c.OpenAt = a.at
		}
		if c.Started != before.Started || c.Ready != before.Ready {
			a.o.Containers[name] = c
		}
	}
}

// verdict reports whether the container has no probe of this kind or it has
// succeeded.
func (o *Observed) verdict(name string, kind probes.Kind) bool {
	for i := range o.Probes {
		if t := &o.Probes[i]; t.Container == name && t.Kind == kind {
			return t.Verdict == probes.Success
		}
	}
	return true
}

// askUnready has the readiness of containers looked at that have started but are
// not ready, as upstream does whenever it makes a status (PROBE-03).
func (a *applying) askUnready() {
	for i := range a.o.Probes {
		t := &a.o.Probes[i]
		c := a.o.Containers[t.Container]
		if t.Kind != probes.Readiness || !c.Started || c.Ready {
			continue
		}
		if spec, _ := lookup(a.pod, t.Container); spec != nil && spec.ReadinessProbe != nil {
			*t = t.Ask(spec.ReadinessProbe, c.window(), a.at)
		}
	}
}

// hookFinished takes the end of a hook.
func (a *applying) hookFinished(f HookFinished) {
	spec, _ := lookup(a.pod, f.Container.Name)
	c := a.o.Containers[f.Container.Name]
	if spec == nil || c.State != ContainerRunning || f.Container != c.ref(spec.Name) {
		return
	}
	switch {
	case f.Hook == PostStart && c.PostStart == HookRunning:
		a.postStarted(f, spec, &c)
	case f.Hook == PreStop && c.PreStop == HookAbsent:
		c.PreStop, c.PreStopDone = HookDone, f.At
		if f.Error != "" { // not the error, which could hold secrets
			a.event(spec, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
	default:
		return
	}
	if f.Fallback != "" {
		a.podEvent(corev1.EventTypeWarning, "LifecycleHTTPFallback", f.Fallback)
	}
	a.put(spec.Name, c)
}

// postStarted ends the start of a container (HOOK-01), or kills it for its hook
// (HOOK-02).
func (a *applying) postStarted(f HookFinished, spec *corev1.Container, c *Container) {
	if f.Error == "" {
		c.PostStart, c.Waiting = HookDone, Waiting{}
		return
	}
	c.PostStart = HookFailed
	a.event(spec, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	if a.o.ending() || c.Stop != nil {
		return
	}
	c.Stop = &Stop{
		At: a.at, Grace: containerGrace(a.pod, nil), Message: "FailedPostStartHook",
		Waiting: Waiting{Reason: reasonPostStartHookError, Message: clean(f.Error), At: a.at},
	}
}

// announce gives every stop that has been decided its Killing event (EVT-04,
// DEL-07).
func (a *applying) announce() {
	o := a.o
	all := o.Final == "" && (o.ending() || o.Sandbox.State == SandboxLost)
	for _, spec := range containers(a.pod) {
		c := o.Containers[spec.Name]
		message := ""
		switch {
		case c.State != ContainerRunning:
		case all:
			message = "Stopping container " + spec.Name
		case c.Stop != nil && (!o.Resetting || spec == o.victim(a.pod)):
			message = c.Stop.Message
		}
		if message == "" || message == c.Killing {
			continue
		}
		c.Killing = message
		o.Containers[spec.Name] = c
		a.event(spec, corev1.EventTypeNormal, "Killing", message)
	}
}

// killedAgain decides when a container that was killed for its own good starts
// again, in the same go: unless the end of the instance before it was so recent
// that its backoff is not over. It reports false if the killed instance's own
// end counts like any other (RST-08).
func (c *Container) killedAgain(finished time.Time) bool {
	switch {
	case c.Previous == nil:
	case finished.Sub(c.Previous.FinishedAt) >= c.Backoff:
		c.Backoff = min(max(2*c.Backoff, initialBackoff), maxBackoff)
	default:
		return false
	}
	c.NotBefore = finished
	return true
}
