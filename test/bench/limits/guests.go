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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// The guests, assembled by hand so that the program needs no tools.
var (
	// (loop (br 0))
	spin = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x00\x06memory\x02\x00\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b")
	// (import "bench" "call") (loop (call 0) (br 0))
	calls = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0e\x01\x05bench\x04call\x00\x00\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x01\x06memory\x02\x00\x0a\x0b\x01\x09\x00\x03\x40\x10\x00\x0c\x00\x0b\x0b")
)

type callKey struct{}

// host registers the function that guests call: what their context holds.
func host(ctx context.Context, r wazero.Runtime) error {
	_, err := r.NewHostModuleBuilder("bench").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, _ []uint64) { ctx.Value(callKey{}).(func(context.Context))(ctx) }), nil, nil).
		Export("call").Instantiate(ctx)
	return err
}

// account is a container's for the engine, as package inproc makes it.
type account struct {
	*bpf.Account
	quota time.Duration

	mu     sync.Mutex
	spent  time.Duration // budgets that were used up
	late   []time.Duration
	offset int64
}

func (a *account) Stint() wasm.CPUStint { return &stint{account: a, stint: a.Account.Stint()} }

func (a *account) Wait() time.Duration {
	return a.Account.Wait(true)
}

// times is how often a budget was used up.
func (a *account) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.late)
}

type stint struct {
	account *account
	stint   *bpf.Stint
}

func (s *stint) Begin(now int64) { s.stint.Begin(now + s.account.offset) }
func (s *stint) End(now int64)   { s.stint.End(now + s.account.offset) }

func (s *stint) Check(now int64) bool {
	if !s.stint.Check(now + s.account.offset) {
		return false
	}
	// A debt is paid by the next period: the limit is always a multiple of the quota.
	a := s.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spent += a.quota
	a.late = append(a.late, a.Usage().CPU-a.spent)
	return true
}

// node is an engine with an accounting.
type node struct {
	engine  *wasm.Engine
	modules []*wasm.Module
	cpu     *bpf.Accounting
}

func openNode(ctx context.Context, m bpf.Mechanism) (*node, error) {
	e, err := wasm.New(ctx, wasm.Config{Hosts: []wasm.HostModule{host}})
	if err != nil {
		return nil, err
	}
	return &node{engine: e, cpu: bpf.Open(bpf.Config{Mechanism: m})}, nil
}

func (n *node) close(ctx context.Context) error {
	err := n.engine.Close(ctx)
	for _, m := range n.modules {
		m.Release()
	}
	return errors.Join(err, n.cpu.Close())
}

// start starts a guest. milli 0 is no limit, -1 no account either.
func (n *node) start(ctx context.Context, code []byte, milli int64, call func(context.Context)) (*wasm.Instance, *account, error) {
	m, err := n.engine.Compile(ctx, strconv.Itoa(len(code)), func() ([]byte, error) { return code, nil })
	if err != nil {
		return nil, nil, err
	}
	n.modules = append(n.modules, m)
	c := wasm.InstanceConfig{Context: func(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, call) }}
	var a *account
	if milli >= 0 {
		b := cgroup.NewBandwidth(milli)
		opened, err := n.cpu.NewAccount(b)
		if err != nil {
			return nil, nil, err
		}
		a = &account{Account: opened, quota: b.Quota, offset: bpf.Now() - wasm.Now()}
		c.CPU = a
	}
	i, err := n.engine.Start(ctx, m, c)
	return i, a, err
}

