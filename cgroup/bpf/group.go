package bpf

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
)

// Group is a bandwidth that several containers share, besides what each has of its
// own: that of a pod. What it has used is the sum over its accounts, so that it
// costs nothing where they are charged. Its methods are safe for concurrent use.
type Group struct {
	accounting *Accounting
	limit      atomic.Int64 // of used; 0 is none
	members    atomic.Pointer[[]*Account]
	retired    atomic.Int64 // ns, of accounts that are closed

	mu      sync.Mutex
	budget  cgroup.Budget
	waiting map[*Account]struct{}
}

// NewGroup returns a group with this bandwidth. It need not be closed.
func (a *Accounting) NewGroup(b cgroup.Bandwidth) *Group {
	g := &Group{accounting: a, waiting: make(map[*Account]struct{})}
	g.members.Store(&[]*Account{})
	g.budget.Set(b, nanotime(), 0)
	g.publish()
	return g
}

// NewAccount opens an account of the group.
func (g *Group) NewAccount(b cgroup.Bandwidth) (*Account, error) {
	c, err := g.accounting.NewAccount(b)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.group = g
	members := append(slices.Clone(*g.members.Load()), c)
	g.members.Store(&members)
	return c, nil
}

// leave takes an account out that has used so much in the end.
func (g *Group) leave(c *Account, used time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := slices.DeleteFunc(slices.Clone(*g.members.Load()), func(m *Account) bool { return m == c })
	g.retired.Add(int64(used)) // first: what is counted twice for a moment is no way around the limit
	g.members.Store(&members)
	g.stop(c)
}

// used is what all have used since the group was made.
func (g *Group) used() int64 {
	members := *g.members.Load() // before the others are read: none is missed
	sum := g.retired.Load()
	for _, c := range members {
		sum += c.entry.cpu.Load() - int64(c.base.CPU)
	}
	return sum
}

func (g *Group) spent() bool {
	limit := g.limit.Load()
	return limit != 0 && g.used() >= limit
}

func (g *Group) publish() {
	limit := int64(0)
	if g.budget.Limited() {
		limit = max(g.budget.Limit(), 1) // 0 would be none
	}
	g.limit.Store(limit)
}

// wait is Account.Wait, for the group.
func (g *Group) wait(c *Account, now int64, waiting bool) time.Duration {
	if g.limit.Load() == 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	runs := g.budget.Advance(now, g.used())
	g.publish()
	if runs {
		g.stop(c)
		return 0
	}
	if waiting {
		g.waiting[c] = struct{}{}
		g.budget.Throttle(now)
	}
	return time.Duration(max(g.budget.Refill()-now, 1))
}

// unwait notes that an account does not wait for the group any more.
func (g *Group) unwait(c *Account) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop(c)
}

// stop is unwait. g.mu is held.
func (g *Group) stop(c *Account) {
	if delete(g.waiting, c); len(g.waiting) == 0 {
		g.budget.Unthrottle(nanotime())
	}
}

// Stats are those of the group's own bandwidth, as the kernel keeps them in a pod's
// cpu.stat.
func (g *Group) Stats() cgroup.ThrottleStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budget.Stats(nanotime())
}
