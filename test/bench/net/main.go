// Command net measures the network of a pod: two guests in two containers
// against the same two programs as native processes over the kernel's loopback,
// in turns within one run.
//
//	go run ./test/bench/net [-rounds 5] [-for 1s] [-wasmpod bin/wasmpod]
//
// It needs clang with wasi-libc for the guests and cc for the native programs.
// Machines are noisy: only the ratios mean something.
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

func (p pair) measure(ctx context.Context, dir string) error {
	guest, native, err := p.build(ctx, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	inPod, onHost := figures{rates: map[string][]float64{}}, figures{rates: map[string][]float64{}}
	for i := range *rounds {
		fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", p.name, i+1, *rounds)
		out, err := p.runPod(ctx, dir, guest)
		if err == nil {
			err = inPod.add(out)
		}
		if err != nil {
			return fmt.Errorf("%s in a pod: %w", p.name, err)
		}
		if out, err = p.runNative(ctx, native); err == nil {
			err = onHost.add(out)
		}
		if err != nil {
			return fmt.Errorf("%s on the host: %w", p.name, err)
		}
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s, per second\tguests\tnative\tratio\tlowest\thighest\tgoal\t\n", p.name)
	for _, name := range inPod.names {
		g, n := inPod.rates[name], onHost.rates[name]
		var ratios []float64
		for i := range min(len(g), len(n)) {
			ratios = append(ratios, g[i]/n[i])
		}
		goal, mark := "", ""
		if want, ok := p.goals[name]; ok {
			goal = fmt.Sprintf("%.1f", want)
			if median(ratios) < want {
				mark = "missed"
			}
		}
		fmt.Fprintf(t, "%s\t%.3g\t%.3g\t%.2f\t%.2f\t%.2f\t%s\t%s\n",
			name, median(g), median(n), median(ratios), slices.Min(ratios), slices.Max(ratios), goal, mark)
	}
	return t.Flush()
}

// The server's port, the same everywhere: no other pod sees it.
const port = "7311"

func (p pair) runNative(ctx context.Context, program string) (string, error) {
	server := exec.CommandContext(ctx, program, p.server(port)...)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return "", err
	}
	client := exec.CommandContext(ctx, program, p.client(port)...)
	client.Stderr = os.Stderr
	out, err := client.Output()
	if err != nil {
		_ = server.Process.Kill() // it waits for a client that has failed
	}
	return string(out), errors.Join(err, server.Wait())
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
	cmd := exec.CommandContext(ctx, *wasmpod, "run", "--data-dir", filepath.Join(dir, "data"), "--log-prefix", "never",
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
