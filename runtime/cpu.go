package runtime

import (
	"sync"
	"time"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

// loadDelay keeps the programs out of the way of a start, and of pods that are
// over soon: loading takes some 25 ms of processor time.
const loadDelay = time.Second

// accounting charges the threads of this process, which all Runtimes in it share.
// It is not closed: the kernel detaches the programs when the process ends. There
// is no program at the tick, which would cost every switch of context another 40 to
// 90 ns: guests are charged at safepoints anyway. And the programs rest where they would
// cost too much, or nothing is to be measured.
var accounting = sync.OnceValue(func() *bpf.Accounting {
	return bpf.Open(bpf.Config{Delay: loadDelay, NoTick: true, Rest: true})
})

// processCPU is what containers' CPU time is charged to. It is nil under a fake
// clock: guests take no time there, and a budget that is refilled in real time
// would never be.
func processCPU() *bpf.Accounting {
	began, real := time.Now(), bpf.Now()
	for bpf.Now()-real < 1000 {
	}
	if time.Since(began) == 0 {
		return nil
	}
	return accounting()
}

// CPUMechanism is how containers' CPU time is measured, and why not in a better
// way: each error names one and says what it lacks. In the first second of the
// first container it is the thread's clock, whatever is possible, and while the programs
// rest (see [bpf.Config]).
func (r *Runtime) CPUMechanism() (bpf.Mechanism, []error) {
	a := accounting()
	return a.Mechanism(), a.Missing()
}
