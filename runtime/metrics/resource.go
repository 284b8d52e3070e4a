package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// What the metrics server reads of a kubelet, with the time of the measurement.
var (
	resourceContainer = []string{"container", "namespace", "pod"}
	resourcePod       = []string{"namespace", "pod"}

	nodeCPU         = prometheus.NewDesc("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", nil, nil)
	nodeMemory      = prometheus.NewDesc("node_memory_working_set_bytes", "Current working set of the node in bytes", nil, nil)
	resourceCPU     = prometheus.NewDesc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", resourceContainer, nil)
	resourceMemory  = prometheus.NewDesc("container_memory_working_set_bytes", "Current working set of the container in bytes", resourceContainer, nil)
	resourceStart   = prometheus.NewDesc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", resourceContainer, nil)
	resourcePodCPU  = prometheus.NewDesc("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", resourcePod, nil)
	resourcePodMem  = prometheus.NewDesc("pod_memory_working_set_bytes", "Current working set of the pod in bytes", resourcePod, nil)
	resourceFailure = prometheus.NewDesc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, nil)
)

// resourceCollector collects what /metrics/resource has.
type resourceCollector struct{ snapshot func() Snapshot }

// Describe implements prometheus.Collector.
func (resourceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodeCPU, nodeMemory, resourceCPU, resourceMemory, resourceStart, resourcePodCPU, resourcePodMem, resourceFailure} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c resourceCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.NewMetricWithTimestamp(s.Time, prometheus.MustNewConstMetric(d, t, v, clean(labels)...))
	}
	send(nodeCPU, prometheus.CounterValue, s.Node.CPU.Seconds())
	send(nodeMemory, prometheus.GaugeValue, float64(s.Node.Memory.WorkingSet))
	for i := range s.Pods {
		p := &s.Pods[i]
		if len(p.Containers) == 0 {
			continue
		}
		var sum Container
		for j := range p.Containers {
			c := &p.Containers[j]
			send(resourceCPU, prometheus.CounterValue, c.CPU.Seconds(), c.Name, p.Namespace, p.Name)
			send(resourceMemory, prometheus.GaugeValue, float64(c.Memory), c.Name, p.Namespace, p.Name)
			ch <- prometheus.MustNewConstMetric(resourceStart, prometheus.GaugeValue, seconds(c.Started), clean([]string{c.Name, p.Namespace, p.Name})...)
			sum.CPU += c.CPU
			sum.Memory += c.Memory
		}
		send(resourcePodCPU, prometheus.CounterValue, sum.CPU.Seconds(), p.Namespace, p.Name)
		send(resourcePodMem, prometheus.GaugeValue, float64(sum.Memory), p.Namespace, p.Name)
	}
	ch <- prometheus.MustNewConstMetric(resourceFailure, prometheus.GaugeValue, 0)
}
