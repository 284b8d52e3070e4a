package metrics

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/cgroup"
)

// Snapshot is what there is to see of a node at one moment. Counters only rise,
// for as long as what they belong to has the same ID.
type Snapshot struct {
	Time time.Time
	Node Node
	Pods []Pod
}

// Node is the machine, and the process that runs the pods. What this host does
// not tell is zero.
type Node struct {
	Name    string
	Started time.Time     // of this process
	CPU     time.Duration // of the machine, all cores
	CPUs    int
	Memory  NodeMemory
	FS      Filesystem // where the data directory lies
	Process Process
	Compile Compile
	// Wall is the group of the kernel that bounds this process; nil if none does.
	Wall *Wall
	// CPUResting says that the kernel's programs which measure CPU time are taken off for
	// the time being: what threads wait, and their faults, are not counted then.
	CPUResting bool
	// Mechanisms are by what is measured and enforced here.
	Mechanisms []Mechanism
}

// Mechanism is one thing that is measured or enforced, or is not.
type Mechanism struct {
	Name   string
	Status string // enforced, measured, ok, fallback or absent
	By     string
}

// NodeMemory is the machine's, in bytes.
type NodeMemory struct{ Capacity, Available, WorkingSet int64 }

// Process is what the process that runs the pods takes itself, its pods
// included.
type Process struct {
	CPU         time.Duration
	MemoryBytes int64 // resident
}

// Filesystem in bytes and inodes.
type Filesystem struct{ Capacity, Available, Used, Inodes, InodesFree int64 }

// Compile counts what was done to make modules executable.
type Compile struct {
	Compiled, Cached, Failed uint64
	Time                     time.Duration // spent compiling, on the clock
}

// Wall is the outer bound that the kernel enforces.
type Wall struct {
	Path        string
	MemoryLimit int64 // bytes; 0 is none
	MemoryUsage int64
	WorkingSet  int64 // of MemoryUsage, what the kernel cannot take back
	OOMKills    uint64
	Throttle    cgroup.ThrottleStats
}

// Pod is one pod and what runs of it now.
type Pod struct {
	*corev1.Pod
	Network    *Network // nil on the host's network
	Containers []Container
}

// Network counts what crossed the pod's interface, in payload bytes and in
// packets: datagrams, or writes to a stream. What stays within the pod is not
// counted.
type Network struct {
	RxBytes, RxPackets, RxDropped, TxBytes, TxPackets uint64
	Sockets                                           int
	EgressDenied                                      uint64
	Outside                                           *Outside // nil: nobody counts, or there was nothing
}

// Outside is what the kernel has counted of the sockets of the host that were opened
// for a pod: to what is no pod, and from clients on the host. It is counted as
// payload of the pod's interface, too; here it is packets of IP, with headers.
type Outside struct {
	RxBytes, RxPackets, TxBytes, TxPackets uint64
	// Denied is what the kernel has refused that had been allowed before.
	Denied uint64
}

// Container is one running attempt of a container.
type Container struct {
	Name, ID, Image string
	Started         time.Time
	CPU             time.Duration
	Wait            time.Duration // ready to run, and another was running
	Throttle        cgroup.ThrottleStats
	// Page faults while it ran; 0 where they are not counted.
	MinorFaults, MajorFaults int64
	Fuel                     uint64
	Safepoints               uint64
	// Memory is what is charged to the container now, MemoryPeak the most that
	// ever was, and the limit 0 if there is none; bytes.
	Memory, MemoryPeak, MemoryLimit int64
	CPUMilli                        int64 // limit; 0 is none
	CPUShares                       int64
	// FSBytes is what its private root holds; negative: not known.
	FSBytes, FSInodes int64
	LogBytes          int64
	Commands          int // that exec has started and that run
}
