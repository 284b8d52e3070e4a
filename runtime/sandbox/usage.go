package sandbox

import (
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/runtime/container"
)

// Usage is what one attempt of a container has consumed, together with the
// commands that Exec has started in it, those that have ended included. Counters
// never fall.
type Usage struct {
	Started time.Time     // zero before it has
	CPU     time.Duration // on a processor, as the kernel counts it
	// Wait is how long guests were ready to run while other guests had the
	// processors and, where BPF counts it, other threads of the machine.
	Wait time.Duration
	// Throttle is what its CPU limit has done to it.
	Throttle cgroup.ThrottleStats
	// MinorFaults and MajorFaults are page faults; only where BPF counts them.
	MinorFaults, MajorFaults int64
	Fuel                     uint64 // see wasm.Stats
	Safepoints               uint64
	// MemoryBytes is charged now; MemoryPeak is the most that was.
	MemoryBytes, MemoryPeak int64
	Limits                  container.Limits // in force
	// FileBytes and Files are what it has made or changed of its root, in memory and on
	// disk; what the image has does not count. FileBytes is -1 when it has ended.
	FileBytes, Files int64
	LogBytes         int64
	Commands         int // of Exec, that run
}
