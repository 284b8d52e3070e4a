package bpf

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// reading is what containers and the host were charged all in all, at some time between two
// readings of the clock of the only thread that has served any.
type reading struct{ before, sum, after time.Duration }

// cellsHold is what cells may hold of a thread that is not in any sum yet, or is by mistake.
const cellsHold = cells * short

// read is called on the thread, to which its goroutine is locked, between stints. What was
// claimed by the clock and not run, because the kernel or a hypervisor did something else
// meanwhile, is worked off first: the sum is exact when the thread has run that, not before.
func read(t *testing.T, a *Accounting, containers ...*Account) (r reading) {
	entry := a.current(procPin())
	procUnpin()
	r.before = time.Duration(threadTime())
	const patience = 10_000
	for round := 0; ; round++ {
		owner, over := charged(a, entry)
		if over <= short {
			break
		}
		if round == patience {
			t.Errorf("%v more are claimed than were run, and are not worked off", time.Duration(over))
			break
		}
		work := func() { spin(20 * time.Microsecond) }
		for _, c := range containers {
			if c.owner == owner {
				work = func() {
					s := begin(c)
					spin(20 * time.Microsecond)
					s.End(Now())
				}
			}
		}
		work()
	}
	r.sum = a.Host().CPU
	for _, c := range containers {
		r.sum += c.Usage().CPU
	}
	r.after = time.Duration(threadTime())
	return r
}

// charged has all that the thread has run until now charged, and returns by how much that
// was more than it has run, and for whom most of it was.
func charged(a *Accounting, t *thread) (owner uint64, over int64) {
	for event := t.event.Load(); !a.clocked.Load() && t.event.Load() == event; {
		// A switch is what the program goes by.
		woken := make(chan struct{})
		go close(woken)
		<-woken
	}
	procPin()
	defer procUnpin()
	if a.clocked.Load() {
		t.event.Store(0) // or a recent reading of the clock would do
		a.settle(t, Now())
		over = t.total() - t.taken.Load()
	}
	for i := range uint32(cells) {
		a.pay(t, i)
		if excess := t.paid[i].Load() - t.claimed[i]; excess > over {
			over, owner = excess, 0
			if i != 0 {
				owner = t.owner[i-1]
			}
		}
	}
	return owner, over
}

// sumBetween checks that between two readings no less and no more was charged than the
// thread has run, but for a percentage of that.
func sumBetween(t *testing.T, first, last reading, percent float64) {
	t.Helper()
	sum, least, most := last.sum-first.sum, last.before-first.after, last.after-first.before
	some := time.Duration(percent/100*float64(most)) + 2*cellsHold
	t.Logf("charged %v, run %v to %v", sum, least, most)
	if sum < least-some || sum > most+some {
		t.Errorf("%v were charged, %v to %v run", sum, least, most)
	}
}

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
				// Without the tick, as it is used: switches and stints must do.
				sumIs(t, openWith(t, Config{Containers: 4, NoTick: name != "system calls"}), pattern)
			})
		}
	})
}

// sumIs runs a pattern on a thread of its own.
func sumIs(t *testing.T, accounting *Accounting, pattern func(a, b *Account)) {
	a, b := open(t, accounting, 0), open(t, accounting, 0)
	var first, last reading
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		first = read(t, accounting, a, b)
		pattern(a, b)
		last = read(t, accounting, a, b)
	}()
	<-done
	sumBetween(t, first, last, 0)
	ua, ub := a.Close(), b.Close()
	t.Logf("containers %v + %v, waited %v", ua.CPU, ub.CPU, ua.Wait+ub.Wait)
}

// Stints and sums go on while the mechanism changes under them.
func TestLateLoading(t *testing.T) {
	a := Open(Config{Containers: 4, Delay: time.Millisecond})
	defer a.Close()
	if m := a.Mechanism(); m != ThreadClock {
		t.Fatalf("%v before the delay", m)
	}
	if a.shared == nil {
		missing(t, a.Missing()[0])
	}
	c := open(t, a, 0)
	var first, last reading
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		first = read(t, a, c)
		s := begin(c)
		work := func(until time.Duration) {
			for settled := false; !settled || c.Usage().CPU < until; {
				spin(50 * time.Microsecond)
				s.Check(Now())
				select {
				case <-a.Settled():
					settled = true
				default:
				}
			}
		}
		work(100 * time.Millisecond)
		if a.Mechanism() != ThreadClock {
			work(c.Usage().CPU + 50*time.Millisecond)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		work(c.Usage().CPU + 50*time.Millisecond)
		s.End(Now())
		last = read(t, a, c)
	}()
	<-done
	if lacks := a.Missing(); len(lacks) > 1 {
		missing(t, lacks[0])
	}
	// What changes hands while it is counted may be counted twice, or not at all.
	sumBetween(t, first, last, 3)
}
