package wasm

import "fmt"

// SetLimits changes an instance's limits while it runs; see [InstanceConfig] for
// their meaning. What the guest has already stays its own: a memory limit below
// that ends it when it next grows, so look at [Instance.Stats] first.
func (i *Instance) SetLimits(memory, cpuShares int64) error {
	if memory < 0 {
		return fmt.Errorf("memory limit of %d bytes is negative", memory)
	}
	i.memory.account.SetLimit(memory)
	i.turn.shares.Store(cpuShares)
	return nil
}
