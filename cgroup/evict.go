package cgroup

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// CriticalPriority is that of pods which a node does not evict: system-node-critical
// and system-cluster-critical have it or more (RES-32).
const CriticalPriority = 2_000_000_000

// MemoryUser is a pod that could be evicted because the node is short of memory.
type MemoryUser struct {
	Priority   int32
	Containers []ContainerMemory
}

// ContainerMemory is what a container uses and has requested, in bytes.
type ContainerMemory struct {
	Name          string
	Used, Request int64
}

// over is what the pod uses beyond its requests.
func (u *MemoryUser) over() (n int64) {
	for _, c := range u.Containers {
		n += c.Used - c.Request
	}
	return n
}

// used says whether there is anything to be had from evicting the pod.
func (u *MemoryUser) used() bool {
	for _, c := range u.Containers {
		if c.Used > 0 {
			return true
		}
	}
	return false
}

// before says whether a is to be evicted rather than b (RES-31): first who uses
// more than it has requested, which BestEffort pods do with every byte and
// Guaranteed ones never, then who has the lower priority, then who is furthest
// above its request.
func before(a, b *MemoryUser) bool {
	x, y := a.over(), b.over()
	switch {
	case (x > 0) != (y > 0):
		return x > 0
	case a.Priority != b.Priority:
		return a.Priority < b.Priority
	}
	return x > y
}

// MemoryVictim is the index of the pod to evict when memory is short; false if
// there is none that may be and uses any.
func MemoryVictim(users []MemoryUser) (victim int, ok bool) {
	for i := range users {
		if u := &users[i]; u.Priority >= CriticalPriority || !u.used() {
			continue
		}
		if !ok || before(&users[i], &users[victim]) {
			victim, ok = i, true
		}
	}
	return victim, ok
}

// MemoryEviction is the message of the eviction of a pod, in the kubelet's words
// (RES-31).
func MemoryEviction(u *MemoryUser, threshold, available int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: memory. Threshold quantity: %s, available: %s. ", Bytes(threshold), kibiText(available))
	for _, c := range u.Containers {
		if c.Used > c.Request {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of memory. ", c.Name, kibiText(c.Used), Bytes(c.Request))
		}
	}
	return b.String()
}

// Bytes writes an amount of memory as Kubernetes does, such as 100Mi.
func Bytes(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// kibiText is in Ki, as the kubelet has what the kernel counts in pages.
func kibiText(n int64) string { return Bytes(n &^ 1023) }

// ParseEvictionHard reads the threshold of the kubelet's --eviction-hard for memory,
// in bytes or percent of capacity: "memory.available<100Mi", "memory.available<5%".
// An empty text is no threshold: 0.
func ParseEvictionHard(text string, capacity int64) (threshold int64, err error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	value, ok := strings.CutPrefix(text, "memory.available<")
	if !ok {
		return 0, fmt.Errorf("%q is not memory.available<QUANTITY or memory.available<PERCENT%%", text)
	}
	if percent, ok := strings.CutSuffix(value, "%"); ok {
		q, err := resource.ParseQuantity(percent)
		if err != nil || q.Sign() < 0 || q.Cmp(resource.MustParse("100")) >= 0 {
			return 0, fmt.Errorf("%q: %q is no percentage", text, value)
		}
		return int64(float64(capacity) * q.AsApproximateFloat64() / 100), nil
	}
	q, err := resource.ParseQuantity(value)
	if err != nil || q.Sign() < 0 {
		return 0, fmt.Errorf("%q: %q is no quantity", text, value)
	}
	return q.Value(), nil
}
