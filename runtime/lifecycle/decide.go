package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// Decide answers what is due for the pod at now. It repeats an action, equal in
// every field, until a fact shows that the action is done.
//
// What Decide expects of its caller:
//   - equal actions run once at a time;
//   - before RemoveSandbox or UnmountVolumes runs, every running action that is
//     no longer in the plan (an image being pulled, say) is cancelled, and has
//     returned with its facts folded in; the plan is then asked for again;
//   - at Plan.Wake it is asked again, and Status with it, since what the API
//     shows may change with time alone.
func Decide(pod *corev1.Pod, o Observed, now time.Time) Plan {
	o.passTime(pod, now)
	var p Plan
	switch o.stage(pod) {
	case stageNew:
	case stageMounting:
		p.at(o.Volumes.RetryAt, now, MountVolumes{Attempt: o.Volumes.Attempt})
	case stageSandboxing:
		if o.Sandbox.Purge {
			p.add(RemoveContainers{SandboxAttempt: o.Sandbox.Attempt - 1})
		} else {
			p.at(o.Sandbox.RetryAt, now, CreateSandbox{Attempt: o.Sandbox.Attempt})
		}
	case stageInitializing, stageRunning:
		p.start(pod, &o, now)
		p.postStart(pod, &o)
		p.resize(pod, &o, now)
		p.kill(pod, &o, now)
		p.probe(pod, &o, now)
	case stageResetting:
		for _, s := range o.ephemeralStarts(pod) {
			if s.underWay { // they stay (RST-20)
				p.add(s.action)
			}
		}
		if o.declaredRunning(pod) {
			p.kill(pod, &o, now)
		} else {
			p.add(ResetContainers{Attempt: o.Resets})
		}
	case stageReplacing:
		if o.running() {
			p.stop(pod, &o, o.Sandbox.LostAt, gracePeriod(pod), now)
		} else {
			p.add(RemoveSandbox{Attempt: o.Sandbox.Attempt})
		}
	case stageStopping:
		p.stop(pod, &o, o.Ending.At, o.Ending.Grace, now)
		p.probe(pod, &o, now)
	case stageRemoving:
		p.add(RemoveSandbox{Attempt: o.Sandbox.Attempt})
	case stageUnmounting:
		p.add(UnmountVolumes{})
	case stageFinished:
		p.Finished = true
	}
	if deadline, ok := o.deadline(pod); ok {
		p.wake(deadline)
	}
	return p
}

func (p *Plan) add(a Action) { p.Actions = append(p.Actions, a) }

// at adds an action that is due from t on, or else a wake-up then.
//
// Nothing here is ever due later than the longest backoff: what seems to be is
// due now, because the clock was set back.
func (p *Plan) at(t, now time.Time, a Action) {
	if !isDue(t, now) {
		p.wake(t)
		return
	}
	p.add(a)
}

// wake makes sure that the plan is asked for again at t.
func (p *Plan) wake(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

// start adds the one start that is due. Containers of a pod are started one
// after the other (MAIN-01): the next one's turn comes when the attempt of the
// one before has led to ContainerStarted or a failure. Of those that wait, the
// one that has been due for longest comes first, so that a container whose
// backoff ends does not push aside one whose start nobody has reported on yet.
func (p *Plan) start(pod *corev1.Pod, o *Observed, now time.Time) {
	var first *start
	starts := o.starts(pod)
	held := o.hooked() // HOOK-01: as if the start before had not returned
	for i := range starts {
		s := &starts[i]
		if t, ok := o.Containers[s.action.Name].Waiting.turns(); ok && t.After(now) {
			p.wake(t)
			p.stale(t)
		}
		switch {
		case s.underWay:
			p.add(s.action)
		case held:
		case first == nil || s.at.Before(first.at):
			first = s
		}
	}
	if first != nil && len(p.Actions) == 0 {
		p.at(first.at, now, first.action)
	}
}

// stale makes sure that the status is computed again at t.
func (p *Plan) stale(t time.Time) {
	if p.Stale.IsZero() || t.Before(p.Stale) {
		p.Stale = t
	}
}

// hooked reports whether a postStart hook is under way, or a container is being
// killed because its own has failed.
func (o *Observed) hooked() bool {
	for _, c := range o.Containers {
		if c.hooked() {
			return true
		}
	}
	return false
}

// postStart adds the postStart hook that is under way (HOOK-01).
func (p *Plan) postStart(pod *corev1.Pod, o *Observed) {
	each(pod, func(spec *corev1.Container, _ bool) {
		if c := o.Containers[spec.Name]; c.State == ContainerRunning && c.PostStart == HookRunning && c.Stop == nil {
			p.add(RunHook{ContainerRef: c.ref(spec.Name), Hook: PostStart})
		}
	})
}

// probe adds the attempts of probes that are due, and wakes for the others. While
// the pod is ending readiness probes go on until the containers are gone, and so
// do all probes of sidecars (PROBE-15, SIDE-12).
func (p *Plan) probe(pod *corev1.Pod, o *Observed, now time.Time) {
	ending := o.ending()
	for i := range o.Probes {
		t := &o.Probes[i]
		c := o.Containers[t.Container]
		if c.State != ContainerRunning || o.hidden(t.Container) || c.Started == (t.Kind == probes.Startup) {
			continue // PROBE-05
		}
		spec, init := lookup(pod, t.Container)
		if spec == nil || t.Kind.Of(spec) == nil || ending && t.Kind != probes.Readiness && !init {
			continue
		}
		if due, ok := t.Due(t.Kind.Of(spec), c.window(), now); ok {
			if due.After(now) {
				p.wake(due)
			} else {
				p.add(RunProbe{ContainerRef: c.ref(t.Container), Kind: t.Kind, Seq: t.Seq})
			}
		}
	}
}

// window is when the newest attempt of c may be probed.
func (c *Container) window() probes.Window {
	w := probes.Window{Started: c.StartedAt, Open: c.StartedAt}
	if c.Started {
		w.Open = c.OpenAt
	}
	return w
}

// ref names the newest attempt of c.
func (c *Container) ref(name string) ContainerRef {
	return ContainerRef{Name: name, Attempt: c.Starts - 1}
}
