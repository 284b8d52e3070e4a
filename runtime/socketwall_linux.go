package runtime

import (
	"os"
	"path/filepath"

	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

// newSocketGroup returns a v2 group of our own: that of the wall around this process,
// or one that is made for the purpose.
func newSocketGroup(cfg Config, around *wall) (socketGroup, error) {
	if around != nil && around.Unified() != "" {
		nothing := func() error { return nil }
		return socketGroup{dir: around.Unified(), enter: nothing, leave: nothing}, nil
	}
	m, err := cgroupfs.Open(cgroupfs.Config{
		Parent: cgroupfs.Auto, State: filepath.Join(cfg.DataDir, "cgroups"), Bare: true, Log: cfg.Log,
	})
	if err != nil {
		return socketGroup{}, err
	}
	return socketGroup{dir: m.Unified(), enter: func() error { return m.Enter(os.Getpid()) }, leave: m.Close}, nil
}
