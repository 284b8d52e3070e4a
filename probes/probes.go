// Package probes decides what the results of a container's probe mean and when
// the next attempt is due. It is pure: results and times go in, verdicts and
// times come out; carrying an attempt out is the business of whoever can reach
// the container.
package probes

import (
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

// String is the kind's name in events (PROBE-10).
func (k Kind) String() string { return [...]string{"Liveness", "Readiness", "Startup"}[k] }

// Result is what is known of a container.
type Result int

// The results. Unknown is also what an attempt yields that could not be made;
// it does not count (PROBE-09). Warning is what only an attempt yields: a success
// that somebody should look at (PROBE-10); whoever reports it to a Tracker makes
// it Success.
const (
	Unknown Result = iota
	Success
	Failure
	Warning
)

// Tracker follows one probe of one container over the container's instances.
// Its methods return what it becomes; it is a plain value. A new Tracker is one
// that has met no instance.
type Tracker struct {
	kind  Kind
	probe corev1.Probe // defaulted
	begin time.Time    // of the worker: what ticks are counted from

	id      string // of the instance
	verdict Result
	onHold  bool // until there is another instance
	last    Result
	run     int32 // how often last was seen in a row
}

// New returns the Tracker of a probe whose worker starts now. The probe must be
// defaulted.
func New(kind Kind, probe *corev1.Probe, now time.Time) Tracker {
	return Tracker{kind: kind, probe: *probe, begin: now, verdict: initial(kind)}
}

// initial is what holds for an instance before its first verdict (PROBE-04).
func initial(kind Kind) Result {
	return [...]Result{Liveness: Success, Readiness: Failure, Startup: Unknown}[kind]
}

// Verdict is what holds now.
func (t Tracker) Verdict() Result { return t.verdict }

// Started tells of an instance that has started. The verdict begins anew, but
// counts go on: a container that crashed after two of three failures is one
// failure away from being killed (PROBE-06).
func (t Tracker) Started(id string) Tracker {
	if id == t.id {
		return t
	}
	t.id, t.verdict, t.onHold = id, initial(t.kind), false
	return t
}

// Stopped tells that the instance has ended: what is not running fails
// (PROBE-08).
func (t Tracker) Stopped() Tracker {
	t.verdict = Failure
	return t
}

// Observed takes the result of an attempt at the instance with that id. The
// verdict changes once a result was seen often enough in a row (PROBE-06).
// After a liveness failure or a startup verdict the probe is on hold until
// another instance starts, and counts from zero (PROBE-07).
func (t Tracker) Observed(id string, r Result) Tracker {
	if r == Unknown || id != t.id || t.onHold {
		return t
	}
	if r != t.last {
		t.last, t.run = r, 0
	}
	t.run++
	threshold := t.probe.SuccessThreshold
	if r == Failure {
		threshold = t.probe.FailureThreshold
	}
	if t.run < threshold {
		return t
	}
	t.verdict = r
	if t.kind == Startup || t.kind == Liveness && r == Failure {
		t.onHold, t.last, t.run = true, Unknown, 0
	}
	return t
}

// Next returns when the first attempt after now is due at an instance that
// started at the given time; false if none is while it lives. Ticks come once a
// period from the worker's start on, not from the instance's, and those before
// the initial delay, counted in whole seconds, are passed over (PROBE-02).
// Missed ticks coalesce (PROBE-27).
func (t Tracker) Next(now, started time.Time) (time.Time, bool) {
	if t.onHold {
		return time.Time{}, false
	}
	period := time.Duration(max(t.probe.PeriodSeconds, 1)) * time.Second
	delay := time.Duration(t.probe.InitialDelaySeconds) * time.Second
	from := now
	if first := started.Add(delay); first.After(from) {
		from = first.Add(-time.Nanosecond) // a tick at that very moment counts
	}
	n := from.Sub(t.begin) / period
	if from.Before(t.begin) {
		return t.begin, true
	}
	return t.begin.Add((n + 1) * period), true
}
