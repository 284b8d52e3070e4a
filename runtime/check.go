package runtime

import (
	"cmp"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Check is one thing that a host can or cannot do for pods.
type Check struct {
	Name string `json:"name"`
	// Status is "enforced", "measured", "ok" or "absent".
	Status string `json:"status"`
	// Mechanism is what does it, or why nothing does.
	Mechanism string `json:"mechanism"`
	// Hint says what to do to get it; empty if there is nothing to do.
	Hint string `json:"hint,omitempty"`
}

// Checks looks at what this host can enforce and measure. It starts nothing.
func Checks(cfg Config) []Check {
	checks := []Check{
		checkDataDir(cfg.DataDir),
		checkEngine(cfg.Interpreter),
		{Name: "kill and stop", Status: "enforced", Mechanism: "safepoints in the guest's code"},
		{Name: "file confinement", Status: "enforced", Mechanism: "paths are walked name by name: no link and no race leaves a mount"},
		{Name: "memory limit", Status: "enforced", Mechanism: "all that a container holds is charged to it: linear memory by page, tables, stack, buffers"},
		{Name: "cpu limit", Status: "enforced", Mechanism: "at safepoints, in periods of 100 ms, by the CPU time that is accounted"},
		checkPodIPs(cfg),
		checkEgress(cfg.Egress),
		{Name: "egress, by the kernel", Status: "absent", Mechanism: "policy is enforced where wasmpod connects for a pod; no program is attached to the process's cgroup"},
		checkPressure(cfg.EvictBelow),
		checkAccounting(),
	}
	return append(checks, checkGroups(cfg.CgroupParent)...)
}

// checkPressure says when pods are evicted.
func checkPressure(below int64) Check {
	c := Check{Name: "memory pressure", Status: "enforced", Mechanism: "pods are evicted when less than " + cgroup.Bytes(below) + " are available"}
	switch {
	case below == 0:
		c.Status, c.Mechanism, c.Hint = "absent", "no pod is ever evicted", "set --eviction-hard memory.available<100Mi"
	case machineMemory().Available == 0:
		c.Status, c.Mechanism = "absent", "this host does not say how much memory is available"
	}
	return c
}

// checkAccounting says by what CPU time is measured.
func checkAccounting() Check {
	a := bpf.Open(bpf.Config{Containers: 1})
	defer a.Close()
	c := Check{Name: "cpu accounting", Status: "measured", Mechanism: a.Mechanism().String()}
	if missing := a.Missing(); len(missing) > 0 {
		var why []string
		for _, err := range missing {
			why = append(why, err.Error())
		}
		c.Mechanism += "; not better because: " + strings.Join(why, "; ")
		c.Hint = "grant CAP_BPF and CAP_PERFMON (root has them), on a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
	}
	return c
}

func checkDataDir(dir string) Check {
	c := Check{Name: "data directory", Status: "ok", Mechanism: dir}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".check"); err == nil {
			f.Close()
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		c.Status, c.Mechanism, c.Hint = "absent", err.Error(), "set --data-dir to a directory that can be written"
	}
	return c
}

func checkEngine(interpreter bool) Check {
	platform := goruntime.GOOS + "/" + goruntime.GOARCH
	switch {
	case interpreter:
		return Check{Name: "engine", Status: "ok", Mechanism: "interpreter, as configured", Hint: "drop --interpreter to compile"}
	case wasm.CompilerSupported():
		return Check{Name: "engine", Status: "ok", Mechanism: "compiler for " + platform}
	}
	return Check{Name: "engine", Status: "ok", Mechanism: "interpreter: no compiler for " + platform}
}

// checkPodIPs says whether processes of the host reach pods at their IPs.
func checkPodIPs(cfg Config) Check {
	c := Check{Name: "pod IPs on the host", Status: "absent", Hint: "use hostPort or a Service of type NodePort"}
	if cfg.PodIPs.IsValid() {
		c.Mechanism = "not with a configured range of pod IPs"
		return c
	}
	claimed, err := claimPodIPs(podnet.DefaultPrefix)
	if err != nil {
		c.Mechanism = err.Error()
		return c
	}
	defer claimed.Close()
	return Check{Name: c.Name, Status: "ok", Mechanism: "listeners on loopback addresses, " + claimed.prefix.String() + " at the moment"}
}

func checkEgress(policy string) Check {
	c := Check{Name: "egress", Status: "enforced", Mechanism: "policy: " + cmp.Or(policy, "allow") + "; the host's loopback and link-local only if listed"}
	if policy != "" {
		if _, err := egress.Parse(policy); err != nil {
			c.Status, c.Mechanism, c.Hint = "absent", err.Error(), "mend --egress: no pod is run with it"
		}
	}
	return c
}
