package lifecycle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// StorageUsage is what a pod keeps on its node, in bytes.
type StorageUsage struct {
	EmptyDirs  map[string]int64 // all, by volume
	Volumes    int64            // on disk: emptyDirs that are not in memory
	Containers map[string]int64 // what they wrote to their roots, and their logs
}

// LimitsStorage says whether a pod has a limit that StorageEviction looks at.
func LimitsStorage(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && isLimit(e.SizeLimit) {
			return true
		}
	}
	return isLimit(ephemeralStorage(manifest.PodLimits(&pod.Spec)))
}

// StorageEviction is why a pod is evicted for what it keeps, in the kubelet's words
// (RES-30); empty: it is not.
func StorageEviction(pod *corev1.Pod, u StorageUsage) string {
	over := func(used int64, limit *resource.Quantity) bool {
		return isLimit(limit) && resource.NewQuantity(used, resource.BinarySI).Cmp(*limit) > 0
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir != nil && over(u.EmptyDirs[v.Name], v.EmptyDir.SizeLimit) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	total := u.Volumes
	for _, n := range u.Containers {
		total += n
	}
	if limit := ephemeralStorage(manifest.PodLimits(&pod.Spec)); over(total, limit) {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if limit := ephemeralStorage(c.Resources.Limits); over(u.Containers[c.Name], limit) {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	return ""
}

func ephemeralStorage(l corev1.ResourceList) *resource.Quantity {
	q, ok := l[corev1.ResourceEphemeralStorage]
	if !ok {
		return nil
	}
	return &q
}

func isLimit(q *resource.Quantity) bool { return q != nil && q.Sign() > 0 }
