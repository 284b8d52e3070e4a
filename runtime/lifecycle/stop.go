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
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return max(seconds(*s), minimumPodGrace)
	}
	return defaultGrace
}

// stop adds the stop of every container whose turn has come. All but sidecars
// are stopped at once. A sidecar's turn comes when no regular container and no
// later sidecar runs any more; what they took is deducted from its grace in
// whole seconds. When the grace period is over, all that is left is stopped
// (SIDE-08, SIDE-10, DEL-06, DEL-07).
//
// Grace is computed from what has happened and never from now, so that a
// repeated StopContainer stays equal.
func (p *Plan) stop(pod *corev1.Pod, o *Observed, since time.Time, grace time.Duration, now time.Time) {
	add := func(name string, grace time.Duration) {
		p.add(StopContainer{
			ContainerRef: ContainerRef{Name: name, Attempt: o.Containers[name].Starts - 1},
			Grace:        max(grace, minimumStop),
			Message:      "Stopping container " + name,
		})
	}
	turn, blocked := since, false
	for i := range pod.Spec.Containers {
		name := pod.Spec.Containers[i].Name
		if c := o.Containers[name]; c.State == ContainerRunning {
			add(name, grace)
			blocked = true
		} else if c.Ended != nil {
			turn = later(turn, c.Ended.FinishedAt)
		}
	}
	expiry := since.Add(grace)
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		spec := &pod.Spec.InitContainers[i]
		c := o.Containers[spec.Name]
		switch {
		case !isSidecar(spec):
			if c.State == ContainerRunning {
				add(spec.Name, grace)
			}
			continue
		case c.State != ContainerRunning:
			if c.Ended != nil {
				turn = later(turn, c.Ended.FinishedAt)
			}
			continue
		case !blocked:
			add(spec.Name, grace-turn.Sub(since).Truncate(time.Second))
		case !now.Before(expiry):
			add(spec.Name, minimumStop)
		default:
			p.wake(expiry)
		}
		blocked = true
	}
}
