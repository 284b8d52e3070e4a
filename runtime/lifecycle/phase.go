package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
)

// shownPhase is the phase that the API shows. A terminal phase is withheld
// until nothing of the pod can run any more, which is when its sandbox is gone
// (PHASE-12), and then stays (PHASE-11).
func shownPhase(pod *corev1.Pod, o *Observed) corev1.PodPhase {
	if o.Final != "" {
		return o.Final
	}
	t := count(pod, o)
	switch {
	case t.initFailed || t.pending():
		return corev1.PodPending
	case t.running > 0 || t.stopped > 0: // PHASE-04, PHASE-07
		return corev1.PodRunning
	}
	return corev1.PodPending // PHASE-10
}

// finalPhase is the phase of a pod that has ended: the regular containers' last
// exit codes decide, whatever the restart policy (PHASE-01, PHASE-05, PHASE-06,
// PHASE-08, PHASE-09). One that never ran, or passed its deadline, has failed
// (PHASE-13, PHASE-14).
func finalPhase(pod *corev1.Pod, o *Observed) corev1.PodPhase {
	t := count(pod, o)
	if o.Ending.Cause == Deadline || o.Ending.Cause == Evicted || t.initFailed || t.pending() || t.stopped != t.succeeded {
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

// tally is the count that the phase follows from (PHASE).
type tally struct {
	initFailed  bool // an ordinary init container, for good
	pendingInit int  // ordinary init containers still to succeed
	waiting     int  // regular containers that never ran, and sidecars still to start in this sandbox
	running     int  // regular containers and sidecars
	stopped     int  // regular containers
	succeeded   int  // stopped with exit code 0
}

// pending reports whether the pod has yet to start something for the first
// time (PHASE-02, PHASE-03).
func (t tally) pending() bool { return t.pendingInit > 0 || t.waiting > 0 }

func count(pod *corev1.Pod, o *Observed) tally {
	var t tally
	for i := range pod.Spec.Containers {
		c := o.view(pod.Spec.Containers[i].Name)
		switch {
		case c.State == ContainerRunning:
			t.running++
		case c.Ended == nil:
			t.waiting++
		default:
			t.stopped++
			if c.Ended.ExitCode == 0 {
				t.succeeded++
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		c := o.view(spec.Name)
		switch {
		case c.reset(): // its turn comes again; the pod goes on running (RST-21)
		case !isSidecar(spec):
			switch {
			case c.State != ContainerEnded:
				t.pendingInit++
			case !initFailed(c.Ended):
			case initRestarts(pod, spec, c):
				// Like upstream, a failed one that will be tried again is no longer
				// pending: the regular containers' waiting keeps the pod Pending.
			default:
				t.initFailed = true
			}
		case c.State == ContainerRunning:
			t.running++
		case c.State == ContainerAbsent:
			t.waiting++ // one that has ended is not counted (SIDE-06)
		}
	}
	return t
}
