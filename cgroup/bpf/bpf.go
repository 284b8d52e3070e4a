package bpf

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
)

// Mechanism is how CPU time is measured.
type Mechanism int

// From the best to what works everywhere.
const (
	BTFTracepoint Mechanism = iota + 1 // a program with typed arguments
	RawTracepoint                      // a program without
	ThreadClock                        // the thread's CPU clock, at every change of owner
)

func (m Mechanism) String() string {
	switch m {
	case BTFTracepoint:
		return "tp_btf"
	case RawTracepoint:
		return "raw tracepoint"
	case ThreadClock:
		return clockName
	}
	return "unknown"
}

// DefaultContainers is how many containers there can be at a time. The kernel
// keeps 64 bytes for each.
const DefaultContainers = 16384

// Config says how to measure. The zero value is the best that this host can do.
type Config struct {
	// Mechanism is the first to try; zero is the best.
	Mechanism Mechanism
	// Containers that can be open at a time; zero is DefaultContainers.
	Containers int
	// NoTick leaves it to context switches and safepoints to charge threads:
	// nothing is seen of a long system call until it ends.
	NoTick bool
	// Delay, if not zero, has the programs loaded this long after the first account
	// was opened, which takes some 25 ms of processor time then. Until that the
	// mechanism is ThreadClock. Nothing of what is counted is lost.
	Delay time.Duration
	// Rest has the programs taken off while no container runs, or a processor switches
	// contexts more than 400,000 times a second, so that they never cost one more than
	// 2 % of its time. Until they are put back on, threads' clocks are read, and no
	// waits and faults are counted.
	Rest bool
}

// Accounting charges the threads of this process. Its methods are safe for
// concurrent use.
type Accounting struct {
	cfg        Config
	mechanism  atomic.Int32
	clocked    atomic.Bool // threads' clocks are read: there is no program, or it rests
	threads    []thread
	containers []container
	places     [maxPlaces]place
	unplaced   atomic.Int64 // stints without an entry
	loading    sync.Once
	settled    chan struct{}
	start      sync.Once // of the delay

	mu      sync.Mutex
	shared  tables // threads and containers, where the kernel has them too
	missing []error
	program program
	free    []uint32 // first in, first out: late charges find nobody new in their place
	next    uint32
	open    map[uint32]*Account
}

// program is what is loaded; any function may be nil.
type program struct {
	close   func() error
	spent   func() (Spent, error)
	dropped func() uint64
	rester  *rester
}

// ErrFull is returned if more containers are open than configured.
var ErrFull = errors.New("no room for another container's CPU account")

// Open starts to measure, in the best way that works here, and never fails for
// lack of privileges or kernel support: Missing says what stood in the way.
func Open(cfg Config) *Accounting {
	if cfg.Containers <= 0 {
		cfg.Containers = DefaultContainers
	}
	cfg.Containers = min(cfg.Containers, math.MaxInt32-1)
	cfg.Mechanism = max(cfg.Mechanism, BTFTracepoint)
	a := &Accounting{cfg: cfg, next: 1, open: map[uint32]*Account{}, settled: make(chan struct{})}
	a.mechanism.Store(int32(ThreadClock))
	a.clocked.Store(true)
	if cfg.Mechanism < ThreadClock {
		if err := a.share(); err != nil {
			a.missing = append(a.missing, err)
		}
	}
	switch {
	case a.containers == nil:
		a.threads = newMemory[thread](maxThreads)
		a.containers = newMemory[container](cfg.Containers + 1)
		close(a.settled)
	case cfg.Delay == 0:
		a.loading.Do(a.loadBest)
	}
	return a
}

// loadBest goes over from the thread's clock to a program. Both use the tables
// in the same way: a thread's claims are less than what its count has grown by,
// and whoever reads that next charges the rest.
func (a *Accounting) loadBest() {
	defer close(a.settled)
	for m := a.cfg.Mechanism; m < ThreadClock; m++ {
		p, err := a.load(m)
		a.mu.Lock()
		if err != nil {
			a.missing = append(a.missing, err)
		} else {
			a.program = p
		}
		a.mu.Unlock()
		if err == nil {
			if p.rester != nil {
				a.startResting(p.rester)
			}
			return
		}
	}
}

