//go:build linux && (amd64 || arm64)

package bpf

import (
	"sync"
	"weak"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

var decoded struct {
	mu    sync.Mutex
	cache weak.Pointer[btf.Cache]
}

// kernelTypes is what has been decoded of the kernel's types, which takes some 20 ms
// and megabytes: shared by what is loaded about the same time, and gone after that.
func kernelTypes() *btf.Cache {
	decoded.mu.Lock()
	defer decoded.mu.Unlock()
	c := decoded.cache.Value()
	if c == nil {
		c = btf.NewCache()
		decoded.cache = weak.Make(c)
	}
	return c
}

// newCollection loads into the kernel what is in spec.
func newCollection(spec *ebpf.CollectionSpec, shared tables) (*ebpf.Collection, error) {
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared, Cache: kernelTypes()})
}
