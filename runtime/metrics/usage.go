package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmpod/wasmpod/cgroup"
)

// The names and labels of cAdvisor. Series of a pod as a whole have no container
// label, as there.
var (
	usageLabels     = []string{"container", "id", "image", "name", "namespace", "pod"}
	cpuLabels       = append(usageLabels[:6:6], "cpu")
	interfaceLabels = append(usageLabels[:6:6], "interface")
	deviceLabels    = append(usageLabels[:6:6], "device")

	usageDescs []*prometheus.Desc

	cpuUsage         = usageDesc("container_cpu_usage_seconds_total", "CPU time consumed.", cpuLabels)
	cfsPeriods       = usageDesc("container_cpu_cfs_periods_total", "Enforcement periods in which the container could have run.", usageLabels)
	cfsThrottled     = usageDesc("container_cpu_cfs_throttled_periods_total", "Enforcement periods in which the container had to wait.", usageLabels)
	cfsThrottledTime = usageDesc("container_cpu_cfs_throttled_seconds_total", "How long the container was throttled.", usageLabels)
	runQueueWait     = usageDesc("container_cpu_schedstat_runqueue_seconds_total", "How long the container was ready to run while others ran.", usageLabels)

	memoryUsage      = usageDesc("container_memory_usage_bytes", "Memory charged to the container.", usageLabels)
	memoryWorkingSet = usageDesc("container_memory_working_set_bytes", "Memory charged to the container that cannot be taken back.", usageLabels)
	memoryRSS        = usageDesc("container_memory_rss", "Anonymous memory of the container, in bytes.", usageLabels)
	memoryMax        = usageDesc("container_memory_max_usage_bytes", "The most memory that was ever charged to the container.", usageLabels)
	memoryFailures   = usageDesc("container_memory_failures_total", "Page faults while the container's code ran.", append(usageLabels[:6:6], "failure_type", "scope"))
	oomEvents        = usageDesc("container_oom_events_total", "How often the container was killed for want of memory.", usageLabels)

	startTime     = usageDesc("container_start_time_seconds", "When the container started, in seconds since 1970.", usageLabels)
	lastSeen      = usageDesc("container_last_seen", "When the container was last seen, in seconds since 1970.", usageLabels)
	processes     = usageDesc("container_processes", "Programs that run in the container: itself, and commands started in it.", usageLabels)
	specPeriod    = usageDesc("container_spec_cpu_period", "Length of an enforcement period, in microseconds.", usageLabels)
	specQuota     = usageDesc("container_spec_cpu_quota", "CPU time that may be used in each period, in microseconds.", usageLabels)
	specShares    = usageDesc("container_spec_cpu_shares", "Weight of the container against others.", usageLabels)
	specMemory    = usageDesc("container_spec_memory_limit_bytes", "Memory limit; 0 if there is none.", usageLabels)
	specSwap      = usageDesc("container_spec_memory_swap_limit_bytes", "Swap limit: always 0, as guests are given none of their own.", usageLabels)
	specReserved  = usageDesc("container_spec_memory_reservation_limit_bytes", "Soft memory limit: always 0.", usageLabels)
	specStartTime = usageDesc("container_spec_start_time_seconds", "When the container started, in seconds since 1970.", usageLabels)

	fsUsage  = usageDesc("container_fs_usage_bytes", "What the container's private files take.", deviceLabels)
	fsLimit  = usageDesc("container_fs_limit_bytes", "Size of the filesystem with the container's private files.", deviceLabels)
	fsInodes = usageDesc("container_fs_inodes_total", "Inodes of the filesystem with the container's private files.", deviceLabels)
	fsFree   = usageDesc("container_fs_inodes_free", "Free inodes of the filesystem with the container's private files.", deviceLabels)

	netRxBytes   = usageDesc("container_network_receive_bytes_total", "Payload that the pod received.", interfaceLabels)
	netRxPackets = usageDesc("container_network_receive_packets_total", "Packets that the pod received.", interfaceLabels)
	netRxDropped = usageDesc("container_network_receive_packets_dropped_total", "Packets for which a receiver had no room.", interfaceLabels)
	netRxErrors  = usageDesc("container_network_receive_errors_total", "Packets that arrived damaged: none do.", interfaceLabels)
	netTxBytes   = usageDesc("container_network_transmit_bytes_total", "Payload that the pod sent.", interfaceLabels)
	netTxPackets = usageDesc("container_network_transmit_packets_total", "Packets that the pod sent.", interfaceLabels)
	netTxDropped = usageDesc("container_network_transmit_packets_dropped_total", "Packets that could not be sent: the sender is told instead.", interfaceLabels)
	netTxErrors  = usageDesc("container_network_transmit_errors_total", "Packets that were sent damaged: none are.", interfaceLabels)
	sockets      = usageDesc("container_sockets", "Open sockets.", usageLabels)
	egressDenied = usageDesc("wasmpod_egress_denied_total", "Connections to the outside that policy has refused.", podLabels)

	outsideRxBytes   = usageDesc("wasmpod_outside_receive_bytes_total", "IP packets that sockets of the host received for the pod, in bytes with headers.", podLabels)
	outsideRxPackets = usageDesc("wasmpod_outside_receive_packets_total", "IP packets that sockets of the host received for the pod.", podLabels)
	outsideTxBytes   = usageDesc("wasmpod_outside_transmit_bytes_total", "IP packets that sockets of the host sent for the pod, in bytes with headers.", podLabels)
	outsideTxPackets = usageDesc("wasmpod_outside_transmit_packets_total", "IP packets that sockets of the host sent for the pod.", podLabels)
	outsideDenied    = usageDesc("wasmpod_outside_denied_total", "What the kernel has refused sockets of the pod that wasmpod had allowed: a fault of wasmpod.", podLabels)

	fuel       = usageDesc("wasmpod_fuel_total", "Work that the container's code was charged, in units of about 64 bytes of code executed. It does not depend on the machine.", containerLabels)
	safepoints = usageDesc("wasmpod_safepoint_crossings_total", "How often the container's code has looked up whether it is to stop.", containerLabels)
)

