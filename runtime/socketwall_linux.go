package runtime

import (
	"path/filepath"

	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

// socketGroup is a v2 group of our own with a process in it: that of the wall
// around it, or one that is made for the purpose and removed by leave. PID 0 is none.
func socketGroup(cfg Config, around *wall, pid int) (dir string, leave func() error, err error) {
	if around != nil && around.Unified() != "" {
		return around.Unified(), func() error { return nil }, nil
	}
	m, err := cgroupfs.Open(cgroupfs.Config{
		Parent: cgroupfs.Auto, State: filepath.Join(cfg.DataDir, "cgroups"), PID: pid, Bare: true, Log: cfg.Log,
	})
	if err != nil {
		return "", nil, err
	}
	return m.Unified(), m.Close, nil
}
