package inproc

import (
	"errors"
	"fmt"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Update implements sandbox.Container.
func (g *guest) Update(limits container.Limits) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return sandbox.ErrNotRunning
	}
	instances := g.commands.instances()
	if g.instance != nil {
		instances = append(instances, g.instance)
	}
	if limits.MemoryBytes > 0 && (g.limits.MemoryBytes == 0 || limits.MemoryBytes < g.limits.MemoryBytes) {
		if usage := g.memory.Used(); usage >= limits.MemoryBytes {
			return &sandbox.ResizeError{Err: fmt.Errorf("cannot decrease memory limits: attempting to set container %q memory limit (%d) below current usage (%d)",
				g.config.Name, limits.MemoryBytes, usage)}
		}
	}
	g.memory.SetLimit(limits.MemoryBytes) // also where nothing runs yet
	var errs []error
	for _, i := range instances {
		errs = append(errs, i.SetLimits(limits.MemoryBytes, limits.CPUShares))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if g.cpu != nil && limits.CPUMilli != g.limits.CPUMilli {
		g.cpu.SetBandwidth(cgroup.NewBandwidth(limits.CPUMilli))
	}
	g.limits = limits
	return nil
}

// instances are those that run.
func (c *commands) instances() []*wasm.Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*wasm.Instance, 0, len(c.running)+1)
	for i := range c.running {
		list = append(list, i)
	}
	return list
}
