// Package probes decides what the results of a container's probe mean and when
// the next attempt is due. It is pure: results and times go in, verdicts and
// times come out; carrying an attempt out is the business of the packages below
// this one, and of whoever can reach the container.
package probes

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is which question a probe asks.
type Kind int

// The kinds of probes.
const (
	Liveness Kind = iota
	Readiness
	Startup
)

var kinds = [...]string{Liveness: "Liveness", Readiness: "Readiness", Startup: "Startup"}

// String is the kind's name in events (PROBE-10).
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kinds[k]
}

// Of is the container's probe of this kind, nil if it has none.
func (k Kind) Of(c *corev1.Container) *corev1.Probe {
	switch k {
	case Liveness:
		return c.LivenessProbe
	case Readiness:
		return c.ReadinessProbe
	case Startup:
		return c.StartupProbe
	}
	return nil
}

// Result is what is known of a container.
type Result int

// The results. Unknown is also what an attempt yields that could not be made;
// it does not count (PROBE-09). Warning is a success that gives rise to an event
// (PROBE-18).
const (
	Unknown Result = iota
	Success
	Failure
	Warning
)

var results = [...]string{Unknown: "unknown", Success: "success", Failure: "failure", Warning: "warning"}

// String is the result's name in events.
func (r Result) String() string {
	if r < 0 || int(r) >= len(results) {
		return fmt.Sprintf("Result(%d)", int(r))
	}
	return results[r]
}

// Tracker follows one probe of one container over the container's instances. It
// is a plain comparable value, and its methods return what it becomes. The probe
// that they are given must be defaulted; it is always the same one.
//
// Time may jump. What a Tracker asks for then is at most one attempt too early
// or too late; afterwards the ticks are again a period apart.
type Tracker struct {
	Container string `json:"container"`
	Kind      Kind   `json:"kind"`
	// Begin is what ticks are counted from: the start of the worker, or the last
	// attempt that was asked for out of turn (PROBE-02, PROBE-03).
	Begin time.Time `json:"begin,omitzero"`
	// Ticked is the newest tick that has been used up.
	Ticked time.Time `json:"ticked,omitzero"`
	// Asked is when an attempt was asked for while another was due.
	Asked time.Time `json:"asked,omitzero"`

	ID      string `json:"id,omitempty"` // of the instance
	Verdict Result `json:"verdict"`      // what holds now
	OnHold  bool   `json:"onHold,omitempty"`
	Last    Result `json:"last,omitempty"`
	Run     int32  `json:"run,omitempty"` // how often Last was seen in a row
	Seq     int    `json:"seq,omitempty"` // of the next attempt
}

// New returns the Tracker of a probe whose worker starts now: one that has met
// no instance.
func New(container string, kind Kind, now time.Time) Tracker {
	return Tracker{Container: container, Kind: kind, Begin: now, Verdict: initial(kind)}
}

// initial is what holds for an instance before its first verdict (PROBE-04).
func initial(kind Kind) Result {
	return [...]Result{Liveness: Success, Readiness: Failure, Startup: Unknown}[kind]
}

// Started tells of an instance that has started. The verdict begins anew, but
// counts go on: a container that crashed after two of three failures is one
// failure away from being killed (PROBE-06).
func (t Tracker) Started(id string) Tracker {
	t.ID, t.Verdict, t.OnHold, t.Asked = id, initial(t.Kind), false, time.Time{}
	return t
}

// Stopped tells that the instance has ended: what is not running fails
// (PROBE-08).
func (t Tracker) Stopped() Tracker {
	t.Verdict = Failure
	return t
}

// Observed takes the result of the attempt with that number, which began at the
// given time and has ended now. A result of another attempt is dropped. The
// verdict changes once a result was seen often enough in a row (PROBE-06). After
// a liveness failure or a startup verdict the probe is on hold until another
// instance starts, and counts from zero (PROBE-07).
func (t Tracker) Observed(p *corev1.Probe, seq int, began, now time.Time, r Result) Tracker {
	if seq != t.Seq || t.OnHold {
		return t
	}
	t.Seq++
	t.Ticked = began
	switch {
	case t.Asked.After(began):
		t.Begin, t.Ticked = now, time.Time{}
	case !t.Asked.IsZero(), t.Begin.After(began): // asked for, or the clock was set back
		t.Begin = began
	}
	t.Asked = time.Time{}
	if r == Unknown {
		return t
	}
	if r == Warning {
		r = Success
	}
	if r != t.Last {
		t.Last, t.Run = r, 0
	}
	t.Run++
	threshold := p.SuccessThreshold
	if r == Failure {
		threshold = p.FailureThreshold
	}
	if t.Run < threshold {
		return t
	}
	t.Run = threshold // which may be long ago
	t.Verdict = r
	if t.Kind == Startup || t.Kind == Liveness && r == Failure {
		t.OnHold, t.Last, t.Run = true, Unknown, 0
	}
	return t
}

// Ask asks for an attempt now, out of turn, from which on ticks are counted
// (PROBE-03). If an attempt is due already it has begun, or nearly so, and
// another one follows it.
func (t Tracker) Ask(p *corev1.Probe, w Window, now time.Time) Tracker {
	if due, ok := t.Due(p, w, now); ok && !due.After(now) {
		if t.Asked.IsZero() {
			t.Asked = now
		}
		return t
	}
	t.Begin, t.Ticked = now, time.Time{}
	return t
}

// Window is the time in which an instance may be probed.
type Window struct {
	Started time.Time // the instance: what the initial delay is counted from
	Open    time.Time // when it may be probed: a liveness probe waits for the startup probe
}

// Due says when the next attempt is due, which may be in the past; false if none
// is while the instance lives. Ticks come once a period. Those before the window
// opens and those before the initial delay is over are passed over (PROBE-02,
// PROBE-05), and those missed coalesce (PROBE-27).
func (t Tracker) Due(p *corev1.Probe, w Window, now time.Time) (time.Time, bool) {
	if t.OnHold {
		return time.Time{}, false
	}
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	if t.Ticked.Sub(now) > period || t.Begin.Sub(now) > period {
		return now, true // the clock was set back
	}
	var from time.Time
	if !w.Open.After(now) {
		from = w.Open
		if ready := w.Started.Add(time.Duration(p.InitialDelaySeconds) * time.Second); ready.After(from) {
			from = ready
		}
	}
	due := t.tick(from, period)
	if !due.After(t.Ticked) {
		due = t.tick(t.Ticked.Add(1), period)
	}
	return due, true
}

// tick is the first tick at or after a time.
func (t Tracker) tick(from time.Time, period time.Duration) time.Time {
	d := from.Sub(t.Begin)
	if d <= 0 {
		return t.Begin
	}
	n := d / period
	if d%period != 0 {
		n++
	}
	return t.Begin.Add(n * period)
}
