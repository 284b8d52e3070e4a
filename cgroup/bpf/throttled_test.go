package bpf

import (
	"runtime"
	"testing"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
)

// hourly is a quota whose periods do not end while a test runs.
func hourly(quota time.Duration) cgroup.Bandwidth {
	return cgroup.Bandwidth{Quota: quota, Period: time.Hour}
}

// use is what a guest does, without one.
func (c *Account) use(d time.Duration) { c.entry.cpu.Add(int64(d)) }

// What can happen to a container that is throttled.
func TestRES05WhileThrottled(t *testing.T) {
	a := Open(Config{Mechanism: ThreadClock, Containers: 3})
	defer a.Close()
	open := func(t *testing.T, open func(cgroup.Bandwidth) (*Account, error), b cgroup.Bandwidth) *Account {
		t.Helper()
		c, err := open(b)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// Phases are less than a period: some part of the first one is left.
	throttled := func(t *testing.T, c *Account) {
		t.Helper()
		if d := c.Wait(true); d <= 0 || d > time.Hour || !c.Spent() {
			t.Fatalf("waits for %v, spent %v", d, c.Spent())
		}
	}
	runs := func(t *testing.T, c *Account) {
		t.Helper()
		if d := c.Wait(true); d != 0 || c.Spent() {
			t.Fatalf("waits for %v, spent %v", d, c.Spent())
		}
	}

	t.Run("RES-20 its limit is raised, lowered, removed", func(t *testing.T) {
		c := open(t, a.NewAccount, hourly(time.Millisecond))
		c.use(2 * time.Millisecond)
		throttled(t, c)
		c.SetBandwidth(hourly(10 * time.Millisecond)) // of which 1 ms is paid back
		runs(t, c)
		if over := c.Over(); over != 0 {
			t.Errorf("over by %v", over)
		}
		c.use(9 * time.Millisecond)
		throttled(t, c)
		c.SetBandwidth(hourly(time.Nanosecond))
		runs(t, c) // it has no debt
		c.use(time.Second)
		throttled(t, c)
		c.SetBandwidth(hourly(time.Millisecond))
		throttled(t, c) // that it has
		c.SetBandwidth(cgroup.Bandwidth{})
		runs(t, c)
		c.use(time.Hour)
		runs(t, c)
		stats := c.Usage().Throttled
		if stats.Throttled != 4 || stats.Time <= 0 {
			t.Errorf("%+v", stats)
		}
		if again := c.Usage().Throttled; again != stats {
			t.Errorf("%+v, then %+v, though it runs", stats, again)
		}
	})
	t.Run("its guest is killed", func(t *testing.T) {
		c := open(t, a.NewAccount, hourly(time.Millisecond))
		c.use(2 * time.Millisecond)
		throttled(t, c)
		stopWaiting(c)
		stats := c.Usage().Throttled
		if again := c.Usage().Throttled; again != stats || stats.Throttled != 1 {
			t.Errorf("%+v, then %+v, though nobody waits", stats, again)
		}
		throttled(t, c) // another guest of the container
	})
	t.Run("one of its two guests is killed, and its limit is raised", func(t *testing.T) {
		c := open(t, a.NewAccount, hourly(time.Millisecond))
		c.use(2 * time.Millisecond)
		one, two := c.Stint(0), c.Stint(0)
		for _, s := range []*Stint{one, two, one} {
			if d, changed := s.Wait(); d <= 0 || changed == nil {
				t.Fatalf("waits for %v", d)
			}
		}
		one.Stop()
		one.Stop()
		// It is throttled still, for the other one.
		for before := c.Usage().Throttled.Time; c.Usage().Throttled.Time == before; {
			runtime.Gosched()
		}
		_, changed := two.Wait()
		c.SetBandwidth(hourly(10 * time.Millisecond))
		select {
		case <-changed:
		default:
			t.Error("RES-20 who waits is not told")
		}
		if d, _ := two.Wait(); d != 0 || c.waiting != 0 {
			t.Errorf("RES-20 waits for %v, %d do", d, c.waiting)
		}
		stats := c.Usage().Throttled
		if again := c.Usage().Throttled; again != stats || stats.Throttled != 1 {
			t.Errorf("%+v, then %+v, though nobody waits", stats, again)
		}
		c.use(time.Second)
		two.Wait()
		two.Stop()
		stats = c.Usage().Throttled
		if again := c.Usage().Throttled; again != stats || stats.Throttled != 2 {
			t.Errorf("%+v, then %+v, though nobody waits", stats, again)
		}
		one.Wait()
		c.Close()
		if d, _ := one.Wait(); d != 0 || c.waiting != 0 {
			t.Errorf("waits for %v after the end, %d do", d, c.waiting)
		}
	})
	t.Run("it is started again", func(t *testing.T) {
		full := []*Account{open(t, a.NewAccount, cgroup.Bandwidth{}), open(t, a.NewAccount, cgroup.Bandwidth{})}
		c := open(t, a.NewAccount, hourly(time.Millisecond))
		c.use(time.Second)
		throttled(t, c)
		final := c.Close()
		if d := c.Wait(true); d != 0 || c.Spent() { // none holds back who comes too late
			t.Errorf("waits for %v after the end", d)
		}
		c.SetBandwidth(hourly(time.Nanosecond))
		stopWaiting(c)
		next := open(t, a.NewAccount, hourly(time.Millisecond))
		if next.entry != c.entry {
			t.Fatal("it has another place, though there is one")
		}
		if u := next.Usage(); u.CPU != 0 || u.Throttled != (cgroup.ThrottleStats{}) {
			t.Errorf("begins with %+v", u)
		}
		runs(t, next)
		if again := c.Usage(); again != final || final.CPU != time.Second || final.Throttled.Throttled != 1 {
			t.Errorf("at the end %+v, then %+v", final, again)
		}
		for _, c := range full {
			runs(t, c)
		}
	})
	t.Run("by its pod's limit", func(t *testing.T) {
		g := a.NewGroup(hourly(10 * time.Millisecond))
		c := open(t, g.NewAccount, cgroup.Bandwidth{})
		d := open(t, g.NewAccount, hourly(5*time.Millisecond))
		c.use(10 * time.Millisecond)
		throttled(t, c)
		throttled(t, d)
		if s := d.Usage().Throttled; s != (cgroup.ThrottleStats{}) {
			t.Errorf("by its own, too: %+v", s)
		}
		stopWaiting(c)
		if before := g.Stats(); before.Throttled != 1 || !waits(g) {
			t.Errorf("%+v, though one waits still", before)
		}
		// Now it is its own that holds it back, and not the pod's.
		d.use(5 * time.Millisecond)
		throttled(t, d)
		if s := d.Usage().Throttled; s.Throttled != 1 || waits(g) {
			t.Errorf("the container %+v, the group waits: %v", s, waits(g))
		}
		d.SetBandwidth(cgroup.Bandwidth{})
		throttled(t, d) // the pod's has not changed
		d.Close()
		if waits(g) {
			t.Error("one that is closed waits")
		}
		e := open(t, g.NewAccount, cgroup.Bandwidth{})
		throttled(t, e) // to start again is no way around it
	})
}

// waits says whether any account of the group does.
func waits(g *Group) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting) > 0
}

// stopWaiting ends the wait of guests that have no stint.
func stopWaiting(c *Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
}
