package runtime

import (
	"cmp"
	"os"
	goruntime "runtime"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Check is one thing that a host can or cannot do for pods.
type Check struct {
	Name string `json:"name"`
	// Status is "enforced", "measured" or "ok"; "fallback" where it is done, but not as
	// well as elsewhere; or "absent".
	Status string `json:"status"`
	// Mechanism is what does it, or why nothing does.
	Mechanism string `json:"mechanism"`
	// Why says why it is not done by what does it best.
	Why string `json:"why,omitempty"`
	// Hint says what to do to get it; empty if there is nothing to do.
	Hint string `json:"hint,omitempty"`
}

// Checks looks at what this host can enforce and measure. It starts nothing.
func Checks(cfg Config) []Check {
	a := bpf.Open(bpf.Config{Containers: 1})
	defer a.Close()
	checks := append([]Check{checkDataDir(cfg.DataDir), checkEngine(cfg.Interpreter)}, guestChecks()...)
	checks = append(checks, checkPodIPs(cfg), checkEgress(cfg.Egress), checkSocketWall(cfg), checkPressure(cfg.EvictBelow))
	checks = append(checks, accountingCheck(a.Mechanism(), a.Missing())...)
	checks = append(checks, checkConfinement())
	checks = append(checks, checkOOM(cfg.CgroupParent)...)
	return append(checks, checkGroups(cfg.CgroupParent)...)
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
