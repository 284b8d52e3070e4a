package probes

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Port is the number that a handler's port stands for: a number, or the name of
// one of the container's own ports (PROBE-24). An error is an attempt that could
// not be made (PROBE-09).
func Port(port intstr.IntOrString, ports []corev1.ContainerPort) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		var err error
		if n, err = byName(port.StrVal, ports); err != nil {
			return 0, err
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

// byName looks a name up; one that is not found may still be a number.
func byName(name string, ports []corev1.ContainerPort) (int, error) {
	for _, p := range ports {
		if p.Name == name {
			return int(p.ContainerPort), nil
		}
	}
	return strconv.Atoi(name)
}
