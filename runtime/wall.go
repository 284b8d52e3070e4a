package runtime

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/cgroup"
)

// ParseReserved reads what a kubelet's --system-reserved reads: cpu=500m,memory=1Gi.
// It is taken from what the machine has, before pods are given any.
func ParseReserved(text string) (corev1.ResourceList, error) {
	list := corev1.ResourceList{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok || name != string(corev1.ResourceCPU) && name != string(corev1.ResourceMemory) {
			return nil, fmt.Errorf("%q is neither cpu=QUANTITY nor memory=QUANTITY", part)
		}
		q, err := resource.ParseQuantity(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
		if q.Sign() < 0 {
			return nil, fmt.Errorf("%s: negative", part)
		}
		list[corev1.ResourceName(name)] = q
	}
	return list, nil
}

// reserve takes what is reserved from what there is.
func reserve(allocatable, reserved corev1.ResourceList) error {
	for name, q := range reserved {
		have := allocatable[name]
		have.Sub(q)
		if have.Sign() <= 0 {
			total := allocatable[name]
			return fmt.Errorf("%s=%s is reserved, and there is no more than %s", name, q.String(), total.String())
		}
		allocatable[name] = have
	}
	return nil
}

// ParseEvictionHard reads what Config.EvictBelow is, see cgroup.ParseEvictionHard.
func ParseEvictionHard(text string) (int64, error) {
	return cgroup.ParseEvictionHard(text, totalMemory())
}
