package metrics

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// window is over how much time a rate of CPU use is taken, at least.
const window = 10 * time.Second

// Rates remembers what counters of CPU time were, to tell how fast they rise. It
// is safe for concurrent use, and holds no more than what was there when it was
// last asked.
type Rates struct {
	mu        sync.Mutex
	old, last map[string]sample
	lastAt    time.Time
}

type sample struct {
	at  time.Time
	cpu time.Duration
}

// Observe returns how many cores each container has used of late, by ID; that of
// the machine has the ID "/". With no more than one observation the average since
// the start is what there is; the machine's is not known then.
func (r *Rates) Observe(s *Snapshot) map[string]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	cores := make(map[string]float64)
	now := make(map[string]sample)
	note := func(id string, started time.Time, cpu time.Duration) {
		now[id] = sample{s.Time, cpu}
		before, ok := r.old[id]
		if !ok {
			if before, ok = r.last[id]; !ok || s.Time.Sub(before.at) < window/10 {
				before = sample{at: started}
			}
		}
		if passed := s.Time.Sub(before.at); passed > 0 && !before.at.IsZero() {
			cores[id] = max(0, (cpu-before.cpu).Seconds()/passed.Seconds())
		}
	}
	note("/", time.Time{}, s.Node.CPU)
	for i := range s.Pods {
		for _, c := range s.Pods[i].Containers {
			note(c.ID, c.Started, c.CPU)
		}
	}
	if s.Time.Sub(r.lastAt) >= window {
		r.old, r.last, r.lastAt = r.last, now, s.Time
	}
	return cores
}

// Summary is what a kubelet says at /stats/summary.
func Summary(s *Snapshot, rates *Rates) *stats.Summary {
	cores := rates.Observe(s)
	at := metav1.NewTime(s.Time)
	cpu := func(used time.Duration, cores float64, known bool) *stats.CPUStats {
		out := &stats.CPUStats{Time: at, UsageCoreNanoSeconds: count(used.Nanoseconds())}
		if known {
			out.UsageNanoCores = count(int64(cores * 1e9))
		}
		return out
	}
	memory := func(used, limit int64) *stats.MemoryStats {
		out := &stats.MemoryStats{Time: at, UsageBytes: count(used), WorkingSetBytes: count(used), RSSBytes: count(used)}
		if limit > 0 {
			out.AvailableBytes = count(limit - used)
		}
		return out
	}
	files := func(used, inodes int64) *stats.FsStats {
		out := &stats.FsStats{
			Time: at, AvailableBytes: count(s.Node.FS.Available), CapacityBytes: count(s.Node.FS.Capacity),
			InodesFree: count(s.Node.FS.InodesFree), Inodes: count(s.Node.FS.Inodes),
		}
		if used >= 0 {
			out.UsedBytes, out.InodesUsed = count(used), count(inodes)
		}
		return out
	}
	n := &s.Node
	started := metav1.NewTime(n.Started)
	machine, known := cores["/"]
	out := &stats.Summary{Node: stats.NodeStats{
		NodeName: n.Name, StartTime: started,
		CPU: cpu(n.CPU, machine, known),
		Memory: &stats.MemoryStats{
			Time: at, AvailableBytes: count(n.Memory.Available), UsageBytes: count(n.Memory.Capacity - n.Memory.Available),
			WorkingSetBytes: count(n.Memory.WorkingSet),
		},
		Fs:      files(n.FS.Used, n.FS.Inodes-n.FS.InodesFree),
		Runtime: &stats.RuntimeStats{ImageFs: files(-1, 0), ContainerFs: files(-1, 0)},
		SystemContainers: []stats.ContainerStats{{
			Name: stats.SystemContainerRuntime, StartTime: started,
			CPU: cpu(n.Process.CPU, 0, false), Memory: memory(n.Process.MemoryBytes, 0),
		}},
	}, Pods: []stats.PodStats{}}
	var all Container
	var rate float64
	for i := range s.Pods {
		p := &s.Pods[i]
		if len(p.Containers) == 0 {
			continue // as a kubelet: of what runs
		}
		ps := stats.PodStats{
			PodRef:     stats.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)},
			Containers: []stats.ContainerStats{},
		}
		if p.Status.StartTime != nil {
			ps.StartTime = *p.Status.StartTime
		}
		var sum Container
		var podRate float64
		var programs int64
		for j := range p.Containers {
			c := &p.Containers[j]
			r, known := cores[c.ID]
			ps.Containers = append(ps.Containers, stats.ContainerStats{
				Name: c.Name, StartTime: metav1.NewTime(c.Started),
				CPU: cpu(c.CPU, r, known), Memory: memory(c.Memory, c.MemoryLimit),
				Rootfs: files(c.FSBytes, c.FSInodes), Logs: files(c.LogBytes, 1),
				Swap: &stats.SwapStats{Time: at, SwapUsageBytes: count(0)},
			})
			sum.CPU += c.CPU
			sum.Memory += c.Memory
			sum.FSBytes += max(0, c.FSBytes) + max(0, c.LogBytes)
			podRate += r
			programs += int64(1 + c.Commands)
		}
		ps.CPU, ps.Memory = cpu(sum.CPU, podRate, true), memory(sum.Memory, 0)
		ps.EphemeralStorage = files(sum.FSBytes, 0)
		ps.ProcessStats = &stats.ProcessStats{ProcessCount: count(programs)}
		if p.Network != nil {
			eth := stats.InterfaceStats{
				Name: eth0, RxBytes: &p.Network.RxBytes, RxErrors: count(0), TxBytes: &p.Network.TxBytes, TxErrors: count(0),
			}
			ps.Network = &stats.NetworkStats{Time: at, InterfaceStats: eth, Interfaces: []stats.InterfaceStats{eth}}
		}
		out.Pods = append(out.Pods, ps)
		all.CPU += sum.CPU
		all.Memory += sum.Memory
		rate += podRate
	}
	out.Node.SystemContainers = append(out.Node.SystemContainers, stats.ContainerStats{
		Name: stats.SystemContainerPods, StartTime: started, CPU: cpu(all.CPU, rate, true), Memory: memory(all.Memory, 0),
	})
	return out
}

func count(n int64) *uint64 {
	u := uint64(max(0, n))
	return &u
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
