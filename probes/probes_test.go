package probes

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"
)

var begin = time.Unix(1000, 0)

func at(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }

func spec(success, failure int32) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: success, FailureThreshold: failure}
}

// tracked is a Tracker with its probe.
type tracked struct {
	Tracker
	p *corev1.Probe
}

func tracker(kind Kind, success, failure int32) tracked {
	return tracked{New("c", kind, begin).Started("1"), spec(success, failure)}
}

func (t tracked) feed(results ...Result) tracked {
	for _, r := range results {
		t.Tracker = t.Observed(t.p, t.Seq, begin, begin, r)
	}
	return t
}

func TestInitialPROBE04(t *testing.T) {
	for kind, want := range map[Kind]Result{Liveness: Success, Readiness: Failure, Startup: Unknown} {
		if got := tracker(kind, 1, 3).Verdict; got != want {
			t.Errorf("%v begins with %v, want %v", kind, got, want)
		}
	}
}

func TestThresholdsPROBE06(t *testing.T) {
	for name, tt := range map[string]struct {
		tracker tracked
		results []Result
		want    Result
	}{
		"not enough failures":          {tracker(Liveness, 1, 3), []Result{Failure, Failure}, Success},
		"enough failures":              {tracker(Liveness, 1, 3), []Result{Failure, Failure, Failure}, Failure},
		"only consecutive ones":        {tracker(Liveness, 1, 3), []Result{Failure, Failure, Success, Failure, Failure}, Success},
		"not enough successes":         {tracker(Readiness, 2, 3), []Result{Success}, Failure},
		"PROBE-12 enough successes":    {tracker(Readiness, 2, 3), []Result{Success, Success}, Success},
		"PROBE-12 ready, and not more": {tracker(Readiness, 1, 2), []Result{Success, Failure, Failure}, Failure},
		"PROBE-09 unknown is passed":   {tracker(Liveness, 1, 2), []Result{Failure, Unknown, Failure}, Failure},
		"PROBE-13 startup succeeds":    {tracker(Startup, 1, 3), []Result{Failure, Failure, Success}, Success},
		"PROBE-07 startup is final":    {tracker(Startup, 1, 1), []Result{Success, Failure, Failure}, Success},
		"PROBE-10 warnings succeed":    {tracker(Readiness, 2, 1), []Result{Warning, Success}, Success},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.tracker.feed(tt.results...).Verdict; got != tt.want {
				t.Errorf("verdict %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInstances(t *testing.T) {
	t.Run("PROBE-06 a crash does not reset the count", func(t *testing.T) {
		tr := tracker(Liveness, 1, 3).feed(Failure, Failure)
		tr.Tracker = tr.Stopped().Started("2")
		if tr.Verdict != Success {
			t.Fatal("the new instance does not begin as live")
		}
		if got := tr.feed(Failure).Verdict; got != Failure {
			t.Errorf("verdict %v after one more failure, want Failure", got)
		}
	})
	t.Run("PROBE-06 PROBE-07 a liveness failure does, and holds", func(t *testing.T) {
		tr := tracker(Liveness, 1, 2).feed(Failure, Failure)
		if _, due := tr.Due(tr.p, Window{begin, begin}, begin); due {
			t.Error("probed on although on hold")
		}
		if got := tr.feed(Success, Success).Verdict; got != Failure {
			t.Errorf("verdict %v while on hold, want Failure", got)
		}
		tr.Tracker = tr.Started("2")
		if got := tr.feed(Failure).Verdict; got != Success {
			t.Errorf("verdict %v after one failure of the new instance, want Success", got)
		}
	})
	t.Run("a result of another attempt is dropped", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1)
		if got := tr.Observed(tr.p, 7, begin, begin, Success); got != tr.Tracker {
			t.Errorf("%+v, want %+v", got, tr.Tracker)
		}
	})
	t.Run("PROBE-08 what does not run fails", func(t *testing.T) {
		if got := tracker(Readiness, 1, 1).feed(Success).Stopped().Verdict; got != Failure {
			t.Errorf("verdict %v, want Failure", got)
		}
	})
}

func TestDuePROBE02(t *testing.T) {
	for name, tt := range map[string]struct {
		delay        int32
		ticked       float64 // 0: never
		started, now float64
		want         float64
	}{
		"ticks are the worker's, not the container's":         {started: 3, now: 3, want: 10},
		"a tick at the very start counts":                     {started: 10, now: 10, want: 10},
		"the next one":                                        {started: 3, ticked: 10, now: 10, want: 20},
		"an attempt that was late does not move the ticks":    {started: 3, ticked: 10.4, now: 10.4, want: 20},
		"first after the delay":                               {delay: 15, started: 3, now: 3, want: 20},
		"a tick at the end of the delay":                      {delay: 7, started: 3, now: 3, want: 10},
		"just missed":                                         {delay: 7, started: 3.5, now: 3.5, want: 20},
		"PROBE-27 ticks missed by a slow attempt are one":     {started: 3, ticked: 10, now: 47, want: 20},
		"PROBE-27 after which the old rhythm goes on":         {started: 3, ticked: 47, now: 47, want: 50},
		"the worker has not begun":                            {started: -5, now: -5, want: 0},
		"the clock jumped forwards":                           {started: 3, ticked: 10, now: 4000, want: 20},
		"the clock was set back: one attempt at once":         {started: 3, ticked: 4000, now: 100, want: 100},
		"the clock was set back before the first attempt":     {delay: 5, started: -3600, now: -3599, want: -3599},
		"the clock was set back a little: the ticks go on":    {started: 3, ticked: 20, now: 19, want: 30},
		"PROBE-06 the instance of now began after the ticks":  {started: 33, ticked: 20, now: 33, want: 40},
		"PROBE-05 and so does what waits for another verdict": {started: 33, ticked: 0, now: 33, want: 40},
	} {
		t.Run(name, func(t *testing.T) {
			p := spec(1, 3)
			p.InitialDelaySeconds = tt.delay
			tr := New("c", Liveness, begin)
			if tt.ticked != 0 {
				tr.Ticked = at(tt.ticked)
			}
			got, due := tr.Due(p, Window{at(tt.started), at(tt.started)}, at(tt.now))
			if !due || !got.Equal(at(tt.want)) {
				t.Errorf("due at %v, %v, want %v", got.Sub(begin), due, tt.want)
			}
		})
	}
}

func TestAskPROBE03(t *testing.T) {
	w := Window{at(3), at(3)}
	expect := func(t *testing.T, tr tracked, now, want float64) {
		t.Helper()
		if got, _ := tr.Due(tr.p, w, at(now)); !got.Equal(at(want)) {
			t.Errorf("due at %v, want %v", got.Sub(begin), want)
		}
	}
	t.Run("PROBE-03 an attempt at once, and the ticks count from it", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1)
		tr.Tracker = tr.Ask(tr.p, w, at(3))
		expect(t, tr, 3, 3)
		tr.Tracker = tr.Observed(tr.p, tr.Seq, at(3.01), at(3.02), Failure)
		expect(t, tr, 3.02, 13)
	})
	t.Run("PROBE-03 asked during the initial delay, only the ticks are moved", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1)
		tr.p.InitialDelaySeconds = 5
		tr.Tracker = tr.Ask(tr.p, w, at(3))
		expect(t, tr, 3, 13)
	})
	t.Run("PROBE-03 asked during an attempt, another follows", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1)
		tr.Tracker = tr.Ask(tr.p, w, at(10.5)) // one is due since 10
		expect(t, tr, 10.5, 10)
		tr.Tracker = tr.Observed(tr.p, tr.Seq, at(10), at(10.9), Failure)
		expect(t, tr, 10.9, 10.9)
		tr.Tracker = tr.Observed(tr.p, tr.Seq, at(10.9), at(11), Failure)
		expect(t, tr, 11, 20.9)
	})
	t.Run("PROBE-03 the attempt that was due has not begun: it is the one", func(t *testing.T) {
		tr := tracker(Readiness, 1, 1)
		tr.Tracker = tr.Ask(tr.p, w, at(10.5))
		tr.Tracker = tr.Observed(tr.p, tr.Seq, at(10.6), at(10.9), Failure)
		expect(t, tr, 10.9, 20.6)
	})
}

