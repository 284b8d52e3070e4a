//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// crowdSize is how many guests are throttled.
const crowdSize = 200

// crowd measures how prompt the process is beside many throttled guests. Each has
// the least quota there is, 1 ms in 100: where there are two processors they could
// use both, all the time.
func crowd(m bpf.Mechanism, length time.Duration) error {
	slots := runtime.GOMAXPROCS(0)
	for _, procs := range []int{slots, 2 * slots} {
		if err := crowdOn(m, length, procs, slots); err != nil {
			return err
		}
	}
	return nil
}

func crowdOn(m bpf.Mechanism, length time.Duration, procs, slots int) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	ctx := context.Background()
	n, err := openNodeWith(ctx, m, wasm.Config{Slots: slots})
	if err != nil {
		return err
	}
	defer n.close(ctx)
	if n.cpu.Mechanism() != m {
		return nil
	}
	what := fmt.Sprintf("%-16s GOMAXPROCS %d, %d slots,", m, procs, slots)
	if err := prompt(what+" no guests", length/4, n, nil); err != nil {
		return err
	}
	var accounts []*account
	for range crowdSize {
		_, a, err := n.start(ctx, spin, 5, nil) // which is 10m
		if err != nil {
			return err
		}
		accounts = append(accounts, a)
	}
	time.Sleep(time.Second) // for all to run
	if err := prompt(fmt.Sprintf("%s beside %d throttled", what, crowdSize), length, n, accounts); err != nil {
		return err
	}
	throttled := 0
	for _, a := range accounts {
		if a.Usage().Throttled.Throttled > 0 {
			throttled++
		}
	}
	fmt.Printf("%s %d of %d were throttled\n", what, throttled, crowdSize)
	return nil
}

// prompt measures an HTTP server in this process, and garbage collections.
func prompt(what string, length time.Duration, n *node, accounts []*account) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"HTTP", func() error {
			r, err := client.Get("http://" + l.Addr().String())
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			return err
		}},
		{"runtime.GC()", func() error { runtime.GC(); return nil }},
	} {
		var took []time.Duration
		before, stopped := n.usage(accounts, nil), newPauses()
		for end := time.Now().Add(length); time.Now().Before(end); {
			began := time.Now()
			if err := c.f(); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		u := n.usage(accounts, nil).since(before)
		pauses := ""
		if c.name != "HTTP" {
			pauses = fmt.Sprintf("; in it the world stood still for p50 %v p99 %v", stopped.quantile(0.5), stopped.quantile(0.99))
		}
		fmt.Printf("%s: %-12s p50 %v p99 %v max %v (%d)%s; guests had %.2f processors, others %.2f\n", what, c.name,
			percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1), len(took), pauses, u.accounted.Seconds()/u.elapsed().Seconds(), u.others())
	}
	return nil
}

// pauses are those of garbage collections since it was made.
type pauses struct{ before metrics.Float64Histogram }

func newPauses() *pauses {
	h := readPauses()
	h.Counts = slices.Clone(h.Counts)
	return &pauses{*h}
}

func readPauses() *metrics.Float64Histogram {
	sample := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64Histogram()
}

// quantile is the upper bound of the bucket in which it lies.
func (p *pauses) quantile(q float64) time.Duration {
	now := readPauses()
	var all, sum uint64
	for i, n := range now.Counts {
		all += n - p.before.Counts[i]
	}
	for i, n := range now.Counts {
		if sum += n - p.before.Counts[i]; all > 0 && float64(sum) >= q*float64(all) {
			return time.Duration(now.Buckets[i+1] * float64(time.Second)).Round(time.Microsecond)
		}
	}
	return 0
}

// contrast is crowd with the kernel's quotas on threads instead: every guest is on
// a thread of its own, and that in a group of its own.
func contrast(length time.Duration) error {
	parent, err := threadGroups()
	if err != nil {
		fmt.Println("threads' quotas  skipped:", err)
		return nil
	}
	var dirs []string
	defer func() {
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil {
				fmt.Println("threads' quotas ", err)
			}
		}
	}()
	top := filepath.Join(parent, "wasmpod-bench-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(top, 0o755); err != nil {
		fmt.Println("threads' quotas  skipped:", err)
		return nil
	}
	dirs = append(dirs, top)
	const guests = crowdSize
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(guests + 2))
	ctx := context.Background()
	n, err := openNodeWith(ctx, bpf.ThreadClock, wasm.Config{Slots: guests})
	if err != nil {
		return err
	}
	var tids []int
	var accounts []*account
	end := func() error {
		var errs []error
		for _, tid := range tids { // a thread that is throttled does not come to its end
			if err := os.WriteFile(filepath.Join(parent, "tasks"), []byte(strconv.Itoa(tid)), 0); err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such process") {
				errs = append(errs, err)
			}
		}
		return errors.Join(append(errs, n.close(ctx))...)
	}
	for i := range guests {
		tid := make(chan int, 1)
		_, a, err := n.start(ctx, callThenSpin, 0, pin(tid))
		if err != nil {
			return errors.Join(err, end())
		}
		accounts = append(accounts, a)
		tids = append(tids, <-tid)
		dir := filepath.Join(top, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return errors.Join(err, end())
		}
		dirs = append(dirs, dir)
		for _, w := range [][2]string{{"cpu.cfs_quota_us", "1000"}, {"tasks", strconv.Itoa(tids[i])}} {
			if err := os.WriteFile(filepath.Join(dir, w[0]), []byte(w[1]), 0); err != nil {
				return errors.Join(err, end())
			}
		}
	}
	time.Sleep(time.Second)
	err = prompt(fmt.Sprintf("threads' quotas  beside %d throttled by the kernel", guests), length, n, accounts)
	return errors.Join(err, end())
}

// threadGroups is the group of this process where threads can have quotas.
func threadGroups() (string, error) {
	h, err := cgroupfs.Detect()
	if err != nil {
		return "", err
	}
	dir, err := h.Group(cgroupfs.CPU)
	if err != nil {
		return "", fmt.Errorf("needs the cpu controller of cgroup v1: %w", err)
	}
	return dir, nil
}
