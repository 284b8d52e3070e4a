// Command net measures the network of a pod: two guests in two containers
// against the same two programs as native processes over the kernel's loopback,
// in turns within one run. The native pair runs as it comes and pinned to one
// processor, which spares it the waking of another one; and all of it on the
// machine as it is and with processors that something of lowest priority keeps
// from sleeping, for what takes long to wake makes the kernel look bad.
//
//	go run ./test/bench/net [-rounds 5] [-for 1s] [-only C] [-wasmpod bin/wasmpod]
//
// It needs clang with wasi-libc for the guests and cc for the native programs.
// Machines are noisy: only the ratios mean something. A goal counts against the
// native pair as it comes.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var (
	rounds  = flag.Int("rounds", 5, "how often everything is measured; the median counts")
	period  = flag.Duration("for", time.Second, "how long each figure is measured")
	wasmpod = flag.String("wasmpod", "bin/wasmpod", "the binary to measure")
	only    = flag.String("only", "", "measure only this: a pair's name, or idle")
	guests  = flag.String("guests", "wasm-examples", "the folder of the guests' sources")
)

func main() {
	switch as := os.Getenv(become); as {
	case "":
	case "awake":
		compute()
	default:
		fmt.Fprintln(os.Stderr, "net:", pin(os.Args[1:]))
		os.Exit(1)
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "net:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-net")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var errs []error
	for _, p := range pairs {
		if *only == "" || *only == p.name {
			errs = append(errs, p.measure(ctx, dir))
		}
	}
	if *only == "" || *only == "idle" {
		errs = append(errs, measureIdle(ctx, dir))
	}
	return errors.Join(errs...)
}

// pair is a server and a client from one source that can be guests or native.
// The client prints lines of the form "what size rate" and ends the server.
type pair struct {
	name   string
	build  func(ctx context.Context, dir string) (guest, native string, err error)
	server func(port string) []string
	client func(port string) []string
	goals  map[string]float64 // by "what size": the ratio to reach
}

// figures are rates by what was measured, in the order of the client's lines.
type figures struct {
	names []string
	rates map[string][]float64
}

func (f *figures) add(output string) error {
	lines := bufio.NewScanner(strings.NewReader(output))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 {
			return fmt.Errorf("not a figure: %q", lines.Text())
		}
		rate, err := strconv.ParseFloat(words[2], 64)
		if err != nil {
			return err
		}
		name := words[0] + " " + words[1]
		if !slices.Contains(f.names, name) {
			f.names = append(f.names, name)
		}
		f.rates[name] = append(f.rates[name], rate)
	}
	return nil
}

func median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return s[len(s)/2]
}

// The ways in which the native pair runs.
const (
	asItComes = iota
	pinned
	ways
)

