package runtime

import (
	"slices"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// Mechanisms is by what this Runtime measures and enforces at the moment, in the terms
// of Checks. Within the first second, before programs of the kernel are loaded, it can
// be by less than later.
func (r *Runtime) Mechanisms() []Check {
	m := r.mechanisms.Load()
	if m == nil {
		return r.findMechanisms()
	}
	checks := slices.Clone(*m)
	for i := range checks {
		if checks[i].Name == egressWallName { // it can change at any time
			checks[i] = r.network.sockets.check()
		}
	}
	return checks
}

func (r *Runtime) findMechanisms() []Check {
	var cpu []Check
	if r.cpu == nil {
		cpu = []Check{{Name: cpuCheckName, Status: "absent", Mechanism: "time is not real"}}
	} else {
		cpu = accountingCheck(r.cpu.Mechanism(), r.cpu.Missing())
	}
	checks := append([]Check{checkEngine(r.cfg.Interpreter)}, guestChecks()...)
	checks = append(checks, checkEgress(r.cfg.Egress), r.network.sockets.check(), checkPressure(r.cfg.EvictBelow))
	checks = append(checks, cpu...)
	_, err := confinement()
	checks = append(checks, confinementCheck(err))
	checks = append(checks, r.oom.checks()...)
	return append(checks, r.wall.checks()...)
}

// announce says in the log by what is measured and enforced, as soon as that is
// known, and why not in a better way; and keeps it for metrics.
func (r *Runtime) announce() {
	checks := r.findMechanisms()
	r.mechanisms.Store(&checks)
	for _, c := range checks {
		args := []any{"what", c.Name, "status", c.Status, "by", c.Mechanism}
		if c.Why != "" {
			args = append(args, "not better because", c.Why)
		}
		if c.Hint != "" {
			args = append(args, "to do", c.Hint)
		}
		r.cfg.Log.Info("in force", args...)
	}
	r.observe(func(s *nodeState, _ time.Time) { s.Checks = checks })
}

// startMechanisms loads programs into the kernel once there has been time for what
// is more urgent, and announces what is in force then.
func (r *Runtime) startMechanisms() {
	if r.cpu == nil {
		return // time is not real
	}
	r.tasks.Go(func() {
		if r.oom.start(r.ctx) {
			r.announce()
		}
		select {
		case <-r.ctx.Done():
		case <-r.cpu.Settled(): // when the first container has had time to run
			r.announce()
		}
	})
}

func mechanismMetrics(checks []Check) []metrics.Mechanism {
	out := make([]metrics.Mechanism, 0, len(checks))
	for _, c := range checks {
		out = append(out, metrics.Mechanism{Name: c.Name, Status: c.Status, By: c.Mechanism})
	}
	return out
}

// guestChecks are of what the code of guests is held to by this process alone.
func guestChecks() []Check {
	return []Check{
		{Name: "kill and stop", Status: "enforced", Mechanism: "safepoints in the guest's code"},
		{Name: "file confinement", Status: "enforced", Mechanism: "paths are walked name by name: no link and no race leaves a mount"},
		{Name: "memory limit", Status: "enforced", Mechanism: "all that a container holds is charged to it: linear memory by page, tables, stack, buffers"},
		{Name: "cpu limit", Status: "enforced", Mechanism: "at safepoints, in periods of 100 ms, by the CPU time that is accounted"},
	}
}

const cpuCheckName = "cpu accounting"

// restsToo is when what only a program at the scheduler sees is not seen.
const restsToo = ", but not while it rests: no container runs, or a processor switches more than 400,000 times a second (wasmpod_cpu_accounting_resting)"

// accountingCheck says by what CPU time is measured, and what comes with it.
func accountingCheck(m bpf.Mechanism, missing []error) []Check {
	c := Check{Name: cpuCheckName, Status: "measured", Mechanism: m.String()}
	with := Check{Name: "run queue and page faults", Status: "measured", Mechanism: m.String()}
	if m != bpf.BTFTracepoint {
		c.Status = "fallback"
		c.Why = joinErrors(missing)
		c.Hint = "grant CAP_BPF and CAP_PERFMON (root has them), on a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
	}
	if with.Mechanism += restsToo; m == bpf.ThreadClock {
		with.Status, with.Mechanism, with.Hint = "absent", "only a program at the scheduler sees them", c.Hint
	}
	return []Check{c, with}
}

func joinErrors(errs []error) string {
	var why []string
	for _, err := range errs {
		why = append(why, err.Error())
	}
	return strings.Join(why, "; ")
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
