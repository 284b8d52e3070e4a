package runtime

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// ticksPerSecond is the unit of /proc/stat: USER_HZ, 100 on every architecture.
const ticksPerSecond = 100

// machineCPU is the CPU time that all processors of the machine have spent at
// work since it started.
func machineCPU() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var ticks int64
	for i, f := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal guest guest_nice: guest
		// time is in user and nice already.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond)
}

// machineMemory reads /proc/meminfo, in bytes. The working set is what is not
// available, as with a kubelet: what the kernel could take back does not count.
func machineMemory() metrics.NodeMemory {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return metrics.NodeMemory{Capacity: totalMemory()}
	}
	value := func(name string) int64 {
		_, rest, ok := bytes.Cut(b, []byte(name+":"))
		if !ok {
			return 0
		}
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		f := bytes.Fields(line)
		if len(f) == 0 {
			return 0
		}
		n, err := strconv.ParseInt(string(f[0]), 10, 64)
		if err != nil {
			return 0
		}
		return n << 10
	}
	m := metrics.NodeMemory{Capacity: value("MemTotal"), Available: value("MemAvailable")}
	m.WorkingSet = m.Capacity - m.Available
	return m
}

// processUsage is what this process takes.
func processUsage() (p metrics.Process) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		p.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(b); len(f) > 1 {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64)
			p.MemoryBytes = n * int64(syscall.Getpagesize())
		}
	}
	return p
}