func (p pair) measure(ctx context.Context, dir string) error {
	guest, native, err := p.build(ctx, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s, per second\tmachine\tguests\tnative\tratio\tlowest\thighest\tone core\tratio\tgoal\t\t\n", p.name)
	for _, awake := range []bool{false, true} {
		err := p.mode(ctx, t, dir, guest, native, awake)
		if err != nil {
			return errors.Join(err, t.Flush())
		}
	}
	return t.Flush()
}

// mode measures everything on an idle machine or on one that is kept awake.
func (p pair) mode(ctx context.Context, t *tabwriter.Writer, dir, guest, native string, awake bool) error {
	machine := "idle"
	if awake {
		stop, err := keepAwake()
		if errors.Is(err, errors.ErrUnsupported) {
			fmt.Fprintln(os.Stderr, "the processors cannot be kept awake here")
			return nil
		}
		if err != nil {
			return err
		}
		defer stop()
		machine = "awake"
	}
	inPod := figures{rates: map[string][]float64{}}
	var onHost [ways]figures
	for way := range onHost {
		onHost[way].rates = map[string][]float64{}
	}
	for i := range *rounds {
		fmt.Fprintf(os.Stderr, "%s, %s: round %d of %d\n", p.name, machine, i+1, *rounds)
		out, err := p.runPod(ctx, dir, guest)
		if err == nil {
			err = inPod.add(out)
		}
		if err != nil {
			return fmt.Errorf("%s in a pod: %w", p.name, err)
		}
		for way := range onHost {
			out, err := p.runNative(ctx, native, way == pinned)
			if way == pinned && errors.Is(err, errors.ErrUnsupported) {
				continue
			}
			if err == nil {
				err = onHost[way].add(out)
			}
			if err != nil {
				return fmt.Errorf("%s on the host: %w", p.name, err)
			}
		}
	}
	for _, name := range inPod.names {
		g, free, one := inPod.rates[name], onHost[asItComes].rates[name], onHost[pinned].rates[name]
		r := ratios(g, free)
		row := []string{name, machine, rate(g), rate(free), fmt.Sprintf("%.2f", median(r)), fmt.Sprintf("%.2f", slices.Min(r)), fmt.Sprintf("%.2f", slices.Max(r)), "", "", "", ""}
		if len(one) > 0 {
			row[7], row[8] = rate(one), fmt.Sprintf("%.2f", median(ratios(g, one)))
		}
		if want, ok := p.goals[name]; ok {
			row[9], row[10] = fmt.Sprintf("%.1f", want), "met"
			if median(r) < want {
				row[10] = "missed"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	return nil
}

func rate(s []float64) string { return fmt.Sprintf("%.3g", median(s)) }

// ratios compares round by round.
func ratios(a, b []float64) (r []float64) {
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}

// The server's port, the same everywhere: no other pod sees it.
const port = "7311"

func (p pair) runNative(ctx context.Context, program string, onOneCore bool) (string, error) {
	server, err := nativeCommand(ctx, onOneCore, program, p.server(port)...)
	if err != nil {
		return "", err
	}
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return "", err
	}
	client, err := nativeCommand(ctx, onOneCore, program, p.client(port)...)
	if err != nil {
		return "", err
	}
	client.Stderr = os.Stderr
	out, err := client.Output()
	if err != nil {
		_ = server.Process.Kill() // it waits for a client that has failed
	}
	return string(out), errors.Join(err, server.Wait())
}

// nativeCommand is a command of the native pair. One that is to run on one core
// is started by this program, which confines itself to it and becomes the other.
func nativeCommand(ctx context.Context, onOneCore bool, program string, args ...string) (*exec.Cmd, error) {
	if !onOneCore {
		return exec.CommandContext(ctx, program, args...), nil
	}
	if !canPin {
		return nil, errors.ErrUnsupported
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), become+"=pinned")
	return cmd, nil
}

// become is the variable that makes this program another one.
const become = "BENCH_NET_BECOME"

// keepAwake starts a process for each processor that computes when nothing else
// wants to. stop ends them.
func keepAwake() (stop func(), err error) {
	if !canPin {
		return nil, errors.ErrUnsupported
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var running []*exec.Cmd
	stop = func() {
		for _, cmd := range running {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	for range runtime.NumCPU() {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), become+"=awake")
		if err := cmd.Start(); err != nil {
			stop()
			return nil, err
		}
		running = append(running, cmd)
	}
	return stop, nil
}

const manifest = `apiVersion: v1
kind: Pod
metadata:
  name: bench-net
spec:
  restartPolicy: Never
  containers:
  - {name: server, image: %[1]q, imagePullPolicy: IfNotPresent, args: [%[2]s]}
  - {name: client, image: %[1]q, imagePullPolicy: IfNotPresent, args: [%[3]s]}
`

func (p pair) runPod(ctx context.Context, dir, module string) (string, error) {
	file := filepath.Join(dir, "pod.yaml")
	pod := fmt.Sprintf(manifest, module, quoted(p.server(port)), quoted(p.client(port)))
	if err := os.WriteFile(file, []byte(pod), 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, *wasmpod, "run", "--data-dir", filepath.Join(dir, "data"), "--quiet", "--log-prefix", "never",
		"--timeout", (time.Minute + 20**period).String(), file)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return string(out), err
}

func quoted(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, strconv.Quote(w))
	}
	return strings.Join(q, ", ")
}
