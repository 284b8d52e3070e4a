package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
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
	case stageReplacing:
		if o.running() {
			p.stop(pod, &o, o.Sandbox.LostAt, gracePeriod(pod), now)
		} else {
			p.add(RemoveSandbox{Attempt: o.Sandbox.Attempt})
		}
	case stageStopping:
		p.stop(pod, &o, o.Ending.At, o.Ending.Grace, now)
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
func (p *Plan) at(t, now time.Time, a Action) {
	if t.After(now) {
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
	for i := range starts {
		s := &starts[i]
		if t, ok := o.Containers[s.action.Name].Waiting.turns(); ok && t.After(now) {
			p.wake(t)
		}
		switch {
		case s.underWay:
			p.add(s.action)
		case first == nil || s.at.Before(first.at):
			first = s
		}
	}
	if first != nil && len(p.Actions) == 0 {
		p.at(first.at, now, first.action)
	}
}
