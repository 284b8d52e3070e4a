//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// binary is where make build puts it.
const binary = "bin/wasmpod"

// resource compares what /metrics/resource says of a pod's CPU time, as `kubectl
// top` has it, with what /proc says of the threads of the process that runs it.
func resource(length time.Duration) error {
	if _, err := os.Stat(binary); err != nil {
		fmt.Printf("/metrics/resource skipped: no %s, which make build makes\n", binary)
		return nil
	}
	for _, cpu := range []string{"", "500m"} {
		if err := resourceAt(cpu, length); err != nil {
			return err
		}
	}
	return nil
}

func resourceAt(cpu string, length time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "wasmpod-limits")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	limits := ""
	if cpu != "" {
		limits = "\n    resources: {limits: {cpu: " + cpu + "}}"
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: spin}\nspec:\n  containers:\n  - name: main\n    image: ./spin.wasm" + limits + "\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "spin.wasm"), spin, 0o644), os.WriteFile(filepath.Join(dir, "pod.yaml"), []byte(pod), 0o644)); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	l.Close()
	self, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "run", "--data-dir", filepath.Join(dir, "data"), "--metrics-listen", address, "pod.yaml")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(unix.SIGKILL))
		_ = cmd.Wait() // that it was killed
	}()
	const metric = `container_cpu_usage_seconds_total{container="main",`
	var began float64
	for began < 2 { // the programs have been loaded by then
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("no %s: %w", metric, err)
		}
		time.Sleep(50 * time.Millisecond)
		began, _ = scrape(address, metric)
		if cpu != "" {
			began *= 3
		}
	}
	read := func() (guest, threads float64, err error) {
		guest, err = scrape(address, metric)
		return guest, tasksOf(cmd.Process.Pid).Seconds(), err
	}
	guest, threads, err := read()
	if err != nil {
		return err
	}
	time.Sleep(length)
	guest2, threads2, err := read()
	if err != nil {
		return err
	}
	guest, threads = guest2-guest, threads2-threads
	what := "a container that spins"
	if cpu != "" {
		what += " at " + cpu
	}
	fmt.Printf("/metrics/resource %s: %.3f s, /proc of all threads of the process %.3f s: %+.2f %%\n", what, guest, threads, 100*(guest/threads-1))
	return nil
}

// scrape returns the value of a line of /metrics/resource that begins so.
func scrape(address, prefix string) (float64, error) {
	r, err := http.Get("http://" + address + "/metrics/resource")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, prefix) {
			_, rest, _ := strings.Cut(line, "} ")
			value, _, _ := strings.Cut(rest, " ")
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", address, prefix)
}
