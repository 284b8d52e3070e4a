package container

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/cgroup"
)

// ContainerLimits is what one container may use. A container without a limit
// has that of its pod, if there is one (RES-07).
func ContainerLimits(pod *corev1.Pod, c *corev1.Container) Limits {
	limit := func(name corev1.ResourceName) resource.Quantity {
		q := c.Resources.Limits[name]
		if q.IsZero() && podLevelSet(pod) {
			q = pod.Spec.Resources.Limits[name]
		}
		return q
	}
	memory, cpu := limit(corev1.ResourceMemory), limit(corev1.ResourceCPU)
	// An unset request is taken from the limit, an explicit 0 is not (RES-04).
	request, ok := c.Resources.Requests[corev1.ResourceCPU]
	if !ok {
		request = cpu
	}
	return Limits{
		MemoryBytes: memory.Value(),
		CPUMilli:    cpu.MilliValue(),
		CPUShares:   cgroup.Shares(request.MilliValue()),
	}
}

// PodLimits is what all containers of a pod may use together: 0, unlimited,
// unless every container has a limit or the pod has one of its own (RES-05).
func PodLimits(pod *corev1.Pod) Limits {
	limits, requests := PodResourceLimits(pod), PodResourceRequests(pod)
	declared := func(name corev1.ResourceName) bool {
		if podLevelSet(pod) {
			if q := pod.Spec.Resources.Limits[name]; !q.IsZero() {
				return true
			}
		}
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if q := list[i].Resources.Limits[name]; q.IsZero() {
					return false
				}
			}
		}
		return true
	}
	cpu := requests[corev1.ResourceCPU]
	out := Limits{CPUShares: cgroup.Shares(cpu.MilliValue())}
	if declared(corev1.ResourceCPU) {
		q := limits[corev1.ResourceCPU]
		out.CPUMilli = q.MilliValue()
	}
	if declared(corev1.ResourceMemory) {
		q := limits[corev1.ResourceMemory]
		out.MemoryBytes = q.Value()
	}
	return out
}

// PodResourceRequests is the pod's request per resource, overhead included
// (RES-08).
func PodResourceRequests(pod *corev1.Pod) corev1.ResourceList {
	total := aggregate(pod, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
	if pod.Spec.Resources != nil {
		overridePodLevel(total, pod.Spec.Resources.Requests)
	}
	add(total, pod.Spec.Overhead)
	return total
}

// PodResourceLimits is the pod's limit per resource (RES-08). Overhead is added
// where there is a limit. A resource that only some containers limit is
// present with their sum: see PodLimits for what is enforced.
func PodResourceLimits(pod *corev1.Pod) corev1.ResourceList {
	total := aggregate(pod, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits })
	if podLevelSet(pod) {
		overridePodLevel(total, pod.Spec.Resources.Limits)
	}
	for name, q := range pod.Spec.Overhead {
		if have, ok := total[name]; ok && !have.IsZero() {
			have.Add(q)
			total[name] = have
		}
	}
	return total
}

// aggregate is max(Σ regular + Σ sidecars, max over ordinary init containers of
// the init container + Σ sidecars before it).
func aggregate(pod *corev1.Pod, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	total, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		add(total, of(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(total, of(c))
			add(sidecars, of(c))
			continue
		}
		during := corev1.ResourceList{}
		add(during, of(c))
		add(during, sidecars)
		raise(peak, during)
	}
	raise(total, peak)
	return total
}

func add(to, list corev1.ResourceList) {
	for name, q := range list {
		sum := to[name].DeepCopy()
		sum.Add(q)
		to[name] = sum
	}
}

func raise(to, list corev1.ResourceList) {
	for name, q := range list {
		if have, ok := to[name]; !ok || q.Cmp(have) > 0 {
			to[name] = q.DeepCopy()
		}
	}
}

func overridePodLevel(total, list corev1.ResourceList) {
	for name, q := range list {
		if podLevel(name) {
			total[name] = q.DeepCopy()
		}
	}
}

// podLevel says whether a resource may be given for the whole pod.
func podLevel(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func podLevelSet(pod *corev1.Pod) bool {
	if pod.Spec.Resources == nil {
		return false
	}
	for _, list := range []corev1.ResourceList{pod.Spec.Resources.Requests, pod.Spec.Resources.Limits} {
		for name := range list {
			if podLevel(name) {
				return true
			}
		}
	}
	return false
}
