package metrics

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/probes"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

// Events counts what happens to pods. It implements prometheus.Collector; nil is
// one that counts nothing. It is safe for concurrent use.
type Events struct {
	podStart                   prometheus.Histogram
	startedPods, sandboxErrors prometheus.Counter
	started, startErrors       *prometheus.CounterVec
	evictions                  *prometheus.CounterVec
	probeResults               *prometheus.CounterVec
	probeDurations             *prometheus.HistogramVec

	mu   sync.Mutex
	pods map[types.UID]*podEvents
}

// podEvents is what there is to know of one pod until it is forgotten.
type podEvents struct {
	admitted time.Time
	waiting  map[string]bool // containers that have never started
	oom      map[string]uint64
}

// The kubelet's buckets begin at half a second, in which a pod here has mostly
// started and ended: there are more before. Those of the kubelet are all there.
var startBuckets = []float64{
	.001, .0025, .005, .01, .025, .05, .1, .25,
	.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
}

// NewEvents returns one that has counted nothing.
func NewEvents() *Events {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Events{
		podStart: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pod_start_duration_seconds", Buckets: startBuckets,
			Help: "Time from when the node first sees a pod to when all its containers have started.",
		}),
		startedPods:   counter("kubelet_started_pods_total", "Pod sandboxes that were started."),
		sandboxErrors: counter("kubelet_started_pods_errors_total", "Pod sandboxes that could not be started."),
		started:       counters("kubelet_started_containers_total", "Containers that were started.", "container_type"),
		startErrors:   counters("kubelet_started_containers_errors_total", "Containers that could not be started.", "container_type", "code"),
		evictions:     counters("kubelet_evictions", "Pods that were evicted, by the signal that was too low.", "eviction_signal"),
		probeResults: counters("prober_probe_total", "Results of liveness, readiness and startup probes.",
			"probe_type", "result", "container", "pod", "namespace", "pod_uid"),
		probeDurations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prober_probe_duration_seconds", Buckets: prometheus.DefBuckets,
			Help: "How long attempts of probes take.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
		pods: make(map[types.UID]*podEvents),
	}
}

func (e *Events) collectors() []prometheus.Collector {
	if e == nil {
		return nil
	}
	return []prometheus.Collector{e.podStart, e.startedPods, e.sandboxErrors, e.started, e.startErrors, e.evictions, e.probeResults, e.probeDurations}
}

// Describe implements prometheus.Collector.
func (e *Events) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range e.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (e *Events) Collect(ch chan<- prometheus.Metric) {
	for _, c := range e.collectors() {
		c.Collect(ch)
	}
}

// Observe notes a fact of a pod.
func (e *Events) Observe(pod *corev1.Pod, fact lifecycle.Fact) {
	if e == nil {
		return
	}
	switch f := fact.(type) {
	case lifecycle.PodAdmitted:
		waiting := make(map[string]bool, len(pod.Spec.Containers))
		for i := range pod.Spec.Containers {
			waiting[pod.Spec.Containers[i].Name] = true
		}
		e.mu.Lock()
		e.pods[pod.UID] = &podEvents{admitted: f.At, waiting: waiting}
		e.mu.Unlock()
	case lifecycle.SandboxCreated:
		e.startedPods.Inc()
	case lifecycle.SandboxFailed:
		e.sandboxErrors.Inc()
	case lifecycle.ContainerStarted:
		e.started.WithLabelValues(containerType(pod, f.Container.Name)).Inc()
		e.mu.Lock()
		if p := e.pods[pod.UID]; p != nil && p.waiting[f.Container.Name] {
			delete(p.waiting, f.Container.Name)
			if len(p.waiting) == 0 {
				e.podStart.Observe(f.At.Sub(p.admitted).Seconds())
			}
		}
		e.mu.Unlock()
	case lifecycle.ContainerStartFailed:
		e.startErrors.WithLabelValues(containerType(pod, f.Container.Name), f.Reason).Inc()
	case lifecycle.ImageFailed:
		e.startErrors.WithLabelValues(containerType(pod, f.Container.Name), f.Reason).Inc()
	case lifecycle.ContainerExited:
		if f.Reason == "OOMKilled" {
			e.mu.Lock()
			if p := e.pods[pod.UID]; p != nil {
				if p.oom == nil {
					p.oom = make(map[string]uint64)
				}
				p.oom[f.Container.Name]++
			}
			e.mu.Unlock()
		}
	case lifecycle.ProbeFinished:
		result := "successful"
		switch {
		case f.Error != "" || f.Result == probes.Unknown:
			result = "unknown"
		case f.Result == probes.Failure:
			result = "failed"
		}
		kind := f.Kind.String()
		e.probeResults.WithLabelValues(kind, result, f.Container.Name, pod.Name, pod.Namespace, string(pod.UID)).Inc()
		e.probeDurations.WithLabelValues(kind, f.Container.Name, pod.Name, pod.Namespace).Observe(f.At.Sub(f.Began).Seconds())
	}
}

// Evicted counts a pod that was evicted for want of what signal names.
func (e *Events) Evicted(signal string) {
	if e != nil {
		e.evictions.WithLabelValues(signal).Inc()
	}
}

// Forget drops the series of a pod that is no longer known on the node.
func (e *Events) Forget(pod *corev1.Pod) {
	if e == nil {
		return
	}
	e.mu.Lock()
	delete(e.pods, pod.UID)
	e.mu.Unlock()
	e.probeResults.DeletePartialMatch(prometheus.Labels{"pod_uid": string(pod.UID)})
	e.probeDurations.DeletePartialMatch(prometheus.Labels{"pod": pod.Name, "namespace": pod.Namespace})
}

// oomKills is how often containers of the pod were killed for want of memory.
func (e *Events) oomKills(uid types.UID) map[string]uint64 {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.pods[uid]
	if p == nil {
		return nil
	}
	return maps.Clone(p.oom)
}

func containerType(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return "init_container"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return "ephemeral_container"
		}
	}
	return "container"
}
