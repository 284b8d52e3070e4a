package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	defaultGrace    = 30 * time.Second // TIME-01
	minimumPodGrace = 1 * time.Second  // TIME-03
	minimumStop     = 2 * time.Second  // TIME-02
)

// gracePeriod is how long the pod's containers have to stop when nobody asks
// for another period.
func gracePeriod(pod *corev1.Pod) time.Duration {
	return max(containerGrace(pod, nil), minimumPodGrace)
}

// containerGrace is how long one container has to stop while the pod lives on:
// what the probe says whose failure it is, or else the pod (PROBE-11).
func containerGrace(pod *corev1.Pod, probe *corev1.Probe) time.Duration {
	switch {
	case probe != nil && probe.TerminationGracePeriodSeconds != nil:
		return seconds(*probe.TerminationGracePeriodSeconds)
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return seconds(*pod.Spec.TerminationGracePeriodSeconds)
	}
	return defaultGrace
}

// stopping is one container's stop as far as it is decided.
type stopping struct {
	ref   ContainerRef
	since time.Time     // from when on grace counts
	grace time.Duration // never from now, so that a repeated StopContainer stays equal
}

// preStop adds the container's preStop hook if it is still to run, and reports
// whether that is over: then grace is what the hook has left, in whole seconds,
// and since is when it returned (HOOK-04, HOOK-05).
func (p *Plan) preStop(s *stopping, spec *corev1.Container, c *Container, now time.Time) bool {
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil || s.grace <= 0 {
		return true
	}
	expiry := s.since.Add(s.grace)
	switch {
	case c.PreStop == HookDone:
		if took := c.PreStopDone.Sub(s.since); took > 0 {
			s.grace -= took.Truncate(time.Second)
			s.since = c.PreStopDone
		}
		return true
	case now.Before(expiry) && s.since.Sub(now) <= s.grace: // or else the clock was set back
		p.add(RunHook{ContainerRef: s.ref, Hook: PreStop})
		p.wake(expiry)
		return false
	}
	s.since, s.grace = expiry, 0 // it is abandoned
	return true
}

func (p *Plan) signal(s stopping) {
	p.add(StopContainer{ContainerRef: s.ref, Grace: max(s.grace, minimumStop)})
}

// kill stops the containers that are to stop though the pod lives on.
func (p *Plan) kill(pod *corev1.Pod, o *Observed, now time.Time) {
	each(pod, func(spec *corev1.Container, _ bool) {
		c := o.Containers[spec.Name]
		if c.State != ContainerRunning || c.Stop == nil || o.Resetting && spec != o.victim(pod) {
			return
		}
		s := stopping{c.ref(spec.Name), c.Stop.At, c.Stop.Grace}
		if c.Stop.NoHook || p.preStop(&s, spec, &c, now) {
			p.signal(s)
		}
	})
}

// stop adds the stop of every container whose turn has come. All but sidecars
// are stopped at once. A sidecar's turn comes when no regular container and no
// later sidecar runs any more; what they took is deducted from its grace in
// whole seconds. When the grace period is over, all that is left is stopped.
// preStop hooks do not wait for their container's turn (SIDE-08..10, DEL-06,
// DEL-07, HOOK-11).
func (p *Plan) stop(pod *corev1.Pod, o *Observed, since time.Time, grace time.Duration, now time.Time) {
	p.stopEphemeral(pod, o, stopping{since: since, grace: grace})
	turn, blocked := since, false
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		if c := o.Containers[spec.Name]; c.State == ContainerRunning {
			s := stopping{c.ref(spec.Name), since, grace}
			if p.preStop(&s, spec, &c, now) {
				p.signal(s)
			}
			blocked = true
		} else if c.Ended != nil {
			turn = later(turn, c.Ended.FinishedAt)
		}
	}
	expiry := since.Add(grace)
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		spec := &pod.Spec.InitContainers[i]
		c := o.Containers[spec.Name]
		s := stopping{c.ref(spec.Name), since, grace}
		switch {
		case !isSidecar(spec):
			if c.State == ContainerRunning {
				p.signal(s)
			}
			continue
		case c.State != ContainerRunning:
			if c.Ended != nil {
				turn = later(turn, c.Ended.FinishedAt)
			}
			continue
		case !p.preStop(&s, spec, &c, now):
		case !blocked:
			if waited := turn.Sub(s.since); waited > 0 {
				s.grace -= waited.Truncate(time.Second)
			}
			p.signal(s)
		case !now.Before(expiry):
			s.grace = 0
			p.signal(s)
		default:
			p.wake(expiry)
		}
		blocked = true
	}
}
