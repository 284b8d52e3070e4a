package cgroup

import "time"

// Bandwidth is how much CPU time a container may use: Quota in every Period
// (RES-05), and up to Burst more of what it left unused before. No Quota, no
// bound.
type Bandwidth struct {
	Quota, Period, Burst time.Duration
}

// NewBandwidth is the bandwidth of a limit in thousandths of a core.
func NewBandwidth(milli int64) Bandwidth {
	return Bandwidth{
		Quota:  time.Duration(Quota(milli, Period)) * time.Microsecond,
		Period: Period * time.Microsecond,
	}
}

// ThrottleStats are the figures of cpu.stat, counted as the kernel counts them.
type ThrottleStats struct {
	Periods   int64         // nr_periods: in which the container could have run
	Throttled int64         // nr_throttled: of those, how many in which it had to wait
	Time      time.Duration // throttled_usec: how long it had to wait
}

// Budget says when a container has used what its bandwidth allows. All times are
// nanoseconds on clocks that only go forward: now on any clock, used on the
// container's own, the CPU time that it has consumed so far.
//
// What a container consumes beyond its budget, because nobody could stop it in
// time, is a debt that later periods pay: over time it never gets more than its
// quota, the burst, and what it was ahead by at the end. The zero value allows
// everything. It is not safe for concurrent use.
type Budget struct {
	bandwidth Bandwidth
	limit     int64 // of used
	refill    int64 // when the period ends
	throttled int64 // since when; 0 if it is not
	counted   bool  // in Throttled, for this period
	stats     ThrottleStats
}

// NewBudget starts a period at now.
func NewBudget(b Bandwidth, now, used int64) *Budget {
	budget := &Budget{}
	budget.Set(b, now, used)
	return budget
}

// Set changes the bandwidth and starts a period. A debt stays a debt, but of
// what was left no more than the new quota and burst is kept.
func (b *Budget) Set(w Bandwidth, now, used int64) {
	if w.Quota > 0 && w.Period <= 0 {
		w.Period = Period * time.Microsecond
	}
	left := int64(0)
	if b.bandwidth.Quota > 0 {
		b.Advance(now, used)
		left = min(b.limit-used, 0)
	}
	w.Burst = max(w.Burst, 0)
	b.bandwidth = w
	b.refill = now + int64(w.Period)
	b.limit = used + left + int64(w.Quota)
	b.counted = false // it is another period
	if w.Quota <= 0 {
		b.Unthrottle(now)
	}
}

// Limited says whether there is any bound.
func (b *Budget) Limited() bool { return b.bandwidth.Quota > 0 }

// Limit is the value of used at which the budget is spent, and Refill when it
// may rise: until then no call to Advance changes anything.
func (b *Budget) Limit() int64 { return b.limit }

// Refill is when the period ends.
func (b *Budget) Refill() int64 { return b.refill }

// Advance begins all periods that are due. It returns whether the container may
// run.
func (b *Budget) Advance(now, used int64) bool {
	if !b.Limited() {
		return true
	}
	if now >= b.refill {
		period, quota := int64(b.bandwidth.Period), int64(b.bandwidth.Quota)
		n := (now-b.refill)/period + 1
		// What was used since the last call counts for the period of that call:
		// callers that may run ask often, and those that do not run use nothing.
		left, most := b.limit-used, quota+int64(b.bandwidth.Burst)
		if n > (most-left)/quota { // or the product may overflow
			left = most
		} else {
			left = min(left+n*quota, most)
		}
		b.limit = used + left
		b.refill += n * period
		b.stats.Periods += n
		b.counted = false
		if b.throttled != 0 && left <= 0 {
			b.stats.Throttled += n // all of them
			b.counted = true
		}
	}
	if used >= b.limit {
		return false
	}
	b.Unthrottle(now)
	return true
}

// Throttle notes that the container wants to run and may not.
func (b *Budget) Throttle(now int64) {
	if !b.counted {
		b.counted = true
		b.stats.Throttled++
	}
	if b.throttled == 0 {
		b.throttled = now
	}
}

// Unthrottle notes that it runs, or no longer wants to.
func (b *Budget) Unthrottle(now int64) {
	if b.throttled != 0 {
		b.stats.Time += time.Duration(max(now-b.throttled, 0))
		b.throttled = 0
	}
}

// Stats returns the figures up to now.
func (b *Budget) Stats(now int64) ThrottleStats {
	s := b.stats
	if b.throttled != 0 {
		s.Time += time.Duration(max(now-b.throttled, 0))
	}
	return s
}
