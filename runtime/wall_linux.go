package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// wall is what the kernel holds this process and its pods to.
type wall struct {
	*cgroupfs.Manager
	enforced []string
}

// openWall builds the wall that cfg asks for; nil if it asks for none. What of it
// the host cannot do is said in the log.
func openWall(cfg Config, allocatable corev1.ResourceList) (*wall, error) {
	if cfg.CgroupParent == "" {
		return nil, nil
	}
	m, err := cgroupfs.Open(cgroupfs.Config{
		Parent: cfg.CgroupParent, State: filepath.Join(cfg.DataDir, "cgroups"), PID: os.Getpid(), Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("--cgroup-parent %s: %w", cfg.CgroupParent, err)
	}
	w := &wall{Manager: m}
	cpu, memory := allocatable[corev1.ResourceCPU], allocatable[corev1.ResourceMemory]
	limits := cgroupfs.Limits{CPUShares: cgroup.Shares(cpu.MilliValue())}
	if cpu.MilliValue() < int64(goruntime.NumCPU())*1000 {
		limits.CPUMilli = cpu.MilliValue()
	}
	for what, l := range map[string]cgroupfs.Limits{"cpu": limits, "memory": {MemoryBytes: memory.Value()}} {
		switch err := m.Limit(l); {
		case err == nil:
			w.enforced = append(w.enforced, what)
		case errors.Is(err, cgroupfs.ErrNotSupported):
			cfg.Log.Warn("the kernel bounds this process only in part", "missing", what, "error", err)
		default:
			return nil, errors.Join(fmt.Errorf("--cgroup-parent %s: %w", cfg.CgroupParent, err), m.Close())
		}
	}
	slices.Sort(w.enforced)
	cfg.Log.Info("the kernel bounds this process", "group", m.Path(), "resources", strings.Join(w.enforced, ","))
	return w, nil
}

func (w *wall) stats() *metrics.Wall {
	if w == nil {
		return nil
	}
	s, err := w.Wall()
	if err != nil {
		return nil // it has been removed under us
	}
	return &metrics.Wall{
		Path: w.Path(), MemoryLimit: s.MemoryLimit, MemoryUsage: s.MemoryBytes, WorkingSet: s.WorkingSet, OOMKills: s.OOMKills, Throttle: s.Throttle,
	}
}

func (w *wall) close() error {
	if w == nil {
		return nil
	}
	return w.Close()
}

// checks says what of the wall is there.
func (w *wall) checks() []Check {
	if w == nil {
		return checkGroups("")
	}
	checks := []Check{{Name: groupsCheckName, Status: "ok", Mechanism: "group " + w.Path()}}
	for _, controller := range []string{cgroupfs.CPU, cgroupfs.Memory} {
		c := Check{Name: wallCheckName + controller, Status: "enforced", Mechanism: "group " + w.Path()}
		if !slices.Contains(w.enforced, controller) {
			c.Status, c.Mechanism, c.Hint = "absent", "no "+controller+" controller there", "enable the controller in the parent (cgroup.subtree_control)"
		}
		checks = append(checks, c)
	}
	return checks
}

const (
	groupsCheckName = "kernel cgroups"
	wallCheckName   = "kernel's wall: "
)

// checkGroups says what groups of the kernel this process could have.
func checkGroups(parent string) []Check {
	const hint = "set --cgroup-parent to a group that is delegated to wasmpod, or to auto"
	host, err := cgroupfs.Detect()
	if err != nil {
		return []Check{{Name: groupsCheckName, Status: "absent", Mechanism: err.Error()}}
	}
	mode := host.Mode()
	c := Check{Name: groupsCheckName, Status: "ok", Mechanism: "hierarchy: " + string(mode)}
	if mode == cgroupfs.None {
		c.Status, c.Mechanism, c.Hint = "absent", "no cgroup hierarchy is mounted", "mount cgroup2 at /sys/fs/cgroup"
		return []Check{c}
	}
	checks := []Check{c}
	asked := parent
	if asked == "" {
		asked = cgroupfs.Auto
	}
	by, absent := host.Controllers(asked)
	for _, controller := range []string{cgroupfs.CPU, cgroupfs.Memory} {
		c := Check{Name: wallCheckName + controller, Status: "enforced", Mechanism: fmt.Sprintf("%s controller below %s", by[controller], asked)}
		switch {
		case by[controller] == "":
			c.Status, c.Mechanism = "absent", absent[controller]
			c.Hint = "systemd-run --user --scope -p Delegate=yes wasmpod ..., with --cgroup-parent auto"
			if os.Geteuid() == 0 {
				c.Hint = "enable the controller there (cgroup.subtree_control), or name another --cgroup-parent"
			}
		case parent == "":
			c.Status, c.Mechanism, c.Hint = "absent", fmt.Sprintf("not asked for; the %s controller could do it", by[controller]), hint
		}
		checks = append(checks, c)
	}
	return checks
}
