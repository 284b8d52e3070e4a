package inproc

import (
	"sync"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// cpuAccount makes an account of the process's accounting one that the engine
// knows (RES-05).
type cpuAccount struct{ *bpf.Account }

func (a cpuAccount) Stint() wasm.CPUStint { return a.Account.Stint(clockOffset) }

// clockOffset is what the engine's clock has to be set forward by to be that of
// the accounting, which is the kernel's.
var clockOffset = func() int64 {
	offset := int64(0)
	for i := range 10 { // the best of some, should this goroutine be interrupted
		engine := wasm.Now()
		if d := bpf.Now() - engine; i == 0 || d < offset {
			offset = d
		}
	}
	return offset
}()

// podBudget is what the containers of a pod may use together, where the pod has
// limits of its own. Where only its containers do, the sum is bounded anyway.
type podBudget struct {
	once   sync.Once
	cpu    *bpf.Group    // nil: none
	memory *wasm.Account // nil: none
}

func (b *podBudget) of(s *podSandbox) *podBudget {
	b.once.Do(func() {
		if s.pod.Spec.Resources == nil {
			return
		}
		limits := container.PodLimits(s.pod)
		if limits.CPUMilli > 0 && s.cfg.CPU != nil {
			b.cpu = s.cfg.CPU.NewGroup(cgroup.NewBandwidth(limits.CPUMilli))
		}
		if limits.MemoryBytes > 0 {
			b.memory = wasm.NewAccount(limits.MemoryBytes)
		}
	})
	return b
}

// newMemory is what a container's memory is charged to.
func (s *podSandbox) newMemory(limit int64) *wasm.Account {
	if pod := s.budget.of(s).memory; pod != nil {
		return pod.Child(limit)
	}
	return wasm.NewAccount(limit)
}

// openCPU opens the container's account, if CPU time is accounted.
func (g *guest) openCPU() error {
	accounting := g.sandbox.cfg.CPU
	if accounting == nil {
		return nil
	}
	open := accounting.NewAccount
	if group := g.sandbox.budget.of(g.sandbox).cpu; group != nil {
		open = group.NewAccount
	}
	account, err := open(cgroup.NewBandwidth(g.limits.CPUMilli))
	if err != nil {
		return err
	}
	g.cpu = account
	return nil
}

// engineCPU is the account as the engine wants it.
func (g *guest) engineCPU() wasm.CPUAccount {
	if g.cpu == nil {
		return nil
	}
	return cpuAccount{g.cpu}
}