func usageDesc(name, help string, labels []string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	usageDescs = append(usageDescs, d)
	return d
}

// eth0 is the name that other runtimes give the interface of a pod.
const eth0 = "eth0"

// device stands for the filesystem of the data directory.
const device = "data-dir"

// usage describes what a pod consumes.
func (w *writer) usage(s *Snapshot, p *Pod, events *Events) {
	podID := podCgroup(p.Pod)
	labels := func(c *Container) []string {
		if c == nil {
			return []string{"", podID, "", "", p.Namespace, p.Name}
		}
		return []string{c.Name, podID + "/" + c.ID, c.Image, c.ID, p.Namespace, p.Name}
	}
	var sum Container
	for i := range p.Containers {
		c := &p.Containers[i]
		w.container(s, c, labels(c))
		state := []string{p.Namespace, p.Name, string(p.UID), c.Name}
		w.counter(fuel, float64(c.Fuel), state...)
		w.counter(safepoints, float64(c.Safepoints), state...)
		sum.CPU += c.CPU
		sum.Memory += c.Memory
	}
	// Also of pods whose containers have ended: that is when somebody asks.
	for name, n := range events.oomKills(p.UID) {
		at := []string{name, podID, "", "", p.Namespace, p.Name}
		w.counter(oomEvents, float64(n), at...)
	}
	if len(p.Containers) > 0 {
		pod := labels(nil)
		w.counter(cpuUsage, sum.CPU.Seconds(), slices.Concat(pod, []string{"total"})...)
		w.gauge(memoryUsage, float64(sum.Memory), pod...)
		w.gauge(memoryWorkingSet, float64(sum.Memory), pod...)
	}
	if n := p.Network; n != nil {
		at := slices.Concat(labels(nil), []string{eth0})
		w.counter(netRxBytes, float64(n.RxBytes), at...)
		w.counter(netRxPackets, float64(n.RxPackets), at...)
		w.counter(netRxDropped, float64(n.RxDropped), at...)
		w.counter(netRxErrors, 0, at...)
		w.counter(netTxBytes, float64(n.TxBytes), at...)
		w.counter(netTxPackets, float64(n.TxPackets), at...)
		w.counter(netTxDropped, 0, at...)
		w.counter(netTxErrors, 0, at...)
		w.gauge(sockets, float64(n.Sockets), labels(nil)...)
		pod := []string{p.Namespace, p.Name, string(p.UID)}
		w.counter(egressDenied, float64(n.EgressDenied), pod...)
		if o := n.Outside; o != nil {
			w.counter(outsideRxBytes, float64(o.RxBytes), pod...)
			w.counter(outsideRxPackets, float64(o.RxPackets), pod...)
			w.counter(outsideTxBytes, float64(o.TxBytes), pod...)
			w.counter(outsideTxPackets, float64(o.TxPackets), pod...)
			w.counter(outsideDenied, float64(o.Denied), pod...)
		}
	}
}

func (w *writer) container(s *Snapshot, c *Container, l []string) {
	w.counter(cpuUsage, c.CPU.Seconds(), slices.Concat(l, []string{"total"})...)
	w.counter(runQueueWait, c.Wait.Seconds(), l...)
	w.gauge(specPeriod, cgroup.Period, l...)
	w.gauge(specShares, float64(c.CPUShares), l...)
	if c.CPUMilli > 0 { // as cAdvisor: only where there is a quota
		w.gauge(specQuota, float64(cgroup.Quota(c.CPUMilli, cgroup.Period)), l...)
		w.counter(cfsPeriods, float64(c.Throttle.Periods), l...)
		w.counter(cfsThrottled, float64(c.Throttle.Throttled), l...)
		w.counter(cfsThrottledTime, c.Throttle.Time.Seconds(), l...)
	}
	w.counter(memoryFailures, float64(c.MinorFaults), slices.Concat(l, []string{"pgfault", "container"})...)
	w.counter(memoryFailures, float64(c.MajorFaults), slices.Concat(l, []string{"pgmajfault", "container"})...)
	w.gauge(memoryUsage, float64(c.Memory), l...)
	w.gauge(memoryWorkingSet, float64(c.Memory), l...)
	w.gauge(memoryRSS, float64(c.Memory), l...)
	w.gauge(memoryMax, float64(c.MemoryPeak), l...)
	w.gauge(specMemory, float64(c.MemoryLimit), l...)
	w.gauge(specSwap, 0, l...)
	w.gauge(specReserved, 0, l...)
	w.gauge(startTime, seconds(c.Started), l...)
	w.gauge(specStartTime, seconds(c.Started), l...)
	w.gauge(lastSeen, seconds(s.Time), l...)
	w.gauge(processes, float64(1+c.Commands), l...)
	if c.FSBytes >= 0 {
		at := slices.Concat(l, []string{device})
		w.gauge(fsUsage, float64(c.FSBytes), at...)
		w.gauge(fsLimit, float64(s.Node.FS.Capacity), at...)
		w.gauge(fsInodes, float64(s.Node.FS.Inodes), at...)
		w.gauge(fsFree, float64(s.Node.FS.InodesFree), at...)
	}
}

