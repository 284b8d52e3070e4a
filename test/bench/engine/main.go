// Command engine measures what safepoints cost: each program runs on stock
// wazero, rewritten with safepoints, and, for contrast, on stock wazero with
// WithCloseOnContextDone, in turn within one process. It prints the median
// times and their ratios as a table. All three have wazero's own WASI host, so
// that the machine code alone makes the difference.
//
// Programs whose guest or toolchain is missing are left out, with the reason.
// With -check it exits 1 if a ratio exceeds its goal.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A goal bounds the ratios of a group of programs.
type goal struct{ mean, worst float64 }

var goals = map[string]goal{
	groupReal:  {mean: 1.10, worst: 1.20},
	groupTight: {mean: 1.25, worst: 1.60},
}

func main() {
	runs := flag.Int("runs", 7, "how often each program runs on each engine, at least 5")
	only := flag.String("only", "", "measure only programs whose name contains this")
	contrast := flag.Bool("contrast", true, "measure WithCloseOnContextDone too")
	check := flag.Bool("check", false, "exit 1 if a goal is missed")
	flag.Parse()
	met, err := measure(os.Stdout, max(*runs, 5), *only, *contrast)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
	if *check && !met {
		os.Exit(1)
	}
}

func measure(out *os.File, runs int, only string, contrast bool) (met bool, err error) {
	root, err := findRoot()
	if err != nil {
		return false, err
	}
	work, err := os.MkdirTemp("", "wasmpod-bench")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(work)
	ctx := context.Background()
	met = true
	for _, group := range []string{groupReal, groupTight} {
		fmt.Fprintf(out, "%s, median of %d\n", group, runs)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "program\tstock\tsafepoints\tratio\tclose on done\tratio\tbudgets\t")
		var ratios, contrasts []float64
		for _, p := range programs(root, work) {
			if p.group != group || !strings.Contains(p.name, only) {
				continue
			}
			t, err := p.measure(ctx, runs, contrast)
			if err != nil {
				fmt.Fprintf(table, "%s\tskipped: %v\n", p.name, err)
				continue
			}
			fmt.Fprintf(table, "%s\t%v\t%v\t%.2f\t", p.name, round(t.stock), round(t.safepoints), t.safepointsRatio)
			if contrast {
				fmt.Fprintf(table, "%v\t%.1f\t", round(t.closing), t.closingRatio)
				contrasts = append(contrasts, t.closingRatio)
			} else {
				fmt.Fprint(table, "-\t-\t")
			}
			fmt.Fprintf(table, "%d\t\n", t.budgets)
			ratios = append(ratios, t.safepointsRatio)
		}
		if err := table.Flush(); err != nil {
			return false, err
		}
		if len(ratios) == 0 {
			continue
		}
		g := goals[group]
		mean, worst := geometricMean(ratios), slices.Max(ratios)
		fmt.Fprintf(out, "geometric mean %.3f (goal %.2f), worst %.2f (goal %.2f)", mean, g.mean, worst, g.worst)
		if contrast {
			fmt.Fprintf(out, "; close on done: mean %.1f, worst %.1f", geometricMean(contrasts), slices.Max(contrasts))
		}
		fmt.Fprint(out, "\n\n")
		met = met && mean <= g.mean && worst <= g.worst
	}
	return met, nil
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func geometricMean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// findRoot returns the directory of the repository: the one with go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "wasm-examples", "build.sh")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("run it within the repository: no directory above has wasm-examples/build.sh")
		}
		dir = parent
	}
}
