package cgroup

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestOOM04ScoreAdj(t *testing.T) {
	const capacity = 4 << 30
	of := func(name, request, limit string) corev1.Container {
		c := corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}}
		if request != "" {
			c.Resources.Requests[corev1.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			for _, r := range []corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
				r[corev1.ResourceMemory] = resource.MustParse(limit)
				r[corev1.ResourceCPU] = resource.MustParse("1")
			}
		}
		return c
	}
	side := of("side", "", "")
	always := corev1.ContainerRestartPolicyAlways
	side.RestartPolicy = &always
	critical := int32(nodeCritical)
	shared := corev1.PodSpec{
		Resources:  &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}},
		Containers: []corev1.Container{of("a", "", ""), of("b", "1Gi", "")},
	}
	for name, c := range map[string]struct {
		pod      corev1.PodSpec
		capacity int64
		want     int
	}{
		"Guaranteed":                {corev1.PodSpec{Containers: []corev1.Container{of("a", "", "1Gi")}}, capacity, -997},
		"BestEffort":                {corev1.PodSpec{Containers: []corev1.Container{of("a", "", "")}}, capacity, 1000},
		"node-critical":             {corev1.PodSpec{Priority: &critical, Containers: []corev1.Container{of("a", "", "")}}, capacity, -997},
		"a quarter of the machine":  {corev1.PodSpec{Containers: []corev1.Container{of("a", "1Gi", "")}}, capacity, 750},
		"next to nothing":           {corev1.PodSpec{Containers: []corev1.Container{of("a", "1", "")}}, capacity, 999},
		"the whole machine":         {corev1.PodSpec{Containers: []corev1.Container{of("a", "4Gi", "")}}, capacity, 3},
		"more than there is":        {corev1.PodSpec{Containers: []corev1.Container{of("a", "8Ei", "")}}, capacity, 3},
		"a machine that is unknown": {corev1.PodSpec{Containers: []corev1.Container{of("a", "1Gi", "")}}, 0, 999},
		"half of the pod's rest":    {shared, capacity, 875},
		"a sidecar": {corev1.PodSpec{
			Containers: []corev1.Container{side, of("a", "1Gi", ""), of("b", "2Gi", "")},
		}, capacity, 500},
	} {
		t.Run(name, func(t *testing.T) {
			if got := OOMScoreAdj(&c.pod, &c.pod.Containers[0], c.capacity); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}
