package podtest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/podtest"
	"github.com/wasmpod/wasmpod/test/wasmtest"
)

var (
	benchPods = flag.Int("podtest.probes", 0, "have so many pods probed, for make bench-probes")
	benchTime = flag.Duration("podtest.time", 20*time.Second, "for how long")
)

type probeOf struct {
	pod  string
	kind probes.Kind
}

// TestBenchProbes prints how late probes are when each of many pods has an http
// readiness and an exec liveness probe every second.
func TestBenchProbes(t *testing.T) {
	if *benchPods == 0 {
		t.Skip("a measurement, not a test: make bench-probes")
	}
	source, err := os.ReadFile("../../wasm-examples/httpecho-c/httpecho.c")
	if err != nil {
		t.Fatal(err)
	}
	include, _ := filepath.Abs("../../wasm-examples/httpecho-c")
	var manifest strings.Builder
	for i := range *benchPods {
		fmt.Fprintf(&manifest, `---
apiVersion: v1
kind: Pod
metadata: {name: p%d}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: app:1
    args: [serve, "8080"]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
    livenessProbe: {exec: {command: [/app.wasm]}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1000}
`, i)
	}
	var mu sync.Mutex
	began := make(map[probeOf][]time.Time)
	pods := podtest.Run(t, manifest.String(),
		podtest.Image("app:1", wasmtest.BuildC(t, string(source), "-D_GNU_SOURCE", "-I"+include)),
		podtest.Patience(2*time.Minute),
		podtest.OnProgress(func(pod *corev1.Pod, f lifecycle.Fact) {
			if f, ok := f.(lifecycle.ProbeFinished); ok {
				mu.Lock()
				defer mu.Unlock()
				k := probeOf{pod.Name, f.Kind}
				began[k] = append(began[k], f.Began)
			}
		}))
	start := time.Now()
	for _, p := range pods.All() {
		p.WaitReady()
	}
	fmt.Printf("%d pods ready after %v\n", *benchPods, time.Since(start).Round(time.Millisecond))
	time.Sleep(3 * time.Second) // what had to catch up has
	mu.Lock()
	clear(began)
	mu.Unlock()
	before := cpuTime()
	time.Sleep(*benchTime)
	used := cpuTime() - before
	var late []time.Duration
	mu.Lock()
	for _, times := range began {
		late = append(late, lateness(times)...)
	}
	mu.Unlock()
	if len(late) == 0 {
		t.Fatal("no probe has run")
	}
	slices.Sort(late)
	at := func(p float64) time.Duration {
		return late[int(float64(len(late)-1)*p)].Round(10 * time.Microsecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Printf("%d probes in %v: late by p50 %v, p99 %v, max %v; CPU %.2f of %d, RSS %d MiB, heap %d MiB\n",
		len(late), *benchTime, at(.5), at(.99), at(1), used.Seconds()/benchTime.Seconds(), runtime.GOMAXPROCS(0), rss(), m.HeapAlloc>>20)
}

// lateness compares the attempts of one probe with a tick a second, the one among
// them that was least late being on time.
func lateness(times []time.Time) []time.Duration {
	if len(times) == 0 {
		return nil
	}
	late := make([]time.Duration, len(times))
	for i, at := range times {
		d := at.Sub(times[0])
		late[i] = d - d.Round(time.Second)
	}
	first := slices.Min(late)
	for i := range late {
		late[i] -= first
	}
	return late
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the resident memory in MiB; 0 where there is no /proc.
func rss() (mib int64) {
	b, _ := os.ReadFile("/proc/self/statm")
	var size, resident int64
	fmt.Sscan(string(b), &size, &resident)
	return resident * int64(os.Getpagesize()) >> 20
}
