package cgroup

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What oom_score_adj a container's processes have.
const (
	guaranteedOOMScoreAdj = -997
	burstableOOMScoreMin  = 1000 + guaranteedOOMScoreAdj // of Burstable containers
	burstableOOMScoreMax  = 999
	// BestEffortOOMScoreAdj is of what the kernel is to end first.
	BestEffortOOMScoreAdj = 1000
	// nodeCritical is the priority of what the node cannot do without.
	nodeCritical = 2000001000
)

// OOMScoreAdj is what the kernel is told of a container's worth when the machine,
// which has so many bytes of memory, runs out of it (OOM-04): from -997, which it
// spares, to 1000, which it ends first.
func OOMScoreAdj(pod *corev1.PodSpec, container *corev1.Container, capacity int64) int {
	if pod.Priority != nil && *pod.Priority >= nodeCritical {
		return guaranteedOOMScoreAdj
	}
	switch QOSClass(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedOOMScoreAdj
	case corev1.PodQOSBestEffort:
		return BestEffortOOMScoreAdj
	}
	adj := burstableOOMScoreAdj(pod, container, capacity)
	if sidecar(container) {
		// The containers that it serves are not to outlive it.
		for i := range pod.Containers {
			adj = min(adj, burstableOOMScoreAdj(pod, &pod.Containers[i], capacity))
		}
	}
	return adj
}

func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func burstableOOMScoreAdj(pod *corev1.PodSpec, container *corev1.Container, capacity int64) int {
	request := memoryRequest(container)
	if r := pod.Resources; r != nil {
		// What the pod has requested beyond its containers is shared among them.
		if whole, ok := r.Requests[corev1.ResourceMemory]; ok && len(pod.Containers) > 0 {
			sharing := slices.DeleteFunc(slices.Clone(pod.InitContainers), func(c corev1.Container) bool { return !sidecar(&c) })
			sharing = append(sharing, pod.Containers...)
			rest := whole.Value()
			for i := range sharing {
				rest -= memoryRequest(&sharing[i])
			}
			request += max(rest, 0) / int64(len(sharing))
		}
	}
	if capacity <= 0 {
		return burstableOOMScoreMax
	}
	// In floating point, as absurd requests times 1000 are more than there are numbers.
	used := int(1000 * min(float64(max(request, 0))/float64(capacity), 1))
	return min(max(1000-used, burstableOOMScoreMin), burstableOOMScoreMax)
}

func memoryRequest(c *corev1.Container) int64 {
	q := c.Resources.Requests[corev1.ResourceMemory]
	return q.Value()
}
