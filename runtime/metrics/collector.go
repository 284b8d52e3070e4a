package metrics

import (
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
)

// Collector describes what a function returns at the time of a scrape. It is safe
// for concurrent use if that function is.
type Collector struct {
	snapshot func() Snapshot
	events   *Events
	parts    parts
}

// parts of what there is to collect.
type parts int

const (
	partState parts = 1 << iota
	partUsage
	partKubelet
	partEngine
	partAll = partState | partUsage | partKubelet | partEngine
)

// New returns a Collector of everything; events may be nil.
func New(snapshot func() Snapshot, events *Events) *Collector {
	return &Collector{snapshot, events, partAll}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	send := func(list []*prometheus.Desc) {
		for _, d := range list {
			ch <- d
		}
	}
	if c.parts&partState != 0 {
		send(stateDescs)
	}
	if c.parts&partUsage != 0 {
		send(usageDescs)
	}
	if c.parts&partKubelet != 0 {
		send(kubeletDescs)
	}
	if c.parts&partEngine != 0 {
		send(engineDescs)
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	w := &writer{ch}
	if c.parts&partKubelet != 0 {
		w.kubelet(&s)
	}
	if c.parts&partEngine != 0 {
		w.engine(&s)
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		if c.parts&partState != 0 {
			w.state(p.Pod)
		}
		if c.parts&partUsage != 0 {
			w.usage(&s, p, c.events)
		}
	}
}

// writer sends metrics that are made from a snapshot.
type writer struct{ ch chan<- prometheus.Metric }

func (w *writer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, clean(labels)...)
}

func (w *writer) counter(d *prometheus.Desc, v float64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, clean(labels)...)
}

// clean makes labels valid: one that is not UTF-8 would fail the whole scrape, and
// some are other people's words.
func clean(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\ufffd")
	}
	return labels
}

// podCgroup is where a kubelet with the cgroupfs driver has the pod.
func podCgroup(p *corev1.Pod) string {
	class := ""
	switch p.Status.QOSClass {
	case corev1.PodQOSBestEffort:
		class = "besteffort"
	case corev1.PodQOSBurstable:
		class = "burstable"
	}
	return path.Join("/kubepods", class, "pod"+string(p.UID))
}
