package bpf

import (
	"runtime"
	"testing"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
)

// What somebody else had the thread do in a stint is the host's once the guest says so,
// and the sum stays what it is.
func TestGiveBack(t *testing.T) {
	a := Open(Config{Containers: 4, NoTick: true})
	defer a.Close()
	if a.Mechanism() == ThreadClock {
		missing(t, a.Missing()[0])
	}
	c := open(t, a, 0)
	defer c.Close()
	const ran, keep = 10 * time.Millisecond, time.Millisecond // the time is told, and does not pass
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for {
			s := begin(c)
			cells := &s.thread.claimed
			since, before := s.thread.since, *cells
			now := since + int64(ran)
			few := s.GiveBack(now, since, int64(keep), 5)
			given := s.GiveBack(now, since, int64(keep), int64(time.Second))
			after := *cells
			if s.thread.event.Load() > since {
				s.End(now)
				continue // the kernel has taken the thread off its processor meanwhile
			}
			if few != 5 || given != int64(ran-keep) {
				t.Errorf("given back %d and %d, want 5 and %d", few, given, ran-keep)
			}
			if own, host := after[s.cell]-before[s.cell], after[0]-before[0]; host != given+few || own != int64(ran)-host {
				t.Errorf("the container is charged %d, the host %d, of %d", own, host, ran)
			}
			if before := c.Usage().CPU; s.Check(now) || c.Usage().CPU-before > keep+2*short {
				t.Errorf("the container pays for %v", c.Usage().CPU-before)
			}
			s.End(now)
			break
		}
		s := begin(c)
		now := Now()
		s.End(now)
		if s.GiveBack(now, now-int64(time.Second), 0, 1) != 0 {
			t.Error("given back after the end")
		}
	}()
	<-done
}

func BenchmarkStint(b *testing.B) {
	for _, m := range []Mechanism{BTFTracepoint, ThreadClock} {
		a := Open(Config{Mechanism: m})
		if a.Mechanism() != m {
			b.Log(a.Missing())
			continue
		}
		c, err := a.NewAccount(cgroup.NewBandwidth(100_000))
		if err != nil {
			b.Fatal(err)
		}
		b.Run("begin-end/"+m.String(), func(b *testing.B) {
			s := c.Stint(0)
			for b.Loop() {
				now := Now()
				s.Begin(now)
				s.End(now)
			}
		})
		b.Run("hand-over/"+m.String(), func(b *testing.B) {
			other, err := a.NewAccount(cgroup.Bandwidth{})
			if err != nil {
				b.Fatal(err)
			}
			defer other.Close()
			s, next := begin(c), other.Stint(0)
			for now := Now(); b.Loop(); now += 250 {
				s.HandOver(next, now)
				s, next = next, s
			}
			s.End(Now())
		})
		b.Run("check/"+m.String(), func(b *testing.B) {
			s := begin(c)
			for now := Now(); b.Loop(); now += 250_000 {
				s.Check(now)
			}
			s.End(Now())
		})
		a.Close()
	}
}
