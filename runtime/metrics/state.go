package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	corev1 "k8s.io/api/core/v1"
)

// The names and labels of kube-state-metrics.
var (
	podLabels       = []string{"namespace", "pod", "uid"}
	containerLabels = append(podLabels[:3:3], "container")

	podInfo = stateDesc("kube_pod_info",
		"Information about the pod.", append(podLabels[:3:3], "host_ip", "pod_ip", "node", "created_by_kind", "created_by_name", "priority_class", "host_network"))
	podPhase = stateDesc("kube_pod_status_phase",
		"The pod's phase: 1 for the one it is in.", append(podLabels[:3:3], "phase"))
	podReason = stateDesc("kube_pod_status_reason",
		"1 for the reason why the pod is in its phase.", append(podLabels[:3:3], "reason"))
	podReady = stateDesc("kube_pod_status_ready",
		"1 if the pod's Ready condition is true.", podLabels)
	podQOS = stateDesc("kube_pod_status_qos_class",
		"The pod's quality of service class: 1 for the one it has.", append(podLabels[:3:3], "qos_class"))
	podCreated = stateDesc("kube_pod_created",
		"When the pod was created, in seconds since 1970.", podLabels)
	podStart = stateDesc("kube_pod_start_time",
		"When the node took the pod, in seconds since 1970.", podLabels)
	restarts = stateDesc("kube_pod_container_status_restarts_total",
		"How often the container was restarted.", containerLabels)
	containerReady = stateDesc("kube_pod_container_status_ready",
		"1 if the container is ready.", containerLabels)
	running = stateDesc("kube_pod_container_status_running",
		"1 if the container runs.", containerLabels)
	waiting = stateDesc("kube_pod_container_status_waiting_reason",
		"1 for the reason why the container waits.", append(containerLabels[:4:4], "reason"))
	terminated = stateDesc("kube_pod_container_status_terminated_reason",
		"1 for the reason why the container has ended.", append(containerLabels[:4:4], "reason"))
	lastTerminated = stateDesc("kube_pod_container_status_last_terminated_reason",
		"1 for the reason of the container's last end.", append(containerLabels[:4:4], "reason"))
	exitCode = stateDesc("kube_pod_container_status_last_terminated_exitcode",
		"Exit code of the container's last end.", containerLabels)
	requests = stateDesc("kube_pod_container_resource_requests",
		"What the container requests of a resource.", append(containerLabels[:4:4], "node", "resource", "unit"))
	limits = stateDesc("kube_pod_container_resource_limits",
		"What the container may use of a resource.", append(containerLabels[:4:4], "node", "resource", "unit"))

	stateDescs = []*prometheus.Desc{
		podInfo, podPhase, podReason, podReady, podQOS, podCreated, podStart, restarts, containerReady, running,
		waiting, terminated, lastTerminated, exitCode, requests, limits,
	}
)

func stateDesc(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var phases = []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown}

var qosClasses = []corev1.PodQOSClass{corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed}

// state describes pods as the API shows them.
func (w *writer) state(p *corev1.Pod) {
	pod := []string{p.Namespace, p.Name, string(p.UID)}
	with := func(values ...string) []string { return slices.Concat(pod, values) }
	kind, owner := "", ""
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			kind, owner = o.Kind, o.Name
		}
	}
	w.gauge(podInfo, 1, with(p.Status.HostIP, p.Status.PodIP, p.Spec.NodeName, kind, owner, p.Spec.PriorityClassName, boolText(p.Spec.HostNetwork))...)
	for _, phase := range phases {
		w.gauge(podPhase, boolValue(p.Status.Phase == phase), with(string(phase))...)
	}
	if p.Status.Reason != "" {
		w.gauge(podReason, 1, with(p.Status.Reason)...)
	}
	ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	w.gauge(podReady, boolValue(ready), pod...)
	for _, class := range qosClasses {
		w.gauge(podQOS, boolValue(p.Status.QOSClass == class), with(string(class))...)
	}
	if !p.CreationTimestamp.IsZero() {
		w.gauge(podCreated, float64(p.CreationTimestamp.Unix()), pod...)
	}
	if p.Status.StartTime != nil {
		w.gauge(podStart, float64(p.Status.StartTime.Unix()), pod...)
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		labels := with(s.Name)
		reason := func(r string) []string { return append(slices.Clip(labels), r) }
		w.counter(restarts, float64(s.RestartCount), labels...)
		w.gauge(containerReady, boolValue(s.Ready), labels...)
		w.gauge(running, boolValue(s.State.Running != nil), labels...)
		if s.State.Waiting != nil {
			w.gauge(waiting, 1, reason(s.State.Waiting.Reason)...)
		}
		last := s.LastTerminationState.Terminated
		if last != nil {
			w.gauge(lastTerminated, 1, reason(last.Reason)...)
		}
		if t := s.State.Terminated; t != nil {
			w.gauge(terminated, 1, reason(t.Reason)...)
			last = t
		}
		if last != nil {
			w.gauge(exitCode, float64(last.ExitCode), labels...)
		}
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		for desc, list := range map[*prometheus.Desc]corev1.ResourceList{requests: c.Resources.Requests, limits: c.Resources.Limits} {
			if q, ok := list[corev1.ResourceCPU]; ok {
				w.gauge(desc, q.AsApproximateFloat64(), with(c.Name, p.Spec.NodeName, "cpu", "core")...)
			}
			if q, ok := list[corev1.ResourceMemory]; ok {
				w.gauge(desc, q.AsApproximateFloat64(), with(c.Name, p.Spec.NodeName, "memory", "byte")...)
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

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
