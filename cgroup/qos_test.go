package cgroup

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestQOSClass(t *testing.T) {
	for _, tt := range []struct{ name, spec, want string }{
		{"RES-03 nothing", `containers: [{name: a}]`, "BestEffort"},
		{"RES-03 zero is nothing", `containers: [{name: a, resources: {requests: {cpu: "0"}}}]`, "BestEffort"},
		{"RES-03 other resources do not count", `containers: [{name: a, resources: {limits: {ephemeral-storage: 1Gi}}}]`, "BestEffort"},
		{"RES-03 a request", `containers: [{name: a, resources: {requests: {cpu: 100m}}}]`, "Burstable"},
		{"RES-03 limits and equal requests", `containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1024Mi}}}]`, "Guaranteed"},
		{"RES-03 limits only, before defaulting", `containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]`, "Burstable"},
		{"RES-03 unequal", `containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}}]`, "Burstable"},
		{"RES-03 an init container without limits", `
initContainers: [{name: i}]
containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}}]`, "Burstable"},
		{"RES-03 the pod's own resources decide alone", `
resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}
containers: [{name: a}]`, "Guaranteed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var spec corev1.PodSpec
			if err := yaml.Unmarshal([]byte(tt.spec), &spec); err != nil {
				t.Fatal(err)
			}
			if got := QOSClass(&spec); string(got) != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
