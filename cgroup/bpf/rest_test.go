package bpf

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type look struct {
		switches uint64
		ran      int64
		times    int // zero is one
		want     bool
	}
	const busy = int64(time.Second)
	for name, looks := range map[string][]look{
		"busy":                        {{1000, busy, 100, false}},
		"little is enough":            {{1000, leastRun, 100, false}},
		"idle for ten seconds":        {{1000, busy, 0, false}, {1000, 0, idleLooks - 1, false}, {1000, 0, 20, true}, {1000, leastRun, 0, false}, {1000, 0, idleLooks - 1, false}},
		"a hectic second":             {{mostSwitches - 1, busy, 100, false}, {mostSwitches, busy, 0, true}},
		"until it has been calm":      {{mostSwitches, busy, 3, true}, {calmSwitches - 1, busy, calmLooks - 1, true}, {calmSwitches, busy, 0, true}, {0, busy, calmLooks - 1, true}, {0, busy, 0, false}, {mostSwitches - 1, busy, 9, false}},
		"hectic, and idle":            {{mostSwitches, 0, idleLooks, true}, {0, 0, calmLooks, true}, {0, busy, 0, false}},
		"idle only while it is":       {{0, 0, idleLooks - 1, false}, {0, busy, 0, false}, {0, 0, idleLooks - 1, false}, {0, 0, 0, true}},
		"hectic while it has rested":  {{0, 0, idleLooks - 1, false}, {mostSwitches, 0, 0, true}, {0, busy, calmLooks - 1, true}, {0, busy, 0, false}},
		"calm does not wait for idle": {{mostSwitches, busy, 0, true}, {0, leastRun, calmLooks - 1, true}, {0, leastRun, 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			for i, l := range looks {
				for n := range max(l.times, 1) {
					if got := p.look(l.switches, l.ran); got != l.want {
						t.Fatalf("step %d, look %d: rests %v, want %v", i, n, got, l.want)
					}
				}
			}
		})
	}
}

// The programs are told to rest by what processors and containers have done, and
// what fails ends it.
func TestLook(t *testing.T) {
	a := Open(Config{Mechanism: ThreadClock, Containers: 2})
	c := open(t, a, 0)
	defer c.Close()
	var count uint64
	var failed error
	attached := true
	r := &rester{
		attach:   func() error { attached = true; return failed },
		detach:   func() error { attached = false; return failed },
		switches: func() (uint64, error) { return count, failed },
	}
	now := int64(0)
	look := func(switches uint64, ran time.Duration) error {
		now += int64(lookEvery)
		count = switches
		c.entry.cpu.Add(int64(ran))
		return a.look(r, now)
	}
	want := func(resting bool) {
		t.Helper()
		if r.resting.Load() != resting || attached == resting || a.clocked.Load() != resting {
			t.Fatalf("resting: %v, attached: %v, by threads' clocks: %v; want resting %v", r.resting.Load(), attached, a.clocked.Load(), resting)
		}
	}
	a.clocked.Store(false)
	a.threads[5].seen = 1
	for _, err := range []error{look(0, 0), look(mostSwitches-1, time.Second)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want(false)
	if err := look(mostSwitches, time.Second); err != nil {
		t.Fatal(err)
	}
	want(true)
	for range calmLooks - 1 {
		if err := look(0, time.Second); err != nil {
			t.Fatal(err)
		}
		want(true)
	}
	if err := look(0, time.Second); err != nil {
		t.Fatal(err)
	}
	want(false)
	if a.threads[5].seen != 0 {
		t.Error("what a thread has waited while nobody looked will be charged")
	}
	failed = errors.New("no more")
	if err := look(mostSwitches, 0); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

// Stints and sums go on while programs are taken off and put back on under them.
func TestRestUnderStints(t *testing.T) {
	a := Open(Config{Containers: 4, NoTick: true, Rest: true})
	defer a.Close()
	if a.Mechanism() == ThreadClock {
		missing(t, a.Missing()[0])
	}
	r := a.program.rester
	close(r.stop) // the test does it instead
	r.done.Wait()
	r.stop = make(chan struct{})
	c, d := open(t, a, 0), open(t, a, 0)
	var stop atomic.Bool
	var rests int
	toggled := make(chan error, 1)
	toggle := func() {
		for !stop.Load() {
			if err := errors.Join(a.rest(r, true), a.rest(r, false)); err != nil {
				toggled <- err
				return
			}
			rests++
		}
		toggled <- nil
	}
	var first, last reading
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		first = read(t, a, c, d)
		go toggle()
		s, next := begin(c), d.Stint(0)
		for i := 0; c.Usage().CPU+d.Usage().CPU < 200*time.Millisecond; i++ {
			spin(3 * time.Microsecond)
			s.HandOver(next, Now())
			s, next = next, s
			switch {
			case i%64 == 0:
				s.Check(Now())
			case i%1000 == 1:
				s.End(Now())
				runtime.Gosched()
				s.Begin(Now())
			}
		}
		s.End(Now())
		stop.Store(true)
		err := <-toggled
		last = read(t, a, c, d)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rests, %v and %v", rests, c.Usage().CPU, d.Usage().CPU)
	// As in TestLateLoading.
	sumBetween(t, first, last, 3)
}
