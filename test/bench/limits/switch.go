//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

// overhead compares a round trip between two threads on one processor, which is
// two context switches, with and without the programs: in another process, which
// has no part in any of this, and in ours.
func overhead(length time.Duration) error {
	return errors.Join(overheadWith(length, 0, true),
		// Two system calls between switches, and what a thread does that serves requests.
		overheadWith(length, 0, false), overheadWith(length, 10*time.Microsecond, false))
}

type variant struct {
	name   string
	cfg    *bpf.Config
	stints bool
}

// rests says whether the programs may rest; then it is measured how it is while they do.
func (v *variant) rests() bool { return v.cfg != nil && v.cfg.Rest }

func overheadWith(length, between time.Duration, native bool) error {
	variants := []variant{
		{"off", nil, false},
		{"sched_switch", &bpf.Config{NoTick: true}, false},
		{"serving containers", &bpf.Config{NoTick: true}, true},
		{"once it rests", &bpf.Config{NoTick: true, Rest: true}, false},
		{"once it rests, serving", &bpf.Config{NoTick: true, Rest: true}, true},
		{"and tick", &bpf.Config{}, false},
		{"and tick, serving containers", &bpf.Config{}, true},
	}
	what := fmt.Sprintf("%v of work,", between)
	if native {
		what = "another process,"
		variants = []variant{variants[0], variants[1], variants[3], variants[5]}
	}
	if between > 0 { // too few switches for it to rest
		variants = slices.DeleteFunc(variants, func(v variant) bool { return v.rests() })
	}
	const rounds = 11
	results, ratios := make([][]float64, len(variants)), make([][]float64, len(variants))
	var waits []float64
	for range rounds {
		for i, v := range variants {
			ns, wait, err := v.measure(length/20, between, native)
			if errors.Is(err, errors.ErrUnsupported) {
				fmt.Println("overhead         skipped:", err)
				return nil
			}
			if err != nil {
				return err
			}
			results[i] = append(results[i], ns)
			ratios[i] = append(ratios[i], ns/results[0][len(results[0])-1])
			if v.rests() {
				waits = append(waits, wait.Seconds())
			}
		}
	}
	for i, v := range variants {
		fmt.Printf("%-16s %-16s %-30s %7.0f ns a switch, %+.1f %% (median of %d, each to its neighbour)\n", "overhead", what, v.name, median(results[i]), 100*(median(ratios[i])-1), rounds)
	}
	if len(waits) > 0 {
		fmt.Printf("%-16s %-16s it rests after %.1f s of this, at most %.1f s\n", "overhead", what, median(waits), slices.Max(waits))
	}
	return nil
}

func median(s []float64) float64 {
	slices.Sort(s)
	return s[len(s)/2]
}

// measure returns how long a switch takes, and how long it was until the programs rested.
func (v *variant) measure(length, between time.Duration, native bool) (ns float64, wait time.Duration, err error) {
	var c *bpf.Account
	run := func() (float64, error) {
		if native {
			return pingPongElsewhere(length)
		}
		return pingPong(length, between, c)
	}
	if v.cfg == nil {
		ns, err = run()
		return ns, 0, err
	}
	a := bpf.Open(*v.cfg)
	defer a.Close()
	if a.Mechanism() == bpf.ThreadClock {
		return 0, 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, a.Missing()[0])
	}
	if v.stints {
		if c, err = a.NewAccount(cgroup.Bandwidth{}); err != nil {
			return 0, 0, err
		}
		defer c.Close()
	}
	for began := time.Now(); v.rests() && !a.Resting(); {
		if wait = time.Since(began); wait > 10*time.Second {
			return 0, 0, errors.New("the programs do not rest")
		}
		if _, err := run(); err != nil {
			return 0, 0, err
		}
	}
	ns, err = run()
	return ns, wait, err
}

func pingPongElsewhere(length time.Duration) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	out, err := exec.Command(self, "-switches", length.String()).Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

func pingPong(length, between time.Duration, c *bpf.Account) (ns float64, err error) {
	var there, back [2]int
	if err := errors.Join(unix.Pipe2(there[:], unix.O_CLOEXEC), unix.Pipe2(back[:], unix.O_CLOEXEC)); err != nil {
		return 0, err
	}
	var cpus unix.CPUSet
	cpus.Set(0)
	side := func(r, w int, each func() bool) {
		runtime.LockOSThread() // the thread ends with the goroutine
		unix.SchedSetaffinity(0, &cpus)
		if c != nil {
			s := begin(c)
			defer s.End(bpf.Now())
		}
		buf := []byte{0}
		for each() {
			work(between)
			unix.Write(w, buf)
			if n, _ := unix.Read(r, buf); n == 0 {
				break
			}
		}
		unix.Close(w)
	}
	other := make(chan struct{})
	go func() {
		defer close(other)
		side(there[0], back[1], func() bool { return true })
	}()
	onThread(func() {
		n, began := 0, time.Now()
		side(back[0], there[1], func() bool { n++; return n%64 != 0 || time.Since(began) < length })
		ns = float64(time.Since(began)) / float64(2*n)
	})
	<-other
	return ns, errors.Join(unix.Close(there[0]), unix.Close(back[0]))
}
