package bpf

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
)

// RES-05: what containers of a pod use together is bounded by its own limit, though
// none of them has one.
func TestRES05Group(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		a := openWith(t, Config{Containers: 4})
		const quota = 5 * time.Millisecond
		g := a.NewGroup(cgroup.NewBandwidth(50))
		var accounts []*Account
		for range 3 {
			c, err := g.NewAccount(cgroup.Bandwidth{})
			if err != nil {
				t.Fatal(err)
			}
			accounts = append(accounts, c)
		}
		var wg sync.WaitGroup
		var overdrawn atomic.Int64 // at most, by all
		for _, c := range accounts {
			wg.Go(func() {
				runtime.LockOSThread()
				longest := int64(0) // between two looks
				defer func() { overdrawn.Add(longest) }()
				for g.Stats().Throttled < 3 {
					looked := Now() - brief
					s := begin(c)
					for spent := false; !spent; {
						spin(100 * time.Microsecond)
						spent = s.Check(Now())
						now := Now()
						longest, looked = max(longest, now-looked), now
					}
					s.End(Now())
					longest = max(longest, Now()-looked)
					for wait := c.Wait(true); wait > 0; wait = c.Wait(true) {
						timer := time.NewTimer(wait)
						<-timer.C
					}
				}
			})
		}
		wg.Wait()
		var sum time.Duration
		for _, c := range accounts {
			if u := c.Usage(); u.Throttled.Throttled != 0 {
				t.Errorf("the container's own %+v", u.Throttled)
			}
			stopWaiting(c) // of one that does not wait: nothing
			sum += c.Close().CPU
		}
		stats := g.Stats()
		// Each may overdraw by what it does between two looks, which is paid later.
		if most := time.Duration(stats.Periods+1)*quota + time.Duration(2*overdrawn.Load()) + 3*cellsHold; sum > most || stats.Time == 0 {
			t.Errorf("together %v in %+v, at most %v", sum, stats, most)
		}
		if used := time.Duration(g.used()); used != sum {
			t.Errorf("%v used, of accounts that are closed %v", used, sum)
		}
		if late := g.Stats(); late.Time != stats.Time {
			t.Errorf("nobody is left to be throttled: %v, then %v", stats.Time, late.Time)
		}
	})
}
