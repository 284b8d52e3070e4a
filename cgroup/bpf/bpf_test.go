package bpf

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// missing skips a test, but not where CI should have had the privileges.
func missing(t testing.TB, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Getuid() == 0 {
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

// flush charges what the calling thread has run so far.
func flush(a *Accounting) {
	t := a.current(procPin())
	if a.clocked.Load() {
		t.event.Store(0) // or a recent reading of the clock would do
	}
	a.settle(t, Now())
	for i := range uint32(cells) {
		a.pay(t, i)
	}
	procUnpin()
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

// The parts of what a thread runs add up to what the kernel says it has run,
// whatever it does and however often it changes containers.
func TestSumIsTheThreads(t *testing.T) {
	patterns := map[string]func(a, b *Account){
		"spinning": func(a, _ *Account) {
			s := begin(a)
			for range 20 {
				spin(2 * time.Millisecond)
				s.Check(Now())
			}
			s.End(Now())
		},
		"sleeping": func(a, b *Account) {
			r, w, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			defer r.Close()
			go func() {
				defer w.Close()
				for range 1000 {
					w.Write([]byte{1})
					runtime.Gosched()
				}
			}()
			for buf := make([]byte, 1); ; {
				for _, c := range []*Account{a, b} {
					s := begin(c)
					spin(20 * time.Microsecond)
					s.End(Now())
				}
				if n, _ := r.Read(buf); n == 0 {
					return
				}
			}
		},
		"switching": func(a, b *Account) {
			for range 5000 {
				s := begin(a)
				sink.Add(1)
				s.End(Now())
				s = begin(b)
				spin(4 * time.Microsecond)
				s.End(Now())
			}
		},
		"system calls": func(a, _ *Account) {
			f, err := os.Open("/dev/zero")
			if err != nil {
				panic(err)
			}
			defer f.Close()
			buf := make([]byte, 4096)
			for range 100 {
				s := begin(a)
				for range 100 {
					f.Read(buf)
					s.Check(Now())
				}
				s.End(Now())
			}
		},
	}
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		for name, pattern := range patterns {
			t.Run(name, func(t *testing.T) {
				// What the kernel does on the thread between the two clocks that are
				// compared counts in one of them only: a mistake of the accounting
				// is there each time.
				for attempt := 1; ; attempt++ {
					// Without the tick, as it is used: switches and stints must do.
					off := sumOff(t, openWith(t, Config{Containers: 4, NoTick: name != "system calls"}), pattern)
					if off <= 1 && off >= -1 {
						return
					}
					if attempt == 5 {
						t.Fatalf("the sum is off by %.2f %%", off)
					}
				}
			})
		}
	})
}

// sumOff runs a pattern on a thread of its own and returns by how many percent
// what is accounted for exceeds what the thread's clock says.
func sumOff(t *testing.T, accounting *Accounting, pattern func(a, b *Account)) float64 {
	a, b := open(t, accounting, 0), open(t, accounting, 0)
	var thread, before, after time.Duration
	all := func() time.Duration { return a.Usage().CPU + b.Usage().CPU + accounting.Host().CPU }
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		s := begin(a)
		s.End(Now())
		// Reading the clock has the kernel bring its count up to date,
		// and the program with it.
		began := threadTime()
		before = all()
		pattern(a, b)
		s = begin(a)
		s.End(Now())
		thread = time.Duration(threadTime() - began)
		after = all()
	}()
	<-done
	ua, ub, host := a.Close(), b.Close(), accounting.Host()
	off := 100 * ((after - before).Seconds() - thread.Seconds()) / thread.Seconds()
	t.Logf("thread %v, containers %v + %v, host %v: %+.3f %%; waited %v", thread, ua.CPU, ub.CPU, host.CPU, off, ua.Wait+ub.Wait)
	return off
}

// What ran before a change of owner is the old one's, though the scheduler
// noticed nothing.
func TestHandOver(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		accounting := openWith(t, Config{Containers: 4})
		a, b := open(t, accounting, 0), open(t, accounting, 0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			for range 100 {
				s := begin(a)
				spin(900 * time.Microsecond)
				s.End(Now())
				s = begin(b)
				spin(100 * time.Microsecond)
				s.End(Now())
			}
		}()
		<-done
		ua, ub := a.Usage().CPU, b.Usage().CPU
		t.Logf("%v and %v, host %v", ua, ub, accounting.Host().CPU)
		if ub > ua/3 || ub < ua/27 { // an emulator's own share is large
			t.Errorf("%v and %v, want 9 to 1", ua, ub)
		}
	})
}

