// Package metrics shows pods to Prometheus. A collector reads a snapshot at
// scrape time, so that a pod that is gone leaves no series.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
)

// Collector describes pods by the names and labels that kube-state-metrics
// gives them.
type Collector struct{ pods func() []*corev1.Pod }

// New returns a Collector of the pods that the function returns.
func New(pods func() []*corev1.Pod) *Collector { return &Collector{pods} }

var (
	podLabels       = []string{"namespace", "pod", "uid"}
	containerLabels = append(podLabels[:3:3], "container")

	podPhase = prometheus.NewDesc("kube_pod_status_phase",
		"The pod's phase: 1 for the one it is in.", append(podLabels[:3:3], "phase"), nil)
	podReady = prometheus.NewDesc("kube_pod_status_ready",
		"1 if the pod's Ready condition is true.", podLabels, nil)
	restarts = prometheus.NewDesc("kube_pod_container_status_restarts_total",
		"How often the container was restarted.", containerLabels, nil)
	running = prometheus.NewDesc("kube_pod_container_status_running",
		"1 if the container runs.", containerLabels, nil)
	waiting = prometheus.NewDesc("kube_pod_container_status_waiting_reason",
		"1 for the reason why the container waits.", append(containerLabels[:4:4], "reason"), nil)
	terminated = prometheus.NewDesc("kube_pod_container_status_last_terminated_exitcode",
		"Exit code of the container's last end.", containerLabels, nil)
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{podPhase, podReady, restarts, running, waiting, terminated} {
		ch <- d
	}
}

var phases = []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, p := range c.pods() {
		pod := []string{p.Namespace, p.Name, string(p.UID)}
		for _, phase := range phases {
			gauge(podPhase, boolValue(p.Status.Phase == phase), append(pod[:3:3], string(phase))...)
		}
		ready := false
		for _, cond := range p.Status.Conditions {
			ready = ready || cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue
		}
		gauge(podReady, boolValue(ready), pod...)
		for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for _, s := range statuses {
				labels := append(pod[:3:3], s.Name)
				ch <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(s.RestartCount), labels...)
				gauge(running, boolValue(s.State.Running != nil), labels...)
				if w := s.State.Waiting; w != nil {
					gauge(waiting, 1, append(labels[:4:4], w.Reason)...)
				}
				last := s.State.Terminated
				if last == nil {
					last = s.LastTerminationState.Terminated
				}
				if last != nil {
					gauge(terminated, float64(last.ExitCode), labels...)
				}
			}
		}
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
