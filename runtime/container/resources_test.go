package container

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// res parses "cpu,memory"; empty parts are unset.
func res(cpu, memory string) corev1.ResourceList {
	list := corev1.ResourceList{}
	if cpu != "" {
		list[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		list[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return list
}

func resContainer(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func TestQuantitiesRES01_RES02(t *testing.T) {
	for in, want := range map[string]string{
		"1000m": "1", "1024Mi": "1Gi", "1.5Gi": "1536Mi", "1000k": "1M", "0.1": "100m", "1e3": "1e3",
	} {
		if got := resource.MustParse(in); got.String() != want {
			t.Errorf("RES-01 %s is %s, want %s", in, got.String(), want)
		}
	}
	pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) { c.Resources.Limits = res("100m", "1M") })
	if got := ContainerLimits(pod, c); got.CPUMilli != 100 || got.MemoryBytes != 1_000_000 {
		t.Errorf("RES-02 got %+v", got)
	}
}

func TestContainerLimits(t *testing.T) {
	for _, tt := range []struct {
		id                    string
		requests, limits, pod corev1.ResourceList
		want                  Limits
	}{
		{"RES-04 nothing", nil, nil, nil, Limits{CPUShares: 2}},
		{"RES-04 request", res("500m", ""), nil, nil, Limits{CPUShares: 512}},
		{"RES-04 request from the limit", nil, res("500m", "1Mi"), nil, Limits{CPUShares: 512, CPUMilli: 500, MemoryBytes: 1 << 20}},
		{"RES-04 an explicit 0 is a request", res("0", ""), res("500m", ""), nil, Limits{CPUShares: 2, CPUMilli: 500}},
		{"RES-07 the pod's limit", nil, nil, res("2", "1Gi"), Limits{CPUShares: 2048, CPUMilli: 2000, MemoryBytes: 1 << 30}},
		{"RES-07 its own limit first", res("1", ""), res("", "1Mi"), res("2", "1Gi"), Limits{CPUShares: 1024, CPUMilli: 2000, MemoryBytes: 1 << 20}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod, c := testPod(func(pod *corev1.Pod, c *corev1.Container) {
				c.Resources = corev1.ResourceRequirements{Requests: tt.requests, Limits: tt.limits}
				if tt.pod != nil {
					pod.Spec.Resources = &corev1.ResourceRequirements{Limits: tt.pod}
				}
			})
			if diff := cmp.Diff(tt.want, ContainerLimits(pod, c)); diff != "" {
				t.Errorf("limits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPodResources(t *testing.T) {
	sidecar := func(c corev1.Container) corev1.Container {
		c.RestartPolicy = ptr(corev1.ContainerRestartPolicyAlways)
		return c
	}
	show := func(l corev1.ResourceList) string {
		cpu, memory := l[corev1.ResourceCPU], l[corev1.ResourceMemory]
		return cpu.String() + " " + memory.String()
	}
	for _, tt := range []struct {
		id               string
		init, containers []corev1.Container
		podRequests      corev1.ResourceList
		podLimits        corev1.ResourceList
		overhead         corev1.ResourceList
		requests, limits string
		enforced         Limits
	}{
		{id: "RES-08 sum of containers",
			containers: []corev1.Container{resContainer("a", res("100m", "1Mi"), res("1", "2Mi")), resContainer("b", res("200m", "1Mi"), res("1", "2Mi"))},
			requests:   "300m 2Mi", limits: "2 4Mi", enforced: Limits{CPUShares: 307, CPUMilli: 2000, MemoryBytes: 4 << 20}},
		{id: "RES-08 an init container needs more",
			init:       []corev1.Container{resContainer("i", res("1", "1Mi"), nil)},
			containers: []corev1.Container{resContainer("a", res("100m", "5Mi"), nil)},
			requests:   "1 5Mi", limits: "0 0", enforced: Limits{CPUShares: 1024}},
		{id: "RES-08 SIDE-13 sidecars count for what starts after them",
			init: []corev1.Container{resContainer("i0", res("300m", ""), nil), sidecar(resContainer("s", res("200m", ""), nil)),
				resContainer("i1", res("300m", ""), nil), sidecar(resContainer("t", res("50m", ""), nil))},
			containers: []corev1.Container{resContainer("a", res("100m", ""), nil)},
			requests:   "500m 0", limits: "0 0", enforced: Limits{CPUShares: 512}},
		{id: "RES-08 pod level replaces per resource, overhead is added",
			containers:  []corev1.Container{resContainer("a", res("100m", "1Mi"), res("1", ""))},
			podRequests: res("2", ""), podLimits: res("3", ""), overhead: res("500m", "1Mi"),
			requests: "2500m 2Mi", limits: "3500m 0", enforced: Limits{CPUShares: 2560, CPUMilli: 3500}},
		{id: "RES-05 a pod limit only if every container has one",
			containers: []corev1.Container{resContainer("a", nil, res("1", "1Mi")), resContainer("b", nil, res("", "1Mi"))},
			requests:   "0 0", limits: "1 2Mi", enforced: Limits{CPUShares: 2, MemoryBytes: 2 << 20}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: tt.init, Containers: tt.containers, Overhead: tt.overhead}}
			if tt.podRequests != nil || tt.podLimits != nil {
				pod.Spec.Resources = &corev1.ResourceRequirements{Requests: tt.podRequests, Limits: tt.podLimits}
			}
			before := pod.DeepCopy()
			if got := show(PodResourceRequests(pod)); got != tt.requests {
				t.Errorf("requests: got %s, want %s", got, tt.requests)
			}
			if got := show(PodResourceLimits(pod)); got != tt.limits {
				t.Errorf("limits: got %s, want %s", got, tt.limits)
			}
			if diff := cmp.Diff(tt.enforced, PodLimits(pod)); diff != "" {
				t.Errorf("enforced (-want +got):\n%s", diff)
			}
			if !cmp.Equal(before, pod) {
				t.Error("the pod was changed")
			}
		})
	}
}
