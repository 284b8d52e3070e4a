package inproc

import (
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// cpuAccount makes an account of the process's accounting one that the engine
// knows (RES-05).
type cpuAccount struct{ *bpf.Account }

func (a cpuAccount) Stint() wasm.CPUStint { return &cpuStint{stint: a.Account.Stint()} }
func (a cpuAccount) Wait() time.Duration  { return a.Account.Wait(true) }

type cpuStint struct{ stint *bpf.Stint }

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

func (s *cpuStint) Begin(now int64)      { s.stint.Begin(now + clockOffset) }
func (s *cpuStint) End(now int64)        { s.stint.End(now + clockOffset) }
func (s *cpuStint) Check(now int64) bool { return s.stint.Check(now + clockOffset) }

// openCPU opens the container's account, if CPU time is accounted.
func (g *guest) openCPU() error {
	accounting := g.sandbox.cfg.CPU
	if accounting == nil {
		return nil
	}
	account, err := accounting.NewAccount(cgroup.NewBandwidth(g.limits.CPUMilli))
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
