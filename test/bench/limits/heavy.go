//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

// A rival is a workload of other processes that is known for switching contexts, and that
// people measure schedulers with.
type rival struct {
	name string
	unit int // of work to begin with, in what run takes
	// run does so much work, and says how long it took and how often contexts were
	// switched in it.
	run func(n int) (took time.Duration, switches int64, err error)
}

// rivals compares workloads that switch contexts all the time, and do what they do it
// for, with and without the program at sched_switch, which does not rest; and, where they
// switch so often that it does if it may, with that.
func rivals(length time.Duration) error {
	errs := []error{rivalWith(length, perfBench("pipe", true)), rivalWith(length, perfBench("messaging", false, "-g", "1"))}
	redis, stop, err := redis()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Println("overhead         redis: skipped:", err)
			err = nil
		}
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, rivalWith(length, redis), stop())...)
}

func rivalWith(length time.Duration, r rival) error {
	const pairs = 15
	n := r.unit
	took, _, err := r.run(n)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		fmt.Printf("%-16s %s: skipped: %v\n", "overhead", r.name, err)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", r.name, err)
	}
	n = max(1, int(float64(n)*(length/10).Seconds()/took.Seconds()))
	var rates []float64
	measure := func(cfg *bpf.Config) (each float64, err error) {
		if cfg != nil {
			a := bpf.Open(*cfg)
			defer a.Close()
			if a.Mechanism() == bpf.ThreadClock {
				return 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, a.Missing()[0])
			}
			for began := time.Now(); cfg.Rest && !a.Resting(); {
				if time.Since(began) > 4*time.Second {
					return 0, errDoesNotRest
				}
				if _, _, err := r.run(n); err != nil {
					return 0, fmt.Errorf("%s: %w", r.name, err)
				}
			}
		}
		took, switches, err := r.run(n)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", r.name, err)
		}
		if cfg == nil {
			rates = append(rates, float64(switches)/took.Seconds())
		}
		return float64(took) / float64(n), nil
	}
	for _, v := range []variant{{"sched_switch", &bpf.Config{NoTick: true}, false}, {"once it rests", &bpf.Config{NoTick: true, Rest: true}, false}} {
		var with, without, ratios []float64
		for i := range pairs {
			var ns [2]float64 // off and on
			order := []int{0, 1}
			if i%2 == 1 { // a drift favours nobody
				order = []int{1, 0}
			}
			for _, k := range order {
				ns[k], err = measure([]*bpf.Config{nil, v.cfg}[k])
				switch {
				case errors.Is(err, errors.ErrUnsupported):
					fmt.Println("overhead         skipped:", err)
					return nil
				case errors.Is(err, errDoesNotRest):
					fmt.Printf("%-16s %-45s %v\n", "overhead", r.name, err)
					return nil
				case err != nil:
					return err
				}
			}
			without, with, ratios = append(without, ns[0]), append(with, ns[1]), append(ratios, ns[1]/ns[0])
		}
		slices.Sort(ratios)
		fmt.Printf("%-16s %-45s %7.2f µs each, %.0f switches/s; with %s %7.2f µs, %+.1f %% (median of %d pairs, quartiles %+.1f and %+.1f)\n", "overhead", r.name,
			median(without)/1e3, median(rates), v.name, median(with)/1e3, 100*(median(ratios)-1), pairs, 100*(ratios[pairs/4]-1), 100*(ratios[pairs*3/4]-1))
	}
	return nil
}

var errDoesNotRest = errors.New("switches too seldom for the program to rest")

// onFirst runs a process on the first processor only, if told so, and returns what it
// said and what it has used, together with its children.
func onFirst(pinned bool, name string, args ...string) (out string, used *syscall.Rusage, err error) {
	cmd := exec.Command(name, args...)
	onThread(func() { // whose affinity the process has
		if pinned {
			var cpus unix.CPUSet
			cpus.Set(0)
			if err = unix.SchedSetaffinity(0, &cpus); err != nil {
				return
			}
		}
		var all []byte
		if all, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, all)
		}
		out = string(all)
	})
	if err != nil {
		return "", nil, err
	}
	used, _ = cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return out, used, nil
}

