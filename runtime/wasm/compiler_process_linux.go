package wasm

import (
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
)

// compilerNice is the niceness of the compiler's process: beside busy guests it
// has a quarter of the processors.
const compilerNice = 5

// startConfined starts a process, and has it confined if confine is not nil and the
// kernel has descriptors of processes.
func startConfined(cmd *exec.Cmd, confine func(pidfd int)) error {
	if confine == nil {
		return cmd.Start()
	}
	pidfd := -1
	cmd.SysProcAttr.PidFD = &pidfd
	if err := cmd.Start(); err != nil || pidfd < 0 {
		return err
	}
	defer unix.Close(pidfd)
	confine(pidfd)
	return nil
}

// stepBack lets the process go behind others. None of it has to succeed.
func stepBack(memory int64) {
	// The first to go when the host, or its group, runs out of memory: as what has
	// requested none (OOM-04).
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(cgroup.BestEffortOOMScoreAdj)), 0)
	// Go's heap is not all: what watch does not see in time ends here.
	limit := uint64(memory) + uint64(memory)/4
	_ = unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit})
	// Linux has a niceness per thread, which new threads inherit.
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, compilerNice)
		}
	}
}
