package podtest

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/lifecycle"
)

// Close ends pods before their test's end, for benchmarks.
func Close(p *Pods) { p.close() }

// OnProgress is told of every fact.
func OnProgress(f func(*corev1.Pod, lifecycle.Fact)) Option {
	return func(c *config) { c.runtime.OnProgress = f }
}
