package runtime

import (
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// claims are the PersistentVolumeClaims that were applied. The zero value is ready.
type claims struct {
	mu   sync.Mutex
	list map[types.NamespacedName]*corev1.PersistentVolumeClaim
}

func (c *claims) put(claim *corev1.PersistentVolumeClaim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = make(map[types.NamespacedName]*corev1.PersistentVolumeClaim)
	}
	c.list[types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}] = claim.DeepCopy()
}

func (c *claims) get(namespace, name string) (*corev1.PersistentVolumeClaim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	claim, ok := c.list[types.NamespacedName{Namespace: namespace, Name: name}]
	return claim, ok
}

// claimRoot is where claims have their directories, for all runs of this data
// directory (VOL-41).
func (r *Runtime) claimRoot() string { return filepath.Join(r.cfg.DataDir, "volumes") }
