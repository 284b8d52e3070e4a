package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

const oomCheckName = "kernel OOM kills"

// checkOOM says whether it can be told whom the kernel kills for want of memory, and
// by what it is told whom to spare.
func checkOOM(parent string) []Check {
	w := bpf.WatchOOM(bpf.OOMConfig{})
	defer w.Close()
	var groups []cgroupfs.MemoryGroup
	if host, err := cgroupfs.Detect(); err == nil {
		groups, _ = host.MemoryGroups()
	}
	return append(oomChecks(w, groups, keeps()), scoreCheck(parent != ""))
}

// checks is what is in force.
func (g *oomGuard) checks() []Check {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append(oomChecks(g.watch, g.record.Groups, g.unpinned), scoreCheck(g.score != nil))
}

// oomChecks is of what is told of kills: by w, which may be nil, or by counts of
// groups. unpinned is why nothing of this process's own end is kept.
func oomChecks(w *bpf.OOMWatch, groups []cgroupfs.MemoryGroup, unpinned error) []Check {
	c := Check{Name: oomCheckName, Status: "measured"}
	own := Check{Name: "kernel OOM kill of wasmpod", Status: "measured", Mechanism: "a map in " + bpffs + " that the next start reads"}
	if w == nil || w.Mechanism() == bpf.OOMNone {
		c.Status, c.Hint = "fallback", "grant CAP_BPF and CAP_PERFMON (root has them), on a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
		if w != nil {
			c.Why = joinErrors(w.Missing())
		}
		own.Status, own.Hint, own.Why = "fallback", c.Hint, "needs BPF"
	} else {
		c.Mechanism = w.Mechanism().String()
		if w.Mechanism() != bpf.OOMLimit {
			c.Status, c.Why = "fallback", joinErrors(w.Missing())
			c.Hint = "a kernel that has fentry tells whose limit it was, too"
		}
		if unpinned != nil {
			own.Status, own.Why, own.Hint = "fallback", unpinned.Error(), "mount -t bpf bpf "+bpffs
		}
	}
	for _, o := range []*Check{&c, &own} {
		if o.Status != "fallback" || o == &c && c.Mechanism != "" {
			continue
		}
		if _, err := countable(groups); err != nil {
			o.Status, o.Mechanism = "absent", err.Error()
			continue
		}
		o.Mechanism = "the oom_kill count of cgroup " + groups[0].Path
	}
	return []Check{c, own}
}

// countable says whether the kernel counts the kills of the innermost group.
func countable(groups []cgroupfs.MemoryGroup) (uint64, error) {
	if len(groups) == 0 {
		return 0, errors.New("this process is in no cgroup with a memory controller")
	}
	return groups[0].OOMKills()
}

// keeps says why nothing can be kept in bpffs, if so.
func keeps() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return fmt.Errorf("%s: %w", bpffs, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("no BPF filesystem is mounted at %s", bpffs)
	}
	if err := unix.Access(bpffs, unix.W_OK); err != nil {
		return fmt.Errorf("%s: %w", bpffs, err)
	}
	return nil
}

// scoreCheck says what the kernel is told of our worth. asked is that it is to spare
// this process for its pods.
func scoreCheck(asked bool) Check {
	c := Check{
		Name: "oom_score_adj", Status: "enforced",
		Mechanism: fmt.Sprintf("%d for compilers; this process is worth as much as the best protected of its pods", cgroup.BestEffortOOMScoreAdj),
	}
	switch {
	case !asked:
		c.Status, c.Mechanism = "fallback", fmt.Sprintf("%d for compilers; this process stays as it was started", cgroup.BestEffortOOMScoreAdj)
		c.Hint = "set --cgroup-parent to have it spared for Guaranteed pods"
	case !capable(unix.CAP_SYS_RESOURCE):
		c.Status, c.Why, c.Hint = "fallback", "it can be worth no more than as it was started", "grant CAP_SYS_RESOURCE"
	}
	return c
}

// capable says whether this process has a capability.
func capable(capability int) bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), "\nCapEff:")
	hex, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	set, err := strconv.ParseUint(hex, 16, 64)
	return err == nil && set>>capability&1 == 1
}
