// Command latency measures how responsive a process stays that is full of busy
// guests: garbage collection, timers, HTTP probes, kills; how fairly guests share
// a processor; and what starting and keeping an instance costs.
//
//	go run ./test/bench/latency [-slots n] [-procs n] [-for 3s] [-instances 10000]
//
// Machines are noisy: compare figures of one run with one another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

var (
	slots     = flag.Int("slots", 0, "guests that execute at a time; 0: the engine's default")
	procs     = flag.Int("procs", 2, "GOMAXPROCS")
	spinners  = flag.Int("spinners", 8, "guests that spin meanwhile")
	period    = flag.Duration("for", 3*time.Second, "how long each latency is measured")
	instances = flag.Int("instances", 10_000, "idle instances")
	only      = flag.String("only", "", "measure only this: responsiveness, fairness, starting, idle")
)

func main() {
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "latency:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	fmt.Printf("%s/%s, %d processors, GOMAXPROCS %d, %s\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *procs, runtime.Version())
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{{"responsiveness", responsiveness}, {"fairness", fairness}, {"starting", starting}, {"idle", idle}} {
		if *only == "" || *only == part.name {
			if err := part.measure(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// bench is an engine with the guests of one measurement.
type bench struct {
	*wasm.Engine
	modules []*wasm.Module
}

func open(ctx context.Context, slots int) (*bench, error) {
	e, err := wasm.New(ctx, wasm.Config{Slots: slots, Hosts: []wasm.HostModule{wasip1.Instantiate}, ImportName: wasip1.ImportName})
	if err != nil {
		return nil, err
	}
	return &bench{Engine: e}, nil
}

func (b *bench) close(ctx context.Context) error {
	err := b.Close(ctx)
	for _, m := range b.modules {
		m.Release()
	}
	return err
}

func (b *bench) compile(ctx context.Context, name string, module []byte) (*wasm.Module, error) {
	m, err := b.Compile(ctx, name, func() ([]byte, error) { return module, nil })
	if err == nil {
		b.modules = append(b.modules, m)
	}
	return m, err
}

func (b *bench) start(ctx context.Context, m *wasm.Module, shares int64) (*wasm.Instance, error) {
	return b.Start(ctx, m, wasm.InstanceConfig{CPUShares: shares})
}

// sample is one figure, taken many times.
type sample []time.Duration

func (s sample) print(name string) {
	slices.Sort(s)
	at := func(p float64) time.Duration { return s[min(len(s)-1, int(p*float64(len(s))))].Round(time.Microsecond) }
	fmt.Printf("%-34s %6d × %10v %10v %10v %10v\n", name, len(s), at(0.5), at(0.9), at(0.99), s[len(s)-1].Round(time.Microsecond))
}

func repeat(f func() (time.Duration, error)) (sample, error) {
	var s sample
	for end := time.Now().Add(*period); time.Now().Before(end); {
		d, err := f()
		if err != nil {
			return nil, err
		}
		s = append(s, d)
	}
	return s, nil
}

func responsiveness(ctx context.Context) error {
	fmt.Printf("%-34s %8s %10s %10s %10s %10s\n", "latency", "", "p50", "p90", "p99", "max")
	for _, n := range []int{0, *spinners} {
		for name, module := range map[string][]byte{"": spin, " (memory)": spinMemory} {
			if n == 0 && name != "" {
				continue
			}
			if err := responsivenessWith(ctx, n, fmt.Sprintf(", %d spinning%s", n, name), module); err != nil {
				return err
			}
		}
	}
	return nil
}

func responsivenessWith(ctx context.Context, n int, suffix string, module []byte) error {
	b, err := open(ctx, *slots)
	if err != nil {
		return err
	}
	defer b.close(ctx)
	m, err := b.compile(ctx, "spin", module)
	if err != nil {
		return err
	}
	guests := make([]*wasm.Instance, n)
	for i := range guests {
		if guests[i], err = b.start(ctx, m, 0); err != nil {
			return err
		}
	}
	server, err := serve()
	if err != nil {
		return err
	}
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	kills := 0
	for _, c := range []struct {
		name string
		f    func() (time.Duration, error)
	}{
		{"runtime.GC()", func() (time.Duration, error) {
			began := time.Now()
			runtime.GC()
			return time.Since(began), nil
		}},
		{"1 ms timer, lateness", func() (time.Duration, error) {
			began := time.Now()
			<-time.After(time.Millisecond)
			return time.Since(began) - time.Millisecond, nil
		}},
		{"HTTP probe", func() (time.Duration, error) {
			began := time.Now()
			r, err := client.Get("http://" + server.Addr)
			if err != nil {
				return 0, err
			}
			defer r.Body.Close()
			_, err = io.Copy(io.Discard, r.Body)
			return time.Since(began), err
		}},
		{"kill to exit", func() (time.Duration, error) {
			if n == 0 {
				return 0, errSkip
			}
			i := kills % n
			kills++
			began := time.Now()
			guests[i].Kill()
			<-guests[i].Done()
			d := time.Since(began)
			guests[i], err = b.start(ctx, m, 0)
			time.Sleep(5 * time.Millisecond) // for it to spin
			return d, err
		}},
	} {
		s, err := repeat(c.f)
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		s.print(c.name + suffix)
	}
	safepoints := uint64(0)
	for _, g := range guests {
		safepoints += g.Stats().Safepoints
	}
	if n > 0 {
		fmt.Printf("safepoints of those still running: %d\n", safepoints)
	}
	return nil
}

var errSkip = errors.New("skip")

func serve() (*http.Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Addr: l.Addr().String(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	})}
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// fairness lets guests compete for fewer slots than they are.
func fairness(ctx context.Context) error {
	fmt.Printf("\n%-34s %10s %10s %8s\n", "5 s of spinning, cpu requests", "CPU time", "work", "of 100m's")
	for _, c := range []struct {
		slots  int
		shares []int64
	}{
		{1, []int64{102, 307}},
		{2, []int64{102, 307, 102, 307}},
	} {
		b, err := open(ctx, c.slots)
		if err != nil {
			return err
		}
		m, err := b.compile(ctx, "spin", spin)
		if err != nil {
			return errors.Join(err, b.close(ctx))
		}
		var guests []*wasm.Instance
		for _, s := range c.shares {
			g, err := b.start(ctx, m, s)
			if err != nil {
				return errors.Join(err, b.close(ctx))
			}
			guests = append(guests, g)
		}
		time.Sleep(5 * time.Second)
		var stats []wasm.Stats
		for _, g := range guests {
			stats = append(stats, g.Stats())
		}
		for i, s := range stats {
			fmt.Printf("%-34s %10v %10d %8.3f\n", fmt.Sprintf("%dm, %d guests on %d slots", (c.shares[i]*1000+512)/1024, len(guests), c.slots),
				s.CPUTime.Round(time.Millisecond), s.Safepoints, float64(s.Safepoints)/float64(stats[0].Safepoints))
		}
		if err := b.close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// clock is a source of random numbers that notes when it was first asked.
type clock struct{ asked time.Time }

func (c *clock) Read(p []byte) (int, error) {
	if c.asked.IsZero() {
		c.asked = time.Now()
	}
	return len(p), nil
}

func starting(ctx context.Context) error {
	b, err := open(ctx, *slots)
	if err != nil {
		return err
	}
	defer b.close(ctx)
	m, err := b.compile(ctx, "random", random)
	if err != nil {
		return err
	}
	fmt.Println()
	var first, exit sample
	for range 5000 {
		c := &clock{}
		p, err := wasip1.NewProcess(wasip1.ProcessConfig{Rand: c})
		if err != nil {
			return err
		}
		began := time.Now()
		i, err := b.Start(ctx, m, wasm.InstanceConfig{Context: func(ctx context.Context) context.Context { return wasip1.WithProcess(ctx, p) }})
		if err != nil {
			return err
		}
		<-i.Done()
		exit = append(exit, time.Since(began))
		first = append(first, c.asked.Sub(began))
		if err := p.Close(); err != nil {
			return err
		}
	}
	first.print("start to first host call")
	exit.print("start to exit")
	return nil
}

// idle keeps many instances that sleep. Each has touched one page, 4 KiB, of its
// linear memory.
func idle(ctx context.Context) error {
	b, err := open(ctx, *slots)
	if err != nil {
		return err
	}
	m, err := b.compile(ctx, "sleep", sleep)
	if err != nil {
		return errors.Join(err, b.close(ctx))
	}
	guests := make([]*wasm.Instance, 0, *instances)
	processes := make([]*wasip1.Process, *instances)
	for i := range processes {
		if processes[i], err = wasip1.NewProcess(wasip1.ProcessConfig{}); err != nil {
			return err
		}
	}
	debug.FreeOSMemory()
	before, err := privateBytes()
	if err != nil {
		fmt.Printf("\nmemory of idle instances: not measured: %v\n", err)
		return b.close(ctx)
	}
	var heapBefore, heapDuring runtime.MemStats
	runtime.ReadMemStats(&heapBefore)
	began := time.Now()
	for i := range *instances {
		p := processes[i]
		g, err := b.Start(ctx, m, wasm.InstanceConfig{MemoryLimit: 1 << 20, Context: func(ctx context.Context) context.Context { return wasip1.WithProcess(ctx, p) }})
		if err != nil {
			return errors.Join(err, b.close(ctx))
		}
		guests = append(guests, g)
	}
	for _, g := range guests {
		for g.Stats().CPUTime == 0 { // until it sleeps
			time.Sleep(time.Millisecond)
		}
	}
	took := time.Since(began)
	// Who sleeps for long is put aside and has no goroutine, where that is possible.
	for wait := time.Now(); runtime.NumGoroutine() > 100 && time.Since(wait) < 10*time.Second; {
		time.Sleep(100 * time.Millisecond)
	}
	debug.FreeOSMemory()
	during, _ := privateBytes()
	runtime.ReadMemStats(&heapDuring)
	if err := b.close(ctx); err != nil {
		return err
	}
	guests = nil
	debug.FreeOSMemory()
	after, _ := privateBytes()
	fmt.Printf("\nof an idle instance: %d bytes of heap in %d objects, %d bytes of goroutine stack\n",
		int64(heapDuring.HeapAlloc-heapBefore.HeapAlloc)/int64(*instances), int64(heapDuring.HeapObjects-heapBefore.HeapObjects)/int64(*instances),
		int64(heapDuring.StackInuse-heapBefore.StackInuse)/int64(*instances))
	per := (during - before) / int64(*instances)
	fmt.Printf("%d idle instances, started in %v: %d bytes of private memory each, %d beyond the touched page; %d bytes each left after their end\n",
		*instances, took.Round(time.Millisecond), per, per-4096, (after-before)/int64(*instances))
	return nil
}

// privateBytes is the process's memory that it shares with nobody.
func privateBytes() (int64, error) {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for line := range strings.Lines(string(b)) {
		var kib int64
		if strings.HasPrefix(line, "Private_") {
			if _, err := fmt.Sscanf(line[strings.IndexByte(line, ':')+1:], "%d kB", &kib); err != nil {
				return 0, err
			}
			sum += kib << 10
		}
	}
	return sum, nil
}
