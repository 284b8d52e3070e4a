//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// taskTime is what threads of this process have run, as /proc says; all of them if
// none is named.
func taskTime(tids ...int) (sum time.Duration) {
	if len(tids) == 0 {
		return tasksOf(os.Getpid())
	}
	for _, tid := range tids {
		sum += schedstat(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	}
	return sum
}

// tasksOf is what the threads of a process have run.
func tasksOf(pid int) (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		sum += schedstat(f)
	}
	return sum
}

func schedstat(file string) time.Duration {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	ns, _, _ := strings.Cut(string(b), " ")
	n, _ := strconv.ParseInt(ns, 10, 64)
	return time.Duration(n)
}

// machineTime is what all processors have run, as /proc/stat says, to 10 ms.
func machineTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var sum int64
	for i, f := range strings.Fields(line)[1:] {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i < 8 && i != 3 && i != 4 { // idle, iowait
			sum += n
		}
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// usage is a reading of every clock there is.
type usage struct {
	wall                    time.Time
	accounted, host         time.Duration
	served, apart           time.Duration
	moved                   int
	threads, tasks, machine time.Duration
}

func (n *node) usage(accounts []*account, tids []int) (u usage) {
	u.wall, u.machine, u.tasks = time.Now(), machineTime(), taskTime()
	if len(tids) > 0 {
		u.threads = taskTime(tids...)
	}
	for _, a := range accounts {
		u.accounted += a.Usage().CPU
		ran, apart, moved := a.served()
		u.served += ran
		u.apart += apart
		u.moved += moved
	}
	u.host = n.cpu.Host().CPU
	return u
}

func (u usage) since(v usage) usage {
	return usage{
		time.Time{}.Add(u.wall.Sub(v.wall)), u.accounted - v.accounted, u.host - v.host, u.served - v.served, u.apart - v.apart, u.moved - v.moved,
		u.threads - v.threads, u.tasks - v.tasks, u.machine - v.machine,
	}
}

// elapsed is for a difference.
func (u usage) elapsed() time.Duration { return u.wall.Sub(time.Time{}) }

// others is how many processors other processes had.
func (u usage) others() float64 { return max(0, (u.machine-u.tasks).Seconds()/u.elapsed().Seconds()) }

// guests measures limits as guests of the engine have them, on whatever threads Go has
// for them. Four figures, in percent of the quota: what the threads have run, by the
// kernel's count of each (the one of /proc/self/task/*/schedstat), from where a guest
// got its thread to where it gave it back, or to where it was seen on another thread, if Go
// has moved it (how much is since its last safepoint there is told); what the accounting says; what all threads of
// the process have run, as /proc says; and the difference of that and the first, which
// is Go's own work and this program's.
func guests(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	probe := bpf.Open(bpf.Config{Mechanism: m})
	ok, missing := probe.Mechanism() == m, probe.Missing()
	if err := probe.Close(); err != nil {
		return err
	}
	if !ok {
		fmt.Printf("%-16s guests skipped: %v\n", m, missing[0])
		return nil
	}
	onThread(func() {
		clock := threadTime() // and brings the other one up to date
		fmt.Printf("%-16s /proc's time of a thread is its clock's, less %v\n", m, clock-taskTime(unix.Gettid()))
	})
	stands := standstill()
	fmt.Printf("%-16s processors that are busy stand still for up to %v\n", m, stands.Round(10*time.Microsecond))
	for _, limits := range [][]int64{{50}, {100}, {500}, {1000}, {750, 750}} {
		if err := limited(ctx, m, limits, length, stands); err != nil {
			return err
		}
	}
	return nil
}

// pin has the guest stay on the thread that it calls from, and tells which that is.
func pin(tid chan<- int) func(context.Context) {
	return func(context.Context) {
		runtime.LockOSThread()
		tid <- unix.Gettid()
	}
}

// limited has guests spin, each at its limit; stands is what standstill says.
func limited(ctx context.Context, m bpf.Mechanism, limits []int64, length, stands time.Duration) error {
	n, err := openNode(ctx, m)
	if err != nil {
		return err
	}
	var accounts []*account
	sum := int64(0)
	runtime.GC()
	for _, milli := range limits {
		_, a, err := n.start(ctx, spin, milli, func(context.Context) {})
		if err != nil {
			return err
		}
		accounts = append(accounts, a)
		sum += milli
	}
	// From one time when the budget is spent to another: whole periods.
	spent := func() {
		select {
		case <-accounts[0].spent:
		default:
		}
		select {
		case <-accounts[0].spent:
		case <-time.After(200 * time.Millisecond):
		}
	}
	spent() // the first period is short
	spent()
	before := n.usage(accounts, nil)
	time.Sleep(length)
	spent()
	u := n.usage(accounts, nil).since(before)
	err = n.close(ctx)
	var late []time.Duration
	stats := cgroup.ThrottleStats{}
	for _, a := range accounts {
		late = append(late, a.late...)
		s := a.Usage().Throttled
		stats.Periods += s.Periods
		stats.Throttled += s.Throttled
	}
	want := u.elapsed().Seconds() * float64(sum) / 1000
	part := func(d time.Duration) float64 { return 100 * d.Seconds() / want }
	met := "met"
	if used := part(u.served); used < 98 || used > 102 {
		if met = "MISSED"; u.others() > 0.05 {
			met = "the machine is not quiet"
		}
	}
	const most = 2 * time.Millisecond
	prompt := "met"
	if percentile(late, 0.99) > most {
		if prompt = "MISSED"; stands > most {
			prompt = "skipped: this machine's processors stand still for longer"
		}
	}
	fmt.Printf("%-16s guests at %v m, in %.1f s: by their threads' time %.2f %% of it (±2 %%: %s), accounted %.2f %%; all threads of the process %.2f %%, so Go's own work %.2f; past the budget p50 %v p99 %v (2ms: %s); %d of %d periods throttled; moved %d times, and %.2f %% are since the safepoints before that; others had %.2f processors\n", m, limits, u.elapsed().Seconds(),
		part(u.served), met, part(u.accounted), part(u.tasks), part(u.tasks-u.served), percentile(late, 0.5), percentile(late, 0.99), prompt, stats.Throttled, stats.Periods, u.moved, part(u.apart), u.others())
	return err
}

// standstill is how much a thread's clock jumps by between two readings of it, while
// all processors are busy: time in which a processor did nothing, and the kernel went on
// counting. An emulator that runs one processor after the other makes such pauses; who
// is limited overdraws by as much.
func standstill() time.Duration {
	const length = 3 * time.Second
	var wg sync.WaitGroup
	longest := make([]time.Duration, runtime.GOMAXPROCS(0))
	for i := range longest {
		wg.Go(func() {
			onThread(func() {
				for began, last := time.Now(), threadTime(); time.Since(began) < length; {
					now := threadTime()
					longest[i] = max(longest[i], now-last)
					last = now
				}
			})
		})
	}
	wg.Wait()
	return slices.Max(longest)
}

// kinds compares what guests are charged with what their threads have run.
func kinds(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer zero.Close()
	buf := make([]byte, 4096)
	for _, k := range []struct {
		name string
		call func(context.Context)
	}{
		{"spinning", nil},
		{"sleeping 1 ms after 200 µs", func(ctx context.Context) {
			work(200 * time.Microsecond)
			b := ctx.(wasm.Blocking)
			b.Leave()
			time.Sleep(time.Millisecond)
			b.Enter()
		}},
		{"host calls of 1 µs", func(context.Context) { _, _ = zero.Read(buf) }},
	} {
		n, err := openNode(ctx, m)
		if err != nil {
			return err
		}
		if n.cpu.Mechanism() != m {
			return n.close(ctx)
		}
		runtime.GC()
		tid := make(chan int, 1)
		code, call := callThenSpin, pin(tid)
		if k.call != nil {
			first := true
			code, call = calls, func(ctx context.Context) {
				if first {
					first = false
					pin(tid)(ctx)
				}
				k.call(ctx)
			}
		}
		i, a, err := n.start(ctx, code, 0, call)
		if err != nil {
			return err
		}
		tids, accounts := []int{<-tid}, []*account{a}
		time.Sleep(100 * time.Millisecond)
		before := n.usage(accounts, tids)
		time.Sleep(length)
		u := n.usage(accounts, tids).since(before)
		part := func(d time.Duration) float64 { return 100 * d.Seconds() / u.threads.Seconds() }
		fmt.Printf("%-16s %-28s its thread, by /proc, %8.1f ms; accounted %.2f %%: to the guest %.2f, to Go's own work on that thread %.2f\n", m, k.name,
			1e3*u.threads.Seconds(), part(u.accounted+u.host), part(u.accounted), part(u.host))
		i.Kill()
		if err := errors.Join(n.close(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func percentile(s []time.Duration, p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	return s[min(len(s)-1, int(p*float64(len(s))))].Round(10 * time.Microsecond)
}