// Mechanism is what is in force, if it does not rest: see Resting.
func (a *Accounting) Mechanism() Mechanism { return Mechanism(a.mechanism.Load()) }

// Settled is closed when Mechanism is what it will be until Close: at once, or with
// a Delay when that is over.
func (a *Accounting) Settled() <-chan struct{} { return a.settled }

// Missing is why better mechanisms are not in force: each error names one and
// says what it lacks. With a Delay nothing is known before it is over.
func (a *Accounting) Missing() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.missing[:len(a.missing):len(a.missing)]
}

// Unplaced is how often a thread could not be charged to a container because
// the table of threads was full there.
func (a *Accounting) Unplaced() int64 { return a.unplaced.Load() }

// Host is the usage of threads that have served containers, while they did not.
func (a *Accounting) Host() Usage { return a.containers[0].usage() }

// Close detaches the programs; from then on the mechanism is ThreadClock. The
// memory of the tables is kept, since a stint may be under way.
func (a *Accounting) Close() error {
	a.loading.Do(func() {}) // it is over, or does not begin any more
	a.mu.Lock()
	p := a.program
	a.program = program{}
	a.mu.Unlock()
	if p.close == nil {
		return nil
	}
	if r := p.rester; r != nil {
		close(r.stop)
		r.done.Wait()
	}
	a.clocked.Store(true) // see rest
	a.mechanism.Store(int32(ThreadClock))
	return p.close()
}

// Usage is what a container has used since its account was opened.
type Usage struct {
	CPU         time.Duration
	Wait        time.Duration // runnable, but without a processor; only with BPF that does not rest
	MinorFaults int64         // likewise
	MajorFaults int64
	Throttled   cgroup.ThrottleStats
}

func (c *container) usage() Usage {
	return Usage{
		CPU:         time.Duration(c.cpu.Load()),
		Wait:        time.Duration(c.delay.Load()),
		MinorFaults: c.minor.Load(),
		MajorFaults: c.major.Load(),
	}
}

// Account is a container's. It must be closed.
type Account struct {
	accounting *Accounting
	entry      *container
	owner      uint64
	base       Usage  // of those who had the entry before
	group      *Group // nil: none

	mu     sync.Mutex
	budget cgroup.Budget
	final  *Usage
	// waiting is how many stints do. changed is closed when what they wait for may be
	// another; nil if nobody has asked since it last was.
	waiting int
	changed chan struct{}
}

// NewAccount opens an account for a container with this bandwidth.
func (a *Accounting) NewAccount(b cgroup.Bandwidth) (*Account, error) {
	if a.cfg.Delay > 0 && a.shared != nil {
		a.start.Do(func() { time.AfterFunc(a.cfg.Delay, func() { a.loading.Do(a.loadBest) }) })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var index uint32
	switch {
	case int(a.next) < len(a.containers):
		index = a.next
		a.next++
	case len(a.free) > 0:
		index = a.free[0]
		a.free = a.free[1:]
	default:
		return nil, ErrFull
	}
	e := &a.containers[index]
	c := &Account{accounting: a, entry: e, owner: uint64(e.generation.Load())<<32 | uint64(index), base: e.usage()}
	a.open[index] = c
	c.budget.Set(b, nanotime()-phase(index, b.Period), c.entry.cpu.Load())
	c.publish()
	return c, nil
}

// phase is how far into its first period a container begins, as the kernel's are
// set off against each other too: containers that start together, as after a
// reboot, are not to be refilled together ever after. Multiples of the golden ratio
// are spread evenly, however many there are.
func phase(index uint32, period time.Duration) int64 {
	const golden = 0x9e3779b9 // of 1 << 32
	return int64(uint64(period.Microseconds()) * uint64(index*golden) >> 32 * uint64(time.Microsecond))
}

// Close frees the account. No stint may be under way: what one still ran would
// be charged to the host. It returns the final usage.
func (c *Account) Close() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil {
		return *c.final
	}
	u := c.usage()
	c.final = &u
	if c.group != nil {
		c.group.leave(c, u.CPU)
	}
	c.entry.limit.Store(0)
	c.entry.generation.Add(1)
	c.entry.spent.Store(0)
	a, index := c.accounting, uint32(c.owner)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, index)
	a.free = append(a.free, index)
	return u
}

