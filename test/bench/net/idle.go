package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// idleSockets is how many idle sockets a container has, and idleGoal how many
// bytes one may cost.
const (
	idleSockets = 10_000
	idleGoal    = 8 << 10
)

// idleKinds are pods whose containers hold sockets: arguments of idle/idle.c.
var idleKinds = []struct {
	name       string
	containers []string
}{
	{"connections, both ends", []string{"serve 7000 %d", "connect 7000 %d"}},
	{"listeners", []string{"listen 7000 %d"}},
}

// measureIdle measures what idle sockets cost: how much more memory the whole
// process has with them than the same pod has without.
func measureIdle(ctx context.Context, dir string) error {
	module := filepath.Join(dir, "idle.wasm")
	source := filepath.Join(filepath.Dir(*guests), "test", "bench", "net", "idle", "idle.c")
	err := command(ctx, nil, "clang", "--target=wasm32-wasi", "-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-Wl,--strip-all", "-o", module, source)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%d idle sockets of guests, bytes each\tmedian\tlowest\thighest\tgoal\t\n", idleSockets)
	for _, kind := range idleKinds {
		var each []int64
		for range *rounds {
			without, err := idlePod(ctx, dir, module, kind.containers, 0)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			with, err := idlePod(ctx, dir, module, kind.containers, idleSockets)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			each = append(each, (with-without)/idleSockets)
		}
		slices.Sort(each)
		median, mark := each[len(each)/2], ""
		if median > idleGoal {
			mark = "missed"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\n", kind.name, median, each[0], each[len(each)-1], idleGoal, mark)
	}
	return t.Flush()
}

// idlePod runs a pod with n sockets until all of its containers are idle, and
// returns the resident memory of the process then, in bytes.
func idlePod(ctx context.Context, dir, module string, containers []string, n int) (_ int64, err error) {
	var pod strings.Builder
	pod.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: idle}\nspec:\n  restartPolicy: Never\n  containers:\n")
	for i, args := range containers {
		args = fmt.Sprintf(args, n)
		fmt.Fprintf(&pod, "  - {name: c%d, image: %q, imagePullPolicy: IfNotPresent, args: [%s]}\n", i, module, quoted(strings.Fields(args)))
	}
	file := filepath.Join(dir, "idle.yaml")
	if err := os.WriteFile(file, []byte(pod.String()), 0o644); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, *wasmpod, "run", "--data-dir", filepath.Join(dir, "data"), "--log-prefix", "never", "--timeout", "2m", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		// It does not exit with 0 when it is told to end.
		_ = cmd.Process.Signal(syscall.SIGINT)
		var exit *exec.ExitError
		if e := cmd.Wait(); e != nil && !errors.As(e, &exit) {
			err = errors.Join(err, e)
		}
	}()
	lines := bufio.NewReader(out)
	for range containers {
		if line, err := lines.ReadString('\n'); line != "idle\n" {
			_, _ = io.Copy(os.Stderr, lines)
			return 0, fmt.Errorf("a guest says %q, %w", line, err)
		}
	}
	time.Sleep(time.Second) // what was needed to open them may go
	return residentMemory(cmd.Process.Pid)
}

func residentMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(status), "\nVmRSS:")
	var kilobytes int64
	if _, err := fmt.Sscan(rest, &kilobytes); !found || err != nil {
		return 0, fmt.Errorf("no VmRSS: %w", err)
	}
	return kilobytes << 10, nil
}
