package lifecycle

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Sync is a round of starts, which upstream makes in one go: while one of them takes
// long, to pull an image say, or in a postStart hook, the API shows the pod's
// containers as they were before, and those that have started meanwhile are not
// probed yet (MAIN-01, MAIN-03). Kills and probes of others do not wait for it here.
// The zero value: there is none.
type Sync struct {
	At time.Time `json:"at,omitzero"` // when it began
	// Starts are those of the round that have come to nothing yet.
	Starts []StartContainer `json:"starts,omitempty"`
	// Before are the containers as they were when it began. Never modified.
	Before map[string]Container `json:"before,omitempty"`
}

func (s *Sync) on() bool { return len(s.Starts) > 0 }

// isDue reports whether Decide takes what is to happen at t for due at now.
func isDue(t, now time.Time) bool { return !t.After(now) || t.Sub(now) > maxWait }

// beginSync notes what the API shows from now on, if this is the first fact of a
// round of starts.
func (a *applying) beginSync(ref ContainerRef) {
	o := a.o
	if o.Sync.on() || !o.starting(a.pod) {
		return
	}
	sync := Sync{At: a.at, Before: map[string]Container{}}
	maps.Copy(sync.Before, o.Containers)
	for _, s := range o.starts(a.pod) {
		if s.action.ContainerRef == ref || s.underWay || isDue(s.at, a.at) {
			sync.Starts = append(sync.Starts, s.action)
		}
	}
	o.Sync = sync
}

// endSync ends the round when all of its starts have succeeded, hooks included, or
// failed, or are not to be made any more.
func (a *applying) endSync() {
	o := a.o
	if !o.Sync.on() {
		return
	}
	if o.starting(a.pod) {
		if o.hooked() {
			return
		}
		left := o.starts(a.pod)
		o.Sync.Starts = slices.DeleteFunc(slices.Clone(o.Sync.Starts), func(action StartContainer) bool {
			return !slices.ContainsFunc(left, func(s start) bool {
				return s.action == action && (s.underWay || isDue(s.at, o.Sync.At))
			})
		})
		if len(o.Sync.Starts) > 0 {
			return
		}
	}
	for name, c := range o.Containers {
		if c.Waiting != o.Sync.Before[name].Waiting {
			c.Waiting.At = a.at // no look has found it earlier
			o.Containers[name] = c
		}
	}
	o.Sync = Sync{}
}

// starting reports whether the pod is where containers are started.
func (o *Observed) starting(pod *corev1.Pod) bool {
	stage := o.stage(pod)
	return stage == stageInitializing || stage == stageRunning
}

// hidden reports whether the API does not yet show that the newest attempt of a
// container runs (HOOK-01, MAIN-03).
func (o *Observed) hidden(name string) bool {
	c := o.Containers[name]
	if c.State != ContainerRunning {
		return false
	}
	if c.hooked() {
		return true
	}
	before := o.Sync.Before[name]
	return o.Sync.on() && (before.State != ContainerRunning || before.Starts != c.Starts)
}

// view is a container as the API shows it: as it was before the round of starts that
// is under way. Of one that was running then, probes still say whether it has started
// and is ready.
func (o *Observed) view(name string) Container {
	c := o.Containers[name]
	if o.ending() {
		return c
	}
	if o.Sync.on() {
		before := o.Sync.Before[name]
		if before.Starts == c.Starts && c.State == ContainerRunning {
			return c
		}
		return before
	}
	if c.State != ContainerRunning || !c.hooked() {
		return c
	}
	// Its hook has outlived the round: it is being killed.
	c.State, c.Starts, c.ID = ContainerAbsent, c.Starts-1, ""
	c.Ended, c.Previous = c.Previous, nil
	if c.Ended != nil {
		c.State, c.ID = ContainerEnded, c.Ended.ID
	}
	return c
}
