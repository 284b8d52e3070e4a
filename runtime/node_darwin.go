package runtime

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// machineCPU is not known here.
func machineCPU() time.Duration { return 0 }

func machineMemory() metrics.NodeMemory { return metrics.NodeMemory{Capacity: totalMemory()} }

func processUsage() (p metrics.Process) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		p.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
		p.MemoryBytes = r.Maxrss // the most so far: there is no other figure
	}
	return p
}
