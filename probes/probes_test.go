package probes

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"
)

var begin = time.Unix(1000, 0)

func tracker(kind Kind, success, failure int32) Tracker {
	p := &corev1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: success, FailureThreshold: failure}
	return New(kind, p, begin).Started("1")
}

func (t Tracker) feed(results ...Result) Tracker {
	for _, r := range results {
		t = t.Observed(t.id, r)
	}
	return t
}

func TestInitialPROBE04(t *testing.T) {
	for kind, want := range map[Kind]Result{Liveness: Success, Readiness: Failure, Startup: Unknown} {
		if got := tracker(kind, 1, 3).Verdict(); got != want {
			t.Errorf("%v begins with %v, want %v", kind, got, want)
		}
	}
}

func TestThresholdsPROBE06(t *testing.T) {
	for name, tt := range map[string]struct {
		tracker Tracker
		results []Result
		want    Result
	}{
		"not enough failures":        {tracker(Liveness, 1, 3), []Result{Failure, Failure}, Success},
		"enough failures":            {tracker(Liveness, 1, 3), []Result{Failure, Failure, Failure}, Failure},
		"only consecutive ones":      {tracker(Liveness, 1, 3), []Result{Failure, Failure, Success, Failure, Failure}, Success},
		"not enough successes":       {tracker(Readiness, 2, 3), []Result{Success}, Failure},
		"enough successes":           {tracker(Readiness, 2, 3), []Result{Success, Success}, Success},
		"ready, and not any more":    {tracker(Readiness, 1, 2), []Result{Success, Failure, Failure}, Failure},
		"PROBE-09 unknown is passed": {tracker(Liveness, 1, 2), []Result{Failure, Unknown, Failure}, Failure},
		"startup succeeds":           {tracker(Startup, 1, 3), []Result{Failure, Failure, Success}, Success},
		"PROBE-07 startup is final":  {tracker(Startup, 1, 1), []Result{Success, Failure, Failure}, Success},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.tracker.feed(tt.results...).Verdict(); got != tt.want {
				t.Errorf("verdict %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInstances(t *testing.T) {
	t.Run("PROBE-06 a crash does not reset the count", func(t *testing.T) {
		tr := tracker(Liveness, 1, 3).feed(Failure, Failure).Stopped().Started("2")
		if tr.Verdict() != Success {
			t.Fatal("the new instance does not begin as live")
		}
		if got := tr.feed(Failure).Verdict(); got != Failure {
			t.Errorf("verdict %v after one more failure, want Failure", got)
		}
	})
	t.Run("PROBE-06 PROBE-07 a liveness failure does, and holds", func(t *testing.T) {
		tr := tracker(Liveness, 1, 2).feed(Failure, Failure)
		if _, due := tr.Next(begin, begin); due {
			t.Error("probed on although on hold")
		}
		if got := tr.feed(Success, Success).Verdict(); got != Failure {
			t.Errorf("verdict %v while on hold, want Failure", got)
		}
		if got := tr.Started("2").feed(Failure).Verdict(); got != Success {
			t.Errorf("verdict %v after one failure of the new instance, want Success", got)
		}
	})
	t.Run("a result of an older instance is dropped", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1).Started("2")
		if got := tr.Observed("1", Success).Verdict(); got != Failure {
			t.Errorf("verdict %v, want Failure", got)
		}
	})
	t.Run("PROBE-08 what does not run fails", func(t *testing.T) {
		if got := tracker(Readiness, 1, 1).feed(Success).Stopped().Verdict(); got != Failure {
			t.Errorf("verdict %v, want Failure", got)
		}
	})
}

func TestNextPROBE02(t *testing.T) {
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	for name, tt := range map[string]struct {
		delay        int32
		now, started float64
		want         float64
	}{
		"ticks are the worker's, not the container's": {0, 3, 3, 10},
		"the next one":                   {0, 10, 3, 20},
		"first after the delay":          {15, 3, 3, 20},
		"a tick at the end of the delay": {7, 3, 3, 10},
		"just missed":                    {7, 3.5, 3.5, 20},
		"PROBE-27 missed ticks coalesce": {0, 47, 3, 50},
		"the worker has not begun":       {0, -5, -5, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Probe{PeriodSeconds: 10, InitialDelaySeconds: tt.delay, SuccessThreshold: 1, FailureThreshold: 3}
			got, due := New(Liveness, p, begin).Next(at(tt.now), at(tt.started))
			if !due || !got.Equal(at(tt.want)) {
				t.Errorf("next at %v, %v, want %v", got.Sub(begin), due, tt.want)
			}
		})
	}
}

func TestNextIsAlwaysLater(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &corev1.Probe{
			PeriodSeconds:       rapid.Int32Range(0, 100).Draw(t, "period"),
			InitialDelaySeconds: rapid.Int32Range(0, 1000).Draw(t, "delay"),
		}
		now := begin.Add(time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "now")))
		started := begin.Add(time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "started")))
		next, due := New(Readiness, p, begin).Next(now, started)
		if !due || !next.After(now) || next.Before(started.Add(time.Duration(p.InitialDelaySeconds)*time.Second)) {
			t.Errorf("next %v, due %v", next.Sub(begin), due)
		}
	})
}