// processTime is what all threads of the process have run, as /proc says.
func processTime() (sum time.Duration) {
	files, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			ns, _, _ := strings.Cut(string(b), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

func percentile(s []time.Duration, p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	return s[min(len(s)-1, int(p*float64(len(s))))].Round(10 * time.Microsecond)
}

// guests measures limits as guests of the engine have them.
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
	for _, limits := range [][]int64{{50}, {100}, {500}, {1000}, {750, 750}} {
		if err := limited(ctx, m, limits, length); err != nil {
			return err
		}
	}
	return nil
}

// limited has guests spin, each at its limit.
func limited(ctx context.Context, m bpf.Mechanism, limits []int64, length time.Duration) error {
	n, err := openNode(ctx, m)
	if err != nil {
		return err
	}
	var accounts []*account
	sum := int64(0)
	runtime.GC()
	for _, milli := range limits {
		_, a, err := n.start(ctx, spin, milli, nil)
		if err != nil {
			return err
		}
		accounts = append(accounts, a)
		sum += milli
	}
	// From one time when the budget is spent to another: whole periods.
	spent := func() {
		seen := accounts[0].times()
		for end := time.Now().Add(200 * time.Millisecond); accounts[0].times() == seen && time.Now().Before(end); {
			time.Sleep(500 * time.Microsecond)
		}
	}
	spent()
	used := func() (d time.Duration) {
		for _, a := range accounts {
			d += a.Usage().CPU
		}
		return d
	}
	began, thread, accounted := time.Now(), processTime(), used()
	time.Sleep(length)
	spent()
	elapsed, thread, accounted := time.Since(began), processTime()-thread, used()-accounted
	err = n.close(ctx)
	var late []time.Duration
	stats := cgroup.ThrottleStats{}
	for _, a := range accounts {
		late = append(late, a.late...)
		s := a.Usage().Throttled
		stats.Periods += s.Periods
		stats.Throttled += s.Throttled
	}
	want := elapsed.Seconds() * float64(sum) / 1000
	fmt.Printf("%-16s guests at %v m: charged %.2f %% of it, /proc of all threads says %.2f %%; past the budget p50 %v p99 %v; %d of %d periods throttled\n", m, limits,
		100*accounted.Seconds()/want, 100*thread.Seconds()/want, percentile(late, 0.5), percentile(late, 0.99), stats.Throttled, stats.Periods)
	return err
}

// kinds compares what guests are charged with what the process's threads have run.
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
		code []byte
		call func(context.Context)
	}{
		{"spinning", spin, nil},
		{"sleeping 1 ms after 200 µs", calls, func(ctx context.Context) {
			work(200 * time.Microsecond)
			b := ctx.(wasm.Blocking)
			b.Leave()
			time.Sleep(time.Millisecond)
			b.Enter()
		}},
		{"host calls of 1 µs", calls, func(context.Context) { _, _ = zero.Read(buf) }},
	} {
		n, err := openNode(ctx, m)
		if err != nil {
			return err
		}
		if n.cpu.Mechanism() != m {
			return n.close(ctx)
		}
		runtime.GC()
		_, a, err := n.start(ctx, k.code, 0, k.call)
		if err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		thread, accounted, hosts := processTime(), a.Usage().CPU, n.cpu.Host().CPU
		time.Sleep(length)
		thread, accounted, hosts = processTime()-thread, a.Usage().CPU-accounted, n.cpu.Host().CPU-hosts
		fmt.Printf("%-16s %-28s threads %8.1f ms, guest charged %.2f %%, and with what Go did on its threads %.2f %%\n", m, k.name,
			1e3*thread.Seconds(), 100*accounted.Seconds()/thread.Seconds(), 100*(accounted+hosts).Seconds()/thread.Seconds())
		if err := n.close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crowd measures how prompt the process is beside many throttled guests.
func crowd(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	n, err := openNode(ctx, m)
	if err != nil {
		return err
	}
	defer n.close(ctx)
	if n.cpu.Mechanism() != m {
		return nil
	}
	const guests = 200
	var accounts []*account
	for range guests {
		_, a, err := n.start(ctx, spin, 5, nil) // which is 10m: the least quota is 1 ms
		if err != nil {
			return err
		}
		accounts = append(accounts, a)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	time.Sleep(time.Second) // for all to run
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
		for end := time.Now().Add(length); time.Now().Before(end); {
			began := time.Now()
			if err := c.f(); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		fmt.Printf("%-16s %-28s p50 %v p99 %v max %v (%d)\n", m, fmt.Sprintf("%s beside %d throttled", c.name, guests), percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1), len(took))
	}
	throttled := 0
	for _, a := range accounts {
		if a.Usage().Throttled.Throttled > 0 {
			throttled++
		}
	}
	fmt.Printf("%-16s %d of %d were throttled\n", m, throttled, guests)
	return nil
}

// hostCalls is what an account costs a host call.
func hostCalls(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	const rounds = 7
	var with, without []float64
	for range rounds {
		for _, milli := range []int64{-1, 0} {
			n, err := openNode(ctx, m)
			if err != nil {
				return err
			}
			if n.cpu.Mechanism() != m {
				return n.close(ctx)
			}
			count := 0
			i, _, err := n.start(ctx, calls, milli, func(context.Context) { count++ })
			if err != nil {
				return err
			}
			time.Sleep(length / 20)
			i.Kill()
			<-i.Done()
			s := i.Stats()
			ns := float64(s.CPUTime) / float64(count)
			if milli < 0 {
				without = append(without, ns)
			} else {
				with = append(with, ns)
			}
			if err := n.close(ctx); err != nil {
				return err
			}
		}
	}
	slices.Sort(with)
	slices.Sort(without)
	fmt.Printf("%-16s a host call %.1f ns without an account, %+.1f ns with one\n", m, without[rounds/2], with[rounds/2]-without[rounds/2])
	return nil
}

// switches is what an account costs two guests that do nothing but wake each
// other: of a round trip, which is two switches.
func switches(m bpf.Mechanism, length time.Duration) error {
	ctx := context.Background()
	const rounds = 9
	var results [2][]float64
	for range rounds {
		for k, milli := range []int64{-1, 0} {
			n, err := openNode(ctx, m)
			if err != nil {
				return err
			}
			if n.cpu.Mechanism() != m {
				return n.close(ctx)
			}
			var full [2]atomic.Bool
			var parked [2]atomic.Value // wasm.Parking
			var trips int
			side := func(me int) func(context.Context) {
				return func(ctx context.Context) {
					p := ctx.(wasm.Parking)
					parked[me].CompareAndSwap(nil, p)
					for !full[me].CompareAndSwap(true, false) {
						p.Park()
					}
					if me == 0 {
						trips++
					}
					full[1-me].Store(true)
					if other, ok := parked[1-me].Load().(wasm.Parking); ok {
						other.Unpark()
					}
				}
			}
			full[0].Store(true)
			for me := range 2 {
				if _, _, err := n.start(ctx, calls, milli, side(me)); err != nil {
					return err
				}
			}
			time.Sleep(length / 20)
			if err := n.close(ctx); err != nil {
				return err
			}
			results[k] = append(results[k], float64(length/20)/float64(trips))
		}
	}
	slices.Sort(results[0])
	slices.Sort(results[1])
	base, with := results[0][rounds/2], results[1][rounds/2]
	fmt.Printf("%-16s two guests wake each other: %.0f ns a round trip without accounts, %.0f ns with, %+.1f %%\n", m, base, with, 100*(with/base-1))
	return nil
}