// Whatever the clock does, a Tracker asks for no attempt twice, waits for none
// longer than a period and the initial delay, and is never asked for more
// attempts than there are ticks but for one per jump.
func TestClockPROBE27(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := spec(1, 1000)
		p.PeriodSeconds = rapid.Int32Range(1, 100).Draw(t, "period")
		p.InitialDelaySeconds = rapid.Int32Range(0, 100).Draw(t, "delay")
		period := time.Duration(p.PeriodSeconds) * time.Second
		tr := New("c", Readiness, begin).Started("1")
		now := begin.Add(time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "start")))
		w := Window{now, now}
		attempts, budget := 0, 2
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0: // a jump
				now = now.Add(time.Duration(rapid.Int64Range(-1e13, 1e13).Draw(t, "jump")))
				budget += 2
			case 1:
				tr = tr.Ask(p, w, now)
				budget += 2
			default:
				d := time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "passes"))
				now = now.Add(d)
				budget += int(d/period) + 1
			}
			for {
				due, ok := tr.Due(p, w, now)
				if !ok {
					t.Fatal("never due")
				}
				if due.After(now) {
					if due.Sub(now) > 2*period+time.Duration(p.InitialDelaySeconds)*time.Second {
						t.Fatalf("waits for %v", due.Sub(now))
					}
					break
				}
				if attempts++; attempts > budget {
					t.Fatalf("a storm: %d attempts", attempts)
				}
				tr = tr.Observed(p, tr.Seq, now, now, Failure)
			}
		}
		data, err := json.Marshal(tr)
		if err != nil {
			t.Fatal(err)
		}
		var restored Tracker
		if err := json.Unmarshal(data, &restored); err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(restored); string(again) != string(data) {
			t.Fatalf("%s became %s", data, again)
		}
	})
}

func TestNames(t *testing.T) {
	if Kind(9).String() != "Kind(9)" || Result(-1).String() != "Result(-1)" || Startup.String() != "Startup" || Failure.String() != "failure" {
		t.Error("names")
	}
	c := &corev1.Container{LivenessProbe: spec(1, 1), ReadinessProbe: spec(1, 2), StartupProbe: spec(1, 3)}
	for kind, want := range map[Kind]*corev1.Probe{Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe, Startup: c.StartupProbe, 9: nil} {
		if kind.Of(c) != want {
			t.Errorf("%v.Of", kind)
		}
	}
}
