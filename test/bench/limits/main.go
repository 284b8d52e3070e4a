//go:build linux

// Command limits measures how exactly containers' CPU time is accounted and
// limited, and what that costs: on every mechanism that works here. Root, or
// CAP_BPF and CAP_PERFMON, is needed for those with BPF.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

func main() {
	length := flag.Duration("time", 2*time.Second, "of each measurement")
	only := flag.String("only", "", "measure only this: tables (of package bpf alone), guests, collections, crowd, memory, resource, overhead, or of that only calls, wake, switches, rivals")
	mechanism := flag.String("mechanism", "", "measure only this: tp_btf, clock")
	native := flag.Duration("switches", 0, "switch contexts for this long, and print how many nanoseconds each took")
	flag.Parse()
	if *native > 0 {
		ns, err := pingPong(*native, 0, nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "limits:", err)
			os.Exit(1)
		}
		fmt.Println(ns)
		return
	}
	if err := run(*only, *mechanism, *length); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		os.Exit(1)
	}
}

func run(only, mechanism string, length time.Duration) error {
	mechanisms := map[string][]bpf.Mechanism{
		"": {bpf.BTFTracepoint, bpf.ThreadClock}, "tp_btf": {bpf.BTFTracepoint}, "clock": {bpf.ThreadClock},
	}[mechanism]
	both := func(measures ...func(bpf.Mechanism, time.Duration) error) func(time.Duration) error {
		return func(length time.Duration) error {
			for _, m := range mechanisms {
				for _, measure := range measures {
					if err := measure(m, length); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	for _, part := range []struct {
		name    string
		measure func(time.Duration) error
	}{
		{"tables", tables}, {"guests", both(guests, kinds)}, {"collections", both(collections)}, {"crowd", both(crowd)}, {"crowd", contrast}, {"memory", memory}, {"resource", resource}, {"overhead calls", both(hostCalls)}, {"overhead wake", both(switches)}, {"overhead switches", overhead}, {"overhead rivals", rivals},
	} {
		if only == "" || slices.Contains(strings.Fields(part.name), only) {
			if err := part.measure(length); err != nil {
				return err
			}
		}
	}
	return nil
}

// tables measures package bpf without guests.
func tables(length time.Duration) error {
	for _, m := range []bpf.Mechanism{bpf.BTFTracepoint, bpf.RawTracepoint, bpf.ThreadClock} {
		a := bpf.Open(bpf.Config{Mechanism: m})
		if a.Mechanism() != m {
			fmt.Printf("%-16s skipped: %v\n", m, a.Missing()[0])
			continue
		}
		err := errors.Join(accuracy(a, length), quotas(a, length), a.Close())
		if err != nil {
			return err
		}
	}
	return records(length)
}

// threadTime is the kernel's count of what the calling thread has run.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// onThread runs f in a thread of its own.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func begin(c *bpf.Account) *bpf.Stint {
	s := c.Stint(0)
	s.Begin(bpf.Now())
	return s
}

var sink atomic.Int64

// work takes about d of CPU time, without a system call.
func work(d time.Duration) {
	var sum int64
	for i := range int64(d) {
		sum += i ^ sum<<1
	}
	sink.Store(sum)
}

// accuracy compares the sum over containers with the thread's own clock.
func accuracy(a *bpf.Accounting, length time.Duration) error {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer zero.Close()
	buf := make([]byte, 256)
	pause := unix.NsecToTimespec(50_000)
	patterns := []struct {
		name string
		step func(c, d *bpf.Account)
	}{
		{"spinning", func(c, _ *bpf.Account) {
			s := begin(c)
			for range 20 {
				work(250 * time.Microsecond)
				s.Check(bpf.Now())
			}
			s.End(bpf.Now())
		}},
		{"sleeping", func(c, _ *bpf.Account) {
			s := begin(c)
			work(20 * time.Microsecond)
			s.End(bpf.Now())
			unix.Nanosleep(&pause, nil)
		}},
		{"two in turn", func(c, d *bpf.Account) {
			for _, x := range []*bpf.Account{c, d} {
				s := begin(x)
				work(3 * time.Microsecond)
				s.End(bpf.Now())
			}
		}},
		{"host calls", func(c, _ *bpf.Account) {
			s := begin(c)
			for range 1000 {
				zero.Read(buf)
			}
			s.Check(bpf.Now())
			s.End(bpf.Now())
		}},
	}
	for _, p := range patterns {
		c, err1 := a.NewAccount(cgroup.Bandwidth{})
		d, err2 := a.NewAccount(cgroup.Bandwidth{})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		onThread(func() {
			sum := func() time.Duration { return c.Usage().CPU + d.Usage().CPU + a.Host().CPU }
			s := begin(c)
			s.End(bpf.Now())
			began := threadTime()
			before := sum()
			for end := time.Now().Add(length / 2); time.Now().Before(end); {
				p.step(c, d)
			}
			s = begin(c)
			s.End(bpf.Now())
			thread, accounted := threadTime()-began, sum()-before
			fmt.Printf("%-16s %-12s thread %8.1f ms, accounted %+.4f %%, host's part %.1f %%\n", a.Mechanism(), p.name,
				1e3*thread.Seconds(), 100*(accounted.Seconds()/thread.Seconds()-1), 100*(1-(c.Usage().CPU+d.Usage().CPU).Seconds()/thread.Seconds()))
		})
		c.Close()
		d.Close()
	}
	return nil
}

// quotas has a guest spin at several limits.
func quotas(a *bpf.Accounting, length time.Duration) error {
	for _, milli := range []int64{50, 100, 500, 900} {
		b := cgroup.NewBandwidth(milli)
		c, err := a.NewAccount(b)
		if err != nil {
			return err
		}
		onThread(func() {
			var late []time.Duration
			var used time.Duration // by the thread's clock
			began := time.Now()
			for time.Since(began) < length {
				from := threadTime()
				s := begin(c)
				for !s.Check(bpf.Now()) {
					work(250 * time.Microsecond) // as between two safepoints
				}
				s.End(bpf.Now())
				used += threadTime() - from
				late = append(late, c.Usage().CPU-b.Quota*time.Duration(len(late)+1))
				for wait := c.Wait(true); wait > 0; wait = c.Wait(true) {
					time.Sleep(wait)
				}
			}
			// Whole periods, or the part of the last one would count.
			elapsed := time.Duration(len(late)) * b.Period
			slices.Sort(late)
			u := c.Close()
			fmt.Printf("%-16s %4dm used %.2f %% of it by the thread's clock; past the budget p50 %v p99 %v; %d of %d periods throttled\n", a.Mechanism(), milli,
				100*used.Seconds()/(elapsed.Seconds()*float64(milli)/1000), late[len(late)/2], late[len(late)*99/100], u.Throttled.Throttled, u.Throttled.Periods)
		})
	}
	return nil
}

// records measures how late the program is to say that a budget is spent, for a
// guest that comes to no safepoint.
func records(length time.Duration) error {
	a := bpf.Open(bpf.Config{})
	defer a.Close()
	if a.Mechanism() == bpf.ThreadClock {
		fmt.Println("records          skipped:", a.Missing()[0])
		return nil
	}
	c, err := a.NewAccount(cgroup.NewBandwidth(200))
	if err != nil {
		return err
	}
	defer c.Close()
	var stop atomic.Bool
	told := make(chan time.Duration, 1)
	go func() {
		for {
			r, err := a.NextSpent()
			if err != nil {
				return
			}
			stop.Store(true)
			told <- r.CPU
		}
	}()
	onThread(func() {
		var late []time.Duration
		for began := time.Now(); time.Since(began) < length; {
			stop.Store(false)
			s := begin(c)
			for !stop.Load() {
			}
			s.End(bpf.Now())
			late = append(late, <-told)
			for wait := c.Wait(true); wait > 0; wait = c.Wait(true) {
				time.Sleep(wait)
			}
		}
		slices.Sort(late)
		fmt.Printf("%-16s record, without safepoints: past the budget p50 %v max %v (%d)\n", a.Mechanism(), late[len(late)/2], late[len(late)-1], len(late))
	})
	return nil
}