// Usage is read without a system call. With BPF it is as of the last event of
// the scheduler or safepoint.
func (c *Account) Usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil {
		return *c.final
	}
	return c.usage()
}

func (c *Account) usage() Usage {
	u := c.entry.usage()
	u.CPU -= c.base.CPU
	u.Wait -= c.base.Wait
	u.MinorFaults -= c.base.MinorFaults
	u.MajorFaults -= c.base.MajorFaults
	u.Throttled = c.budget.Stats(nanotime())
	return u
}

// SetBandwidth changes what the container may use (RES-20).
func (c *Account) SetBandwidth(b cgroup.Bandwidth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final == nil {
		c.budget.Set(b, nanotime(), c.entry.cpu.Load())
		c.publish()
		if c.changed != nil {
			close(c.changed)
			c.changed = nil
		}
	}
}

// publish tells the program the limit.
func (c *Account) publish() {
	limit := int64(0)
	if c.budget.Limited() {
		// 0 would be none, and is reached by those in debt from the start.
		limit = max(c.budget.Limit(), 1)
	}
	c.entry.limit.Store(limit)
	c.entry.spent.Store(0)
}

// Wait says how long a guest of the container has to wait before it may run: 0
// if it may now. A guest that waits calls it with waiting set, until it gets 0;
// one that may end before that has a [Stint.Wait].
func (c *Account) Wait(waiting bool) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wait(waiting)
}

// wait is Wait. c.mu is held.
func (c *Account) wait(waiting bool) time.Duration {
	now := nanotime()
	if c.final != nil {
		return 0
	}
	limit := c.budget.Limit()
	runs := c.budget.Advance(now, c.entry.cpu.Load())
	if c.budget.Limit() != limit {
		c.publish()
	}
	if runs {
		if c.group != nil {
			return c.group.wait(c, now, waiting)
		}
		return 0
	}
	if waiting {
		c.budget.Throttle(now)
		if c.group != nil { // that does not hold it back, or not alone
			c.group.unwait(c)
		}
	}
	return time.Duration(max(c.budget.Refill()-now, 1))
}

// Over is by how much the container has overdrawn its own budget, for now.
func (c *Account) Over() time.Duration {
	limit := c.entry.limit.Load()
	if limit == 0 {
		return 0
	}
	return time.Duration(max(c.entry.cpu.Load()-limit, 0))
}

// stop says that no guest of the container waits any more. c.mu is held.
func (c *Account) stop() {
	c.budget.Unthrottle(nanotime())
	if c.group != nil {
		c.group.unwait(c)
	}
}

// Spent is a record of the program: a container has used its budget, at this
// value of the clock. It is for guests that come to no safepoint for long.
type Spent struct {
	Account *Account
	CPU     time.Duration // used, less what it was allowed: how late this is
	At      int64         // CLOCK_MONOTONIC, ns
}

// NextSpent waits for a record. After Close it returns an error, and at once if
// the mechanism has no program. The records that found no room are counted by
// Dropped; charges and limits do not depend on them.
func (a *Accounting) NextSpent() (Spent, error) {
	a.mu.Lock()
	spent := a.program.spent
	a.mu.Unlock()
	if spent == nil {
		return Spent{}, errors.ErrUnsupported
	}
	return spent()
}

// Dropped is how many records were lost because nobody read them.
func (a *Accounting) Dropped() uint64 {
	a.mu.Lock()
	dropped := a.program.dropped
	a.mu.Unlock()
	if dropped == nil {
		return 0
	}
	return dropped()
}

// account finds who an owner is, nil if it is gone.
func (a *Accounting) account(owner uint64) *Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.open[uint32(owner)]; c != nil && c.owner == owner {
		return c
	}
	return nil
}
