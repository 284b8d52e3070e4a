package runtime

import (
	"errors"
	"net/http"
	goruntime "runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/metrics"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
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
	for _, pod := range r.store.Pods() {
		s.Pods = append(s.Pods, metrics.Pod{Pod: pod})
	}
	return s
}

func (r *Runtime) nodeStats() metrics.Node {
	n := metrics.Node{
		Name: r.node.Name, Started: r.opened, CPU: machineCPU(), CPUs: goruntime.NumCPU(),
		Memory: machineMemory(), Process: processUsage(),
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
