package manifest

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestValidatePodUpdate(t *testing.T) {
	const old = `
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {a: b}}
spec:
  activeDeadlineSeconds: 100
  tolerations: [{key: k, operator: Exists}]
  initContainers:
  - {name: i, image: x:1, resources: {limits: {memory: 1Mi}}}
  - {name: s, image: x:1, restartPolicy: Always, resources: {limits: {memory: 1Mi}}}
  containers:
  - {name: c, image: x:1, resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {memory: 2Mi, ephemeral-storage: 1Gi}}}
`
	set := func(l corev1.ResourceList, name corev1.ResourceName, q string) { l[name] = resource.MustParse(q) }
	for _, tt := range []struct {
		name   string
		edit   func(*corev1.Pod)
		reason string // in the error; empty: none
	}{
		{"MAN-27 nothing", func(*corev1.Pod) {}, ""},
		{"MAN-27 labels and annotations", func(p *corev1.Pod) { p.Labels["a"], p.Annotations = "c", map[string]string{"x": "y"} }, ""},
		{"MAN-27 a toleration more", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "l", Operator: "Exists"})
		}, ""},
		{"MAN-27 a toleration less", func(p *corev1.Pod) { p.Spec.Tolerations = nil }, "spec: Forbidden: pod updates may not change fields other than"},
		{"MAN-27 MAIN-05 images", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.InitContainers[0].Image, p.Spec.InitContainers[1].Image = "x:2", "x:3", "x:4"
		}, ""},
		{"MAN-27 no image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "" }, "spec.containers[0].image: Required value"},
		{"MAN-27 MAIN-05 the environment", func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A"}} }, "spec: Forbidden"},
		{"MAN-27 the policy", func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" }, "spec: Forbidden: pod updates may not change fields other than"},
		{"MAN-27 a container more", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) }, "spec: Forbidden"},
		{"MAN-27 the name", func(p *corev1.Pod) { p.Name = "q" }, "metadata.name: Invalid value"},
		{"DEAD-03 a shorter deadline", func(p *corev1.Pod) { *p.Spec.ActiveDeadlineSeconds = 50 }, ""},
		{"DEAD-03 a longer deadline", func(p *corev1.Pod) { *p.Spec.ActiveDeadlineSeconds = 101 }, "must be less than or equal to previous value"},
		{"DEAD-03 no deadline", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = nil }, "must not update from a positive integer to nil value"},
		{"RES-20 cpu and memory", func(p *corev1.Pod) {
			set(p.Spec.Containers[0].Resources.Requests, "cpu", "200m")
			set(p.Spec.Containers[0].Resources.Limits, "memory", "4Mi")
		}, ""},
		{"RES-20 a sidecar's", func(p *corev1.Pod) { set(p.Spec.InitContainers[1].Resources.Limits, "memory", "2Mi") }, ""},
		{"RES-20 an init container's", func(p *corev1.Pod) { set(p.Spec.InitContainers[0].Resources.Limits, "memory", "2Mi") }, "non-sidecar init containers"},
		{"RES-20 another resource", func(p *corev1.Pod) { set(p.Spec.Containers[0].Resources.Limits, "ephemeral-storage", "2Gi") }, "only cpu and memory"},
		{"RES-20 removed", func(p *corev1.Pod) { delete(p.Spec.Containers[0].Resources.Requests, "cpu") }, "cannot be removed"},
		{"RES-20 another class", func(p *corev1.Pod) {
			for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
				for i := range list {
					r := &list[i].Resources
					set(r.Requests, "memory", "2Mi")
					set(r.Requests, "cpu", "1")
					set(r.Limits, "memory", "2Mi")
					set(r.Limits, "cpu", "1")
				}
			}
		}, "Pod QOS Class may not change"},
		{"RES-20 a limit below the request", func(p *corev1.Pod) { set(p.Spec.Containers[0].Resources.Limits, "memory", "512Ki") }, "must be less than or equal to memory limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := Parse("", Source{Name: "x", Data: []byte(old)})
			if err != nil {
				t.Fatal(err)
			}
			before := objects.Pods[0]
			pod := before.DeepCopy()
			tt.edit(pod)
			err = ValidatePodUpdate(pod, before).ToAggregate()
			switch {
			case tt.reason == "" && err != nil:
				t.Error(err)
			case tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)):
				t.Errorf("%v, want %q", err, tt.reason)
			}
		})
	}
}
