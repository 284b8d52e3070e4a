package bpf

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/wasmpod/wasmpod/cgroup"
)

// mechanisms runs a test with every mechanism that works here.
func mechanisms(t *testing.T, test func(t *testing.T, open func(*testing.T, Config) *Accounting)) {
	for _, m := range []Mechanism{BTFTracepoint, RawTracepoint, ThreadClock} {
		t.Run(m.String(), func(t *testing.T) {
			test(t, func(t *testing.T, cfg Config) *Accounting {
				t.Helper()
				cfg.Mechanism = m
				a := Open(cfg)
				t.Cleanup(func() {
					if err := a.Close(); err != nil {
						t.Error(err)
					}
				})
				if a.Mechanism() != m {
					missing(t, a.Missing()[0])
				}
				return a
			})
		})
	}
}

// missing skips a test where the host refuses what it needs, as containers and other
// kernels may. The virtual machine refuses nothing, and what CI's verifier refuses is a
// mistake of ours.
func missing(t testing.TB, why error) {
	t.Helper()
	var verifier *ebpf.VerifierError
	ours := errors.As(why, &verifier) && len(verifier.Log) > 0
	if os.Getenv("WASMPOD_TEST_VM") != "" || os.Getenv("CI") == "true" && ours {
		t.Fatal(why)
	}
	t.Skip(why)
}

func open(t *testing.T, a *Accounting, milli int64) *Account {
	t.Helper()
	c, err := a.NewAccount(cgroup.NewBandwidth(milli))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func begin(c *Account) *Stint {
	s := c.Stint(0)
	s.Begin(Now())
	return s
}

// spin runs for about d on an idle processor: an amount of work, so that the CPU
// time does not depend on who else runs. It makes no system call, which would
// have the kernel bring its count up to date.
func spin(d time.Duration) {
	var sum int64
	for i := range int64(d) {
		sum += i ^ sum<<1
	}
	sink.Store(sum)
}

var sink atomic.Int64

// What ran before a change of owner is the old one's, though the scheduler
// noticed nothing: nobody is charged more than what passed in his own stints.
func TestHandOver(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		accounting := openWith(t, Config{Containers: 4})
		a, b := open(t, accounting, 0), open(t, accounting, 0)
		var first, last reading
		var passed [2]int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			first = read(t, accounting, a, b)
			was := [2]Usage{a.Usage(), b.Usage()}
			for range 100 {
				for i, c := range []*Account{a, b} {
					began := Now() - brief
					s := begin(c)
					spin(time.Duration(900-800*i) * time.Microsecond)
					s.End(Now())
					passed[i] += Now() - began
				}
			}
			began := Now() - brief
			s, next := begin(a), b.Stint(0)
			for i := range 4000 {
				spin(time.Duration(9-8*(i%2)) * time.Microsecond)
				now := Now()
				s.HandOver(next, now)
				s, next = next, s
				passed[i%2] += now - began
				began = now
			}
			s.End(Now())
			passed[0] += Now() - began
			ua, ub := a.Usage().CPU-was[0].CPU, b.Usage().CPU-was[1].CPU
			last = read(t, accounting, a, b)
			for i, u := range []time.Duration{ua, ub} {
				t.Logf("%v of %v", u, time.Duration(passed[i]))
				// And what the clock lags by where a hypervisor has the processor for a while.
				if most := time.Duration(passed[i]); u > most+most/4+cellsHold {
					t.Errorf("container %d is charged %v of %v", i, u, most)
				}
			}
		}()
		<-done
		sumBetween(t, first, last, 0)
	})
}

func TestRES05Quota(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		a := openWith(t, Config{Containers: 4})
		c := open(t, a, 100) // 10 ms
		defer c.Close()
		var s *Stint
		var wait time.Duration
		for wait == 0 { // again, if the period has ended meanwhile
			s = begin(c)
			for !s.Check(Now()) {
			}
			s.End(Now())
			if u := c.Usage(); u.CPU < 10*time.Millisecond {
				t.Errorf("RES-05 spent after %v", u.CPU)
			}
			wait = c.Wait(true)
		}
		if wait > 100*time.Millisecond {
			t.Errorf("RES-05 waits %v", wait)
		}
		for d := wait; d > 0; d = c.Wait(true) {
			<-time.After(d)
		}
		// What is left after the debt may be next to nothing.
		had, left := c.Usage().CPU, c.entry.limit.Load()-c.entry.cpu.Load()
		if left <= 0 {
			t.Error("RES-05 still spent in the next period")
		}
		s = begin(c)
		if s.Check(Now()) && c.Usage().CPU-had < time.Duration(left) {
			t.Error("RES-05 spent before its time in the next period")
		}
		s.End(Now())
		if got := c.Usage().Throttled; got.Periods < 1 || got.Throttled < 1 || got.Time < wait/2 {
			t.Errorf("RES-05 %+v", got)
		}
		c.SetBandwidth(cgroup.Bandwidth{})
		s = begin(c)
		spin(15 * time.Millisecond)
		if s.Check(Now()) {
			t.Error("RES-20 spent without a limit")
		}
		s.End(Now())
	})
}

