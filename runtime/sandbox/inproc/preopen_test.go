package inproc

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPreopenPorts(t *testing.T) {
	for _, tt := range []struct {
		text       string
		containers int
		want       string
	}{
		{"8080, 8443", 1, "[8080 8443]"},
		{"c0=1,2;c1=3", 2, "[1 2]"},
		{"c1=3", 2, "[]"},
		{"8080", 2, "error"},
		{"0", 1, "error"},
		{"http", 1, "error"},
		{"65536", 1, "error"},
		{"", 1, "[]"},
	} {
		pod := &corev1.Pod{}
		pod.Annotations = map[string]string{preopenPortsAnnotation: tt.text}
		for i := range tt.containers {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i)})
		}
		ports, err := preopenPorts(pod, "c0")
		got := fmt.Sprint(ports)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("%q: %s (%v), want %s", tt.text, got, err, tt.want)
		}
	}
}