var (
	engineDescs []*prometheus.Desc

	compiles    = engineDesc("wasmpod_compile_total", "Modules that were made executable, by how: compiled, cached, failed.", []string{"result"})
	compileTime = engineDesc("wasmpod_compile_seconds_total", "Time spent compiling modules.", nil)
	wallMemory  = engineDesc("wasmpod_wall_memory_limit_bytes", "Memory that the kernel lets this process and its pods have; 0 is no bound.", []string{"path"})
	wallUsage   = engineDesc("wasmpod_wall_memory_usage_bytes", "Memory that the kernel charges this process and its pods.", []string{"path"})
	wallOOM     = engineDesc("wasmpod_wall_oom_kills_total", "Processes that the kernel has killed for want of memory.", []string{"path"})
	mechanism   = engineDesc("wasmpod_mechanism_info", "By what this host measures and enforces: what, how well (enforced, measured, ok, fallback, absent), and by which mechanism. The value is always 1.", []string{"name", "status", "mechanism"})
	cpuResting  = engineDesc("wasmpod_cpu_accounting_resting", "1 while the programs that measure CPU time in the kernel are taken off, because no container runs or a processor switches contexts too often: threads' clocks are read then, and no waits for a processor and no page faults are counted.", nil)
	wallPeriods = engineDesc("wasmpod_wall_cfs_throttled_periods_total", "Periods in which the kernel has held this process back.", []string{"path"})
)

func engineDesc(name, help string, labels []string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	engineDescs = append(engineDescs, d)
	return d
}

func (w *writer) engine(s *Snapshot) {
	c := s.Node.Compile
	w.counter(compiles, float64(c.Compiled), "compiled")
	w.counter(compiles, float64(c.Cached), "cached")
	w.counter(compiles, float64(c.Failed), "failed")
	w.counter(compileTime, c.Time.Seconds())
	resting := 0.0
	if s.Node.CPUResting {
		resting = 1
	}
	w.gauge(cpuResting, resting)
	for _, m := range s.Node.Mechanisms {
		w.gauge(mechanism, 1, m.Name, m.Status, m.By)
	}
	if wall := s.Node.Wall; wall != nil {
		w.gauge(wallMemory, float64(wall.MemoryLimit), wall.Path)
		w.gauge(wallUsage, float64(wall.MemoryUsage), wall.Path)
		w.counter(wallOOM, float64(wall.OOMKills), wall.Path)
		w.counter(wallPeriods, float64(wall.Throttle.Throttled), wall.Path)
	}
}

var (
	kubeletDescs []*prometheus.Desc

	nodeName          = kubeletDesc("kubelet_node_name", "The node's name. The count is always 1.", []string{"node"})
	runningPods       = kubeletDesc("kubelet_running_pods", "Number of pods that have a running pod sandbox.", nil)
	runningContainers = kubeletDesc("kubelet_running_containers", "Number of containers by their state.", []string{"container_state"})
	machineCPUs       = kubeletDesc("machine_cpu_cores", "Number of logical CPU cores.", nil)
	machineMemory     = kubeletDesc("machine_memory_bytes", "Amount of memory installed on the machine.", nil)
)

func kubeletDesc(name, help string, labels []string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	kubeletDescs = append(kubeletDescs, d)
	return d
}

func (w *writer) kubelet(s *Snapshot) {
	w.gauge(nodeName, 1, s.Node.Name)
	pods := 0
	states := map[string]int{"created": 0, "exited": 0, "running": 0, "unknown": 0}
	for i := range s.Pods {
		p := &s.Pods[i]
		if len(p.Containers) > 0 {
			pods++
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
			switch {
			case c.State.Running != nil:
				states["running"]++
			case c.State.Terminated != nil:
				states["exited"]++
			}
		}
	}
	w.gauge(runningPods, float64(pods))
	for state, n := range states {
		w.gauge(runningContainers, float64(n), state)
	}
	w.gauge(machineCPUs, float64(s.Node.CPUs))
	w.gauge(machineMemory, float64(s.Node.Memory.Capacity))
}