// The program tells of a guest that comes to no safepoint.
func TestSpentRecord(t *testing.T) {
	a := Open(Config{Containers: 4})
	if a.Mechanism() == ThreadClock {
		if _, err := a.NextSpent(); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		missing(t, a.Missing()[0])
	}
	c := open(t, a, 50)
	defer c.Close()
	got := make(chan Spent, 1)
	go func() {
		r, err := a.NextSpent()
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	// No other thread may go on with this goroutine: there is no safepoint.
	runtime.LockOSThread()
	s := begin(c)
	for len(got) == 0 {
		spin(time.Millisecond)
	}
	s.End(Now())
	runtime.UnlockOSThread()
	if r := <-got; r.Account != c || r.CPU < 0 {
		t.Errorf("%+v", r)
	} else {
		t.Logf("%v late", r.CPU)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.NextSpent(); err == nil {
		t.Error("a record after Close")
	}
}

// Entries are used again, by containers and by threads, and newcomers owe
// nothing for those before them.
func TestEntriesAreReused(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		const capacity = 8
		a := openWith(t, Config{Containers: capacity})
		for range 1000 {
			c := open(t, a, 10)
			s := begin(c)
			for !s.Check(Now()) {
				break
			}
			s.End(Now())
			if u := c.Close(); u.CPU > time.Second {
				t.Fatalf("%+v", u)
			}
			if c.Close() != c.Usage() {
				t.Fatal("the final usage changes")
			}
		}
		var all []*Account
		for range capacity {
			all = append(all, open(t, a, 0))
		}
		if _, err := a.NewAccount(cgroup.Bandwidth{}); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 200 { // each in a thread of its own, which ends
			wg.Go(func() {
				runtime.LockOSThread()
				s := begin(all[i%capacity])
				spin(50 * time.Microsecond)
				s.Check(Now())
				s.End(Now())
			})
		}
		wg.Wait()
		var sum time.Duration
		for _, c := range all {
			sum += c.Close().CPU
		}
		if sum < time.Millisecond {
			t.Errorf("%v for 200 threads of about 50 µs each", sum)
		}
		if n := a.Unplaced(); n > 0 {
			t.Errorf("%d stints were not placed", n)
		}
	})
}

// Nobody reads the records of a container that spends one budget after the other:
// those that find no room are counted, and what is charged is exact all the same.
func TestRingIsFull(t *testing.T) {
	a := Open(Config{Containers: 4})
	if a.Mechanism() == ThreadClock {
		missing(t, a.Missing()[0])
	}
	c := open(t, a, 100_000)
	var first, last reading
	tried := uint64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		first = read(t, a, c)
		s := begin(c)
		// A record has 40 bytes of the ring's 64 KiB. Asking for the thread's clock
		// has the program look, and see that time has passed: on a machine whose clock
		// stands still between ticks not each time.
		for a.Dropped() < 1000 && tried < 1_000_000 {
			tried++
			c.entry.limit.Store(1)
			c.entry.spent.Store(0)
			threadTime()
		}
		c.entry.limit.Store(0)
		s.End(Now())
		last = read(t, a, c)
	}()
	<-done
	dropped := a.Dropped()
	t.Logf("%d records dropped of %d", dropped, tried)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if dropped < 1000 || dropped > tried {
		t.Errorf("%d records dropped of %d", dropped, tried)
	}
	sumBetween(t, first, last, 0)
}

// Accountings, containers and threads that come and go leave no file descriptor
// and no entry.
func TestNothingIsLeft(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	a := Open(Config{Containers: 16})
	before := descriptors()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				c, err := a.NewAccount(cgroup.NewBandwidth(10))
				if err != nil {
					t.Error(err)
					return
				}
				s := begin(c)
				s.End(Now())
				c.Close()
			}
		})
	}
	wg.Wait()
	if n := descriptors(); n > before {
		t.Errorf("%d descriptors, before 8,000 containers %d", n, before)
	}
	if n := len(a.open); n != 0 {
		t.Errorf("%d accounts are open", n)
	}
	if n := int(a.next) - 1; n > 16 {
		t.Errorf("%d entries were used", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
