package runtime

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/metrics"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
)

// What Snapshot returns.
type (
	Snapshot       = metrics.Snapshot
	PodUsage       = metrics.Pod
	ContainerUsage = metrics.Container
)

// Stdio and StdioFunc connect a container to streams of the caller.
type (
	Stdio     = inproc.Stdio
	StdioFunc = func(container.Config) Stdio
)

// RegisterMetrics registers what there is to tell of pods, their containers and
// the node: see package metrics.
func (r *Runtime) RegisterMetrics(registry prometheus.Registerer) error {
	return metrics.Register(registry, r.Snapshot, r.events)
}

// MetricsHandler serves the paths that package metrics names, /metrics from a
// registry of its own that has the process's metrics too.
func (r *Runtime) MetricsHandler() (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := errors.Join(r.RegisterMetrics(registry), metrics.RegisterProcess(registry)); err != nil {
		return nil, err
	}
	return metrics.Handler(registry, r.Snapshot, r.events), nil
}

// Snapshot is what pods and the node consume at the moment.
func (r *Runtime) Snapshot() metrics.Snapshot {
	s := metrics.Snapshot{Time: time.Now(), Node: r.nodeStats()}
	networks := r.network.usage()
	for _, pod := range r.store.Pods() {
		p := metrics.Pod{Pod: pod, Network: networks[pod.UID]}
		if w := r.worker(pod.UID); w != nil {
			for ref, c := range w.Live() {
				p.Containers = append(p.Containers, containerUsage(pod, ref.Name, c))
			}
		}
		slices.SortFunc(p.Containers, func(a, b metrics.Container) int { return cmp.Compare(a.ID, b.ID) })
		s.Pods = append(s.Pods, p)
	}
	return s
}

func containerUsage(pod *corev1.Pod, name string, c sandbox.Container) metrics.Container {
	u := c.Usage()
	m := metrics.Container{
		Name: name, ID: c.ID(), Started: u.Started, CPU: u.CPU, Wait: u.Wait, Throttle: u.Throttle,
		MinorFaults: u.MinorFaults, MajorFaults: u.MajorFaults,
		Fuel: u.Fuel, Safepoints: u.Safepoints,
		Memory: u.MemoryBytes, MemoryPeak: u.MemoryPeak, MemoryLimit: u.Limits.MemoryBytes,
		CPUMilli: u.Limits.CPUMilli, CPUShares: u.Limits.CPUShares,
		FSBytes: u.FileBytes, FSInodes: u.Files, LogBytes: u.LogBytes, Commands: u.Commands,
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.Name == name {
			m.Image = s.Image
		}
	}
	return m
}

// usage is the traffic of the pods that are connected.
func (n *network) usage() map[types.UID]*metrics.Network {
	n.mu.Lock()
	members := slices.Collect(maps.Values(n.members))
	n.mu.Unlock()
	out := make(map[types.UID]*metrics.Network, len(members))
	for _, m := range members {
		if m.pod == nil {
			continue // what pods on the host's network do is the host's
		}
		s := m.ns.Stats()
		out[m.pod.UID] = &metrics.Network{
			RxBytes: s.Pod.RxBytes, RxPackets: s.Pod.RxPackets, RxDropped: s.Pod.RxDropped,
			TxBytes: s.Pod.TxBytes, TxPackets: s.Pod.TxPackets,
			Sockets: s.Sockets, EgressDenied: m.egress.Denied(), Outside: m.guard.usage(),
		}
	}
	return out
}

func (r *Runtime) nodeStats() metrics.Node {
	n := metrics.Node{
		Name: r.node.Name, Started: r.opened, CPU: machineCPU(), CPUs: goruntime.NumCPU(),
		Memory: machineMemory(), Process: processUsage(), Wall: r.wall.stats(),
		Compile: metrics.Compile(r.engine.Compiles()), Mechanisms: mechanismMetrics(r.Mechanisms()),
		CPUResting: r.cpu != nil && r.cpu.Resting(),
	}
	var fs unix.Statfs_t
	if unix.Statfs(r.cfg.DataDir, &fs) == nil {
		block := int64(fs.Bsize)
		n.FS = metrics.Filesystem{
			Capacity: int64(fs.Blocks) * block, Available: int64(fs.Bavail) * block, Used: int64(fs.Blocks-fs.Bfree) * block,
			Inodes: int64(fs.Files), InodesFree: int64(fs.Ffree),
		}
	}
	return n
}