// perfBench is one of `perf bench sched`, of Linux's own sources.
func perfBench(which string, pinned bool, args ...string) rival {
	name := "perf bench sched " + strings.Join(append([]string{which}, args...), " ")
	if pinned {
		name += ", one processor"
	} else {
		name += fmt.Sprintf(", %d processors", runtime.NumCPU())
	}
	return rival{name, 200, func(n int) (time.Duration, int64, error) {
		out, used, err := onFirst(pinned, "perf", append([]string{"bench", "sched", which, "-l", strconv.Itoa(n)}, args...)...)
		if err != nil {
			return 0, 0, err
		}
		_, after, ok := strings.Cut(out, "Total time:")
		fields := strings.Fields(after)
		if !ok || len(fields) == 0 {
			return 0, 0, fmt.Errorf("no time in %q", out)
		}
		seconds, err := strconv.ParseFloat(fields[0], 64)
		if i := slices.Index(fields, "usecs/op"); i > 0 && err == nil { // has more digits
			var each float64
			if each, err = strconv.ParseFloat(fields[i-1], 64); err == nil {
				seconds = each * float64(n) / 1e6
			}
		}
		return max(time.Duration(seconds*float64(time.Second)), 1), used.Nvcsw + used.Nivcsw, err
	}}
}

// redis is a server and one client of its own benchmark, which waits for each answer,
// on the same processor.
func redis() (_ rival, stop func() error, err error) {
	for _, name := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(name); err != nil {
			return rival{}, nil, err
		}
	}
	dir, err := os.MkdirTemp("", "limits")
	if err != nil {
		return rival{}, nil, err
	}
	at := filepath.Join(dir, "socket")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", at, "--save", "", "--appendonly", "no", "--dir", dir, "--daemonize", "no")
	said, err := cmd.StdoutPipe()
	if err != nil {
		return rival{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	onThread(func() {
		var cpus unix.CPUSet
		cpus.Set(0)
		err = errors.Join(unix.SchedSetaffinity(0, &cpus), cmd.Start())
	})
	if err != nil {
		return rival{}, nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() error {
		err := cmd.Process.Kill()
		cmd.Wait() // it was killed
		return errors.Join(err, os.RemoveAll(dir))
	}
	lines := bufio.NewScanner(said)
	for ready := false; !ready && lines.Scan(); {
		ready = strings.Contains(strings.ToLower(lines.Text()), "ready to accept connections") || strings.Contains(lines.Text(), "now ready to accept")
	}
	go func() { // what it says later
		for lines.Scan() {
		}
	}()
	return rival{"redis-server and a client that does GET, one processor", 2000, func(n int) (time.Duration, int64, error) {
		before, err := switchesOf(cmd.Process.Pid)
		if err != nil {
			return 0, 0, err
		}
		out, used, err := onFirst(true, "redis-benchmark", "-s", at, "-c", "1", "-n", strconv.Itoa(n), "-t", "get", "--csv")
		if err != nil {
			return 0, 0, err
		}
		after, err := switchesOf(cmd.Process.Pid)
		if err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(out) {
			if fields := strings.Split(line, `"`); len(fields) > 3 && fields[1] == "GET" {
				rate, err := strconv.ParseFloat(fields[3], 64)
				if err != nil || rate <= 0 {
					return 0, 0, fmt.Errorf("rate in %q: %w", line, err)
				}
				return time.Duration(float64(n) / rate * float64(time.Second)), after - before + used.Nvcsw + used.Nivcsw, nil
			}
		}
		return 0, 0, fmt.Errorf("no rate in %q", out)
	}}, stop, nil
}

// switchesOf is how often the threads of a process have switched.
func switchesOf(pid int) (int64, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			if name == "voluntary_ctxt_switches" || name == "nonvoluntary_ctxt_switches" {
				n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n
			}
		}
	}
	return sum, nil
}