// Stints that are handed over are charged to whom they are, and all of them, though
// Go takes goroutines off their threads all the time.
func TestHandOverMoves(t *testing.T) {
	mechanisms(t, func(t *testing.T, openWith func(*testing.T, Config) *Accounting) {
		accounting := openWith(t, Config{Containers: 4, NoTick: true})
		a, b := open(t, accounting, 0), open(t, accounting, 0)
		stop := make(chan struct{})
		var others sync.WaitGroup
		for range 2 { // that want the processors, too
			others.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						runtime.GC()
					}
				}
			})
		}
		var wall time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			began := time.Now()
			s, next := begin(a), b.Stint(0)
			for range 4_000 { // long enough to be more than an emulator's own share
				spin(18 * time.Microsecond)
				s.HandOver(next, Now())
				spin(2 * time.Microsecond)
				next.HandOver(s, Now())
			}
			s.End(Now())
			wall = time.Since(began)
		}()
		<-done
		close(stop)
		others.Wait()
		ua, ub := a.Usage().CPU, b.Usage().CPU
		t.Logf("%v and %v of %v, host %v", ua, ub, wall, accounting.Host().CPU)
		if ua+ub > wall+wall/50 {
			t.Errorf("%v and %v in %v", ua, ub, wall)
		}
		if ub > ua || ua+ub < 5*time.Millisecond {
			t.Errorf("%v and %v, want 9 to 1 or so", ua, ub)
		}
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
		time.Sleep(wait)
		for c.Wait(true) > 0 {
			runtime.Gosched()
		}
		s = begin(c)
		if s.Check(Now()) {
			t.Error("RES-05 still spent in the next period")
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
	for attempt := 1; ; attempt++ { // as in TestSumIsTheThreads
		a := Open(Config{Containers: 4})
		if a.Mechanism() == ThreadClock {
			missing(t, a.Missing()[0])
		}
		c := open(t, a, 100_000)
		off := 0.0
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			s := begin(c)
			flush(a)
			began, before := threadTime(), c.Usage().CPU+a.Host().CPU
			// A record has 40 bytes of the ring's 64 KiB. Asking for the thread's clock
			// has the program look.
			for range 4000 {
				c.entry.limit.Store(1)
				c.entry.spent.Store(0)
				threadTime()
			}
			c.entry.limit.Store(0)
			s.End(Now())
			flush(a)
			thread := time.Duration(threadTime() - began)
			off = 100 * ((c.Usage().CPU+a.Host().CPU-before).Seconds()/thread.Seconds() - 1)
		}()
		<-done
		dropped := a.Dropped()
		t.Logf("%d records dropped, the sum is off by %.2f %%", dropped, off)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if dropped < 1000 || dropped > 4000 {
			t.Errorf("%d records dropped", dropped)
		}
		if off <= 2 && off >= -2 {
			return
		}
		if attempt == 5 {
			t.Fatalf("the sum is off by %.2f %%", off)
		}
	}
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

// Stints and sums go on while the mechanism changes under them.
func TestLateLoading(t *testing.T) {
	// As in TestSumIsTheThreads: the host's part has other threads in it.
	for attempt := 1; ; attempt++ {
		off := lateLoadingOff(t)
		if off <= 1 && off >= -1 {
			return
		}
		if attempt == 5 {
			t.Fatalf("the sum is off by %.2f %%", off)
		}
	}
}

// lateLoadingOff returns by how many percent what is accounted for exceeds what
// the thread's clock says, if the program is loaded meanwhile.
func lateLoadingOff(t *testing.T) float64 {
	a := Open(Config{Containers: 4, Delay: time.Millisecond})
	defer a.Close()
	if m := a.Mechanism(); m != ThreadClock {
		t.Fatalf("%v before the delay", m)
	}
	if a.shared == nil {
		missing(t, a.Missing()[0])
	}
	c := open(t, a, 0)
	var thread, accounted time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		flush(a)
		began, before := threadTime(), c.Usage().CPU+a.Host().CPU
		s := begin(c)
		for a.Mechanism() == ThreadClock || c.Usage().CPU < 100*time.Millisecond {
			spin(50 * time.Microsecond)
			s.Check(Now())
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		for c.Usage().CPU < 150*time.Millisecond {
			spin(50 * time.Microsecond)
			s.Check(Now())
		}
		s.End(Now())
		flush(a)
		thread, accounted = time.Duration(threadTime()-began), c.Usage().CPU+a.Host().CPU-before
	}()
	<-done
	off := 100 * (accounted.Seconds()/thread.Seconds() - 1)
	t.Logf("thread %v, accounted %+.3f %%", thread, off)
	return off
}
