package cgroup

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = int64(time.Millisecond)

func TestBudget(t *testing.T) {
	t.Run("RES-05 a limit becomes quota and period", func(t *testing.T) {
		if b := NewBandwidth(250); b != (Bandwidth{Quota: 25 * time.Millisecond, Period: 100 * time.Millisecond}) {
			t.Errorf("%+v", b)
		}
		if b := NewBudget(NewBandwidth(0), 1, 1); b.Limited() || !b.Advance(1<<62, 1<<62) {
			t.Error("no limit is a limit")
		}
	})
	t.Run("RES-05 spent, throttled, refilled", func(t *testing.T) {
		b := NewBudget(NewBandwidth(200), 0, 0)
		if !b.Advance(10*ms, 10*ms) || b.Advance(20*ms, 20*ms) {
			t.Fatal("the budget is 20 ms")
		}
		b.Throttle(21 * ms)
		b.Throttle(22 * ms) // another guest of the container
		if b.Advance(99*ms, 21*ms) || !b.Advance(100*ms, 21*ms) {
			t.Fatal("the next period pays")
		}
		if left := b.Limit() - 21*ms; left != 19*ms {
			t.Errorf("%d ns left, want 19 ms: 1 ms was overdrawn", left)
		}
		want := ThrottleStats{Periods: 1, Throttled: 1, Time: 79 * time.Millisecond}
		if got := b.Stats(100 * ms); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("RES-05 a debt of several periods", func(t *testing.T) {
		b := NewBudget(NewBandwidth(100), 0, 0)
		b.Advance(50*ms, 50*ms) // 40 ms too many
		b.Throttle(50 * ms)
		for now := 100 * ms; now < 500*ms; now += 100 * ms {
			if b.Advance(now, 50*ms) {
				t.Errorf("runs at %d ms", now/ms)
			}
		}
		if !b.Advance(500*ms, 50*ms) {
			t.Error("does not run when all is paid")
		}
		if got := b.Stats(500 * ms); got.Throttled != 5 || got.Time != 450*time.Millisecond {
			t.Errorf("%+v", got)
		}
	})
	t.Run("RES-05 what is left is kept up to the burst", func(t *testing.T) {
		b := NewBudget(Bandwidth{Quota: 10 * time.Millisecond, Period: 100 * time.Millisecond, Burst: 15 * time.Millisecond}, 0, 0)
		for i, want := range []int64{20, 25, 25} {
			if b.Advance(int64(i+1)*100*ms, 0); b.Limit() != want*ms {
				t.Errorf("after %d periods %d ms, want %d", i+1, b.Limit()/ms, want)
			}
		}
	})
	t.Run("RES-20 a new limit neither forgives a debt nor keeps what was left", func(t *testing.T) {
		b := NewBudget(NewBandwidth(100), 0, 0)
		b.Set(NewBandwidth(500), 0, 15*ms)
		if left := b.Limit() - 15*ms; left != 45*ms {
			t.Errorf("%d ms", left/ms)
		}
		b.Set(NewBandwidth(100), 0, 15*ms)
		if left := b.Limit() - 15*ms; left != 10*ms {
			t.Errorf("%d ms", left/ms)
		}
		b.Throttle(ms)
		if b.Set(Bandwidth{}, 5*ms, 100*ms); !b.Advance(5*ms, 200*ms) || b.Stats(9*ms).Time != 4*time.Millisecond {
			t.Error("still throttled without a limit")
		}
	})
	t.Run("RES-20 a limit that is raised while throttled lets run at once", func(t *testing.T) {
		b := NewBudget(NewBandwidth(100), 0, 0)
		b.Advance(50*ms, 12*ms)
		b.Throttle(50 * ms)
		b.Set(NewBandwidth(200), 60*ms, 12*ms)
		if !b.Advance(60*ms, 12*ms) || b.Limit() != 30*ms || b.Refill() != 160*ms {
			t.Errorf("limit %d refill %d, want 30 ms at 60 + 100: 2 ms were overdrawn", b.Limit(), b.Refill())
		}
		if got, want := b.Stats(90*ms), (ThrottleStats{Throttled: 1, Time: 10 * time.Millisecond}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		b.Throttle(100 * ms)
		if got := b.Stats(100 * ms).Throttled; got != 2 {
			t.Errorf("throttled in %d periods, want 2: it is another one", got)
		}
	})
	t.Run("RES-20 a debt is paid at the new rate", func(t *testing.T) {
		b := NewBudget(NewBandwidth(500), 0, 0)
		b.Advance(60*ms, 70*ms) // 20 ms too many
		b.Throttle(60 * ms)
		b.Set(NewBandwidth(50), 60*ms, 70*ms)
		for now := int64(60); now < 460; now += 100 {
			if b.Advance(now*ms, 70*ms) {
				t.Errorf("runs at %d ms", now)
			}
			b.Throttle(now * ms)
		}
		if !b.Advance(460*ms, 70*ms) {
			t.Error("does not run when all is paid")
		}
		if got := b.Stats(460 * ms); got.Throttled != 5 || got.Time != 400*time.Millisecond {
			t.Errorf("%+v", got)
		}
	})
	t.Run("RES-20 a limit that is removed and set again forgets the debt, and counts no period between", func(t *testing.T) {
		b := NewBudget(NewBandwidth(100), 0, 0)
		b.Advance(50*ms, 500*ms)
		b.Throttle(50 * ms)
		b.Set(Bandwidth{}, 60*ms, 500*ms)
		b.Advance(10_000*ms, 9_000*ms)
		b.Set(NewBandwidth(100), 10_000*ms, 9_000*ms)
		if !b.Advance(10_001*ms, 9_000*ms) || b.Limit() != 9_010*ms {
			t.Errorf("limit %d", b.Limit())
		}
		if got, want := b.Stats(10_001*ms), (ThrottleStats{Throttled: 1, Time: 10 * time.Millisecond}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("RES-05 a clock that jumps forward refills once", func(t *testing.T) {
		const years = 100 * 365 * 24 * int64(time.Hour)
		b := NewBudget(NewBandwidth(100), 0, 0)
		b.Advance(50*ms, 12*ms)
		b.Throttle(50 * ms)
		if !b.Advance(years, 12*ms) || b.Limit() != 22*ms {
			t.Errorf("limit %d, want 12 + 10 ms", b.Limit())
		}
		if wait := b.Refill() - years; wait <= 0 || wait > 100*ms {
			t.Errorf("the next refill is in %d ns", wait)
		}
		if got := b.Stats(years); got.Periods != years/(100*ms) || got.Throttled != 1 || int64(got.Time) != years-50*ms {
			t.Errorf("%+v", got)
		}
	})
}

// However a container runs, and however late it is stopped, it gets its quota,
// the burst, and what it was last stopped too late by.
func TestBudgetBoundsUsage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Bandwidth{
			Quota:  time.Duration(rapid.Int64Range(1, 400*ms).Draw(t, "quota")),
			Period: time.Duration(rapid.Int64Range(ms, 200*ms).Draw(t, "period")),
			Burst:  time.Duration(rapid.Int64Range(0, 400*ms).Draw(t, "burst")),
		}
		start := rapid.Int64Range(0, 1<<60).Draw(t, "start")
		now, used := start, rapid.Int64Range(0, 1<<60).Draw(t, "used")
		b, began := NewBudget(w, now, used), used
		longest := int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += rapid.Int64Range(0, 300*ms).Draw(t, "idle")
			if !b.Advance(now, used) {
				b.Throttle(now)
				if rapid.Bool().Draw(t, "wait") {
					now = max(now, b.Refill())
					continue
				}
				continue
			}
			ran := rapid.Int64Range(0, 50*ms).Draw(t, "ran")
			longest = max(longest, ran)
			now += ran
			used += ran
		}
		periods := (now - start) / int64(w.Period)
		if got, most := used-began, (periods+1)*int64(w.Quota)+int64(w.Burst)+longest; got > most {
			t.Fatalf("used %d, at most %d", got, most)
		}
		s := b.Stats(now)
		if s.Throttled > s.Periods+1 || s.Time < 0 || int64(s.Time) > now-start {
			t.Fatalf("%+v in %d ns", s, now-start)
		}
	})
}

// Whatever limits it is given, and while throttled: who waits is let run in the end, never
// waits for longer than a period at a time, and counters only grow.
func TestBudgetWhoseLimitChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now, used := NewBudget(NewBandwidth(100), 0, 0), int64(0), int64(0)
		var before ThrottleStats
		period, waited := 100*ms, int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 4).Draw(t, "set") == 0 {
				w := Bandwidth{Quota: time.Duration(rapid.Int64Range(0, 200*ms).Draw(t, "quota")), Period: time.Duration(rapid.Int64Range(ms, 100*ms).Draw(t, "period"))}
				b.Set(w, now, used)
				period = int64(w.Period)
			}
			if b.Advance(now, used) {
				waited = 0
				ran := rapid.Int64Range(1, 50*ms).Draw(t, "ran")
				now, used = now+ran, used+ran
			} else {
				b.Throttle(now)
				d := b.Refill() - now
				if d <= 0 || d > period {
					t.Fatalf("waits for %d of %d ns", d, period)
				}
				d = min(d, rapid.Int64Range(1, period).Draw(t, "wait"))
				now, waited = now+d, waited+d
			}
			s := b.Stats(now)
			if s.Periods < before.Periods || s.Throttled < before.Throttled || s.Time < before.Time || int64(s.Time) > now {
				t.Fatalf("%+v, then %+v", before, s)
			}
			before = s
		}
		b.Set(NewBandwidth(1000), now, used)
		for i := 0; !b.Advance(now, used); i++ {
			if i > 1+int(used/(100*ms)) {
				t.Fatalf("throttled for good")
			}
			now = b.Refill()
		}
		b.Set(Bandwidth{}, now, used)
		if !b.Advance(now, used) {
			t.Fatal("throttled without a limit")
		}
	})
}

// One that always wants to run gets all of its quota: no period is lost.
func TestBudgetIsUsedUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Bandwidth{Quota: time.Duration(rapid.Int64Range(ms, 99*ms).Draw(t, "quota")), Period: 100 * time.Millisecond}
		late := rapid.Int64Range(ms/20, 4*ms).Draw(t, "late")
		b, now, used := NewBudget(w, 0, 0), int64(0), int64(0)
		for now < 10_000*ms {
			if b.Advance(now, used) {
				now, used = now+late, used+late
			} else {
				b.Throttle(now)
				now = b.Refill()
			}
		}
		want := (now / (100 * ms)) * int64(w.Quota)
		if used < want-int64(w.Quota)-late || used > want+int64(w.Quota)+late {
			t.Fatalf("used %d of %d", used, want)
		}
	})
}

func BenchmarkBudgetAdvance(b *testing.B) {
	budget := NewBudget(NewBandwidth(500), 0, 0)
	now := int64(0)
	for b.Loop() {
		now += ms
		budget.Advance(now, now/2)
	}
}
