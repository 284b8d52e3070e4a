package cgroup

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass is the pod's quality of service class (RES-03): BestEffort if
// nothing is requested or limited, Guaranteed if every container has limits for
// cpu and memory and the requests equal them, else Burstable. Resources of the
// pod as a whole, where set, decide alone.
func QOSClass(pod *corev1.PodSpec) corev1.PodQOSClass {
	var all []corev1.ResourceRequirements
	if r := pod.Resources; r != nil {
		all = append(all, *r)
	} else {
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			all = append(all, c.Resources)
		}
	}
	guaranteed, bestEffort := true, true
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		var requests, limits resource.Quantity
		for _, r := range all {
			// Zero counts as not set.
			if q, ok := r.Requests[name]; ok && q.Sign() > 0 {
				requests.Add(q)
			}
			q, ok := r.Limits[name]
			if ok && q.Sign() > 0 {
				limits.Add(q)
			} else {
				guaranteed = false
			}
		}
		bestEffort = bestEffort && requests.IsZero() && limits.IsZero()
		guaranteed = guaranteed && requests.Cmp(limits) == 0
	}
	switch {
	case bestEffort:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
