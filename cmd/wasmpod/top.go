package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wasmpod/wasmpod/runtime"
)

type topOptions struct {
	once      bool
	interval  time.Duration
	namespace string
	sort      string
	output    string
}

// topRow is one running container. Rates are over the last interval.
type topRow struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"`
	Restarts  int32  `json:"restarts"`
	// In thousandths of a core.
	CPUMilli      int64   `json:"cpuMilli"`
	CPULimitMilli int64   `json:"cpuLimitMilli,omitempty"`
	CPUSeconds    float64 `json:"cpuSeconds"`
	// ThrottledPercent is of the periods since the last sample, or of all.
	ThrottledPercent float64 `json:"throttledPercent"`
	WaitPercent      float64 `json:"waitPercent"` // of the time, ready to run while others ran
	MemoryBytes      int64   `json:"memoryBytes"`
	MemoryLimit      int64   `json:"memoryLimitBytes,omitempty"`
	FuelPerSecond    float64 `json:"fuelPerSecond"`
	// Of the pod.
	RxBytesPerSecond float64 `json:"rxBytesPerSecond"`
	TxBytesPerSecond float64 `json:"txBytesPerSecond"`
}

func newTopCommand(a *app) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the containers of running pods consume",
		Long: `Top shows each running container of every 'wasmpod run' with the same data
directory: CPU in thousandths of a core, the share of enforcement periods in which
it was throttled, memory against its limit, work done (fuel, in units of about 64
bytes of code executed), the pod's network traffic, and restarts.`,
		Example: `  wasmpod top
  wasmpod top --once -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.top(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.once, "once", false, "print one table and end")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "how often to look; rates are over this time")
	f.StringVarP(&o.namespace, "namespace", "n", "", "only pods of this namespace")
	f.StringVar(&o.sort, "sort", "cpu", "order: cpu, memory, fuel or name")
	outputFlag(cmd, &o.output)
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"cpu", "memory", "fuel", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) top(ctx context.Context, o topOptions) error {
	if !slices.Contains([]string{"cpu", "memory", "fuel", "name"}, o.sort) {
		return &exitError{exitInvalid, fmt.Errorf("--sort: %q is none of cpu, memory, fuel, name", o.sort)}
	}
	if o.interval < 100*time.Millisecond {
		return &exitError{exitInvalid, fmt.Errorf("--interval: %v is less than 100ms", o.interval)}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, _ := a.stdout.(*os.File)
	live := !o.once && o.output == "" && out != nil && term.IsTerminal(int(out.Fd()))
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	before, err := runtime.Running(ctx, a.config.DataDir)
	if err != nil {
		return err
	}
	if len(before) == 0 && (o.once || !live) {
		return errors.New("no pods run with the data directory " + a.config.DataDir)
	}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now, err := runtime.Running(ctx, a.config.DataDir)
		if err != nil {
			return err
		}
		rows := topRows(before, now, o)
		var text bytes.Buffer
		if o.output != "" {
			if err := a.print(o.output, rows, nil); err != nil {
				return err
			}
		} else {
			writeTop(&text, now, rows)
		}
		switch {
		case live:
			err = repaint(out, text.String())
		default:
			_, err = a.stdout.Write(text.Bytes())
		}
		if err != nil || o.once || !live && len(now) == 0 {
			return err
		}
		before = now
	}
}

// topRows are the containers that run now, with what has changed since before.
func topRows(before, now []runtime.Snapshot, o topOptions) []topRow {
	type counters struct {
		at                    time.Time
		cpu, wait             time.Duration
		periods, throttled    int64
		fuel, received, wrote uint64
	}
	old := make(map[string]counters)
	each(before, func(s *runtime.Snapshot, p *runtime.PodUsage, c *runtime.ContainerUsage) {
		k := counters{s.Time, c.CPU, c.Wait, c.Throttle.Periods, c.Throttle.Throttled, c.Fuel, 0, 0}
		if p.Network != nil {
			k.received, k.wrote = p.Network.RxBytes, p.Network.TxBytes
		}
		old[c.ID] = k
	})
	rows := []topRow{}
	each(now, func(s *runtime.Snapshot, p *runtime.PodUsage, c *runtime.ContainerUsage) {
		if o.namespace != "" && p.Namespace != o.namespace {
			return
		}
		row := topRow{
			Namespace: p.Namespace, Pod: p.Name, Container: c.Name,
			CPULimitMilli: c.CPUMilli, CPUSeconds: c.CPU.Seconds(), MemoryBytes: c.Memory, MemoryLimit: c.MemoryLimit,
		}
		for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if status.Name == c.Name {
				row.Restarts = status.RestartCount
			}
		}
		k, known := old[c.ID]
		if !known {
			k = counters{at: c.Started}
		}
		if passed := s.Time.Sub(k.at).Seconds(); passed > 0 {
			row.CPUMilli = int64((c.CPU - k.cpu).Seconds() / passed * 1000)
			row.WaitPercent = (c.Wait - k.wait).Seconds() / passed * 100
			row.FuelPerSecond = float64(c.Fuel-k.fuel) / passed
			if p.Network != nil && known {
				row.RxBytesPerSecond = float64(p.Network.RxBytes-k.received) / passed
				row.TxBytesPerSecond = float64(p.Network.TxBytes-k.wrote) / passed
			}
		}
		if periods := c.Throttle.Periods - k.periods; periods > 0 {
			row.ThrottledPercent = min(100, float64(c.Throttle.Throttled-k.throttled)/float64(periods)*100)
		}
		rows = append(rows, row)
	})
	slices.SortStableFunc(rows, func(a, b topRow) int {
		name := cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
		switch o.sort {
		case "cpu":
			return cmp.Or(cmp.Compare(b.CPUMilli, a.CPUMilli), name)
		case "memory":
			return cmp.Or(cmp.Compare(b.MemoryBytes, a.MemoryBytes), name)
		case "fuel":
			return cmp.Or(cmp.Compare(b.FuelPerSecond, a.FuelPerSecond), name)
		}
		return name
	})
	return rows
}

func each(list []runtime.Snapshot, f func(*runtime.Snapshot, *runtime.PodUsage, *runtime.ContainerUsage)) {
	for i := range list {
		for j := range list[i].Pods {
			p := &list[i].Pods[j]
			for k := range p.Containers {
				f(&list[i], p, &p.Containers[k])
			}
		}
	}
}

func writeTop(w io.Writer, list []runtime.Snapshot, rows []topRow) {
	pods := 0
	for i := range list {
		for j := range list[i].Pods {
			if len(list[i].Pods[j].Containers) > 0 {
				pods++
			}
		}
	}
	var milli, memory int64
	for _, r := range rows {
		milli += r.CPUMilli
		memory += r.MemoryBytes
	}
	fmt.Fprintf(w, "%d pods, %d containers: %dm CPU, %s memory\n", pods, len(rows), milli, binary(memory))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAMESPACE\tPOD\tCONTAINER\tCPU\tTHROTTLED\tMEMORY\tFUEL/S\tRX/S\tTX/S\tRESTARTS")
	for _, r := range rows {
		cpu, used, throttled := fmt.Sprintf("%dm", r.CPUMilli), binary(r.MemoryBytes), "-"
		if r.CPULimitMilli > 0 {
			cpu += fmt.Sprintf("/%dm", r.CPULimitMilli)
			throttled = fmt.Sprintf("%.0f%%", r.ThrottledPercent)
		}
		if r.MemoryLimit > 0 {
			used += "/" + binary(r.MemoryLimit)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.Namespace, r.Pod, r.Container, cpu, throttled, used,
			decimal(r.FuelPerSecond), decimal(r.RxBytesPerSecond), decimal(r.TxBytesPerSecond), r.Restarts)
	}
	t.Flush()
}

// repaint shows text from the top of the terminal, as much as fits.
func repaint(out *os.File, text string) error {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range lines[:min(len(lines), max(height-1, 1))] {
		r := []rune(line)
		b.WriteString(string(r[:min(len(r), width)]) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, err = io.WriteString(out, b.String())
	return err
}

func binary(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "Gi"}, {1 << 20, "Mi"}, {1 << 10, "Ki"}} {
		if n >= u.size {
			return fmt.Sprintf("%.4g%s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprint(n)
}

func decimal(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return fmt.Sprintf("%.3g%s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.0f", v)
}
