package runtime

import (
	"errors"
	"sync"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
)

// confinement is of the compilers of this process. It takes some 20 ms to be opened, or
// to be refused, and is not closed.
var confinement = sync.OnceValues(bpf.OpenConfinement)

// confine holds a process of the compiler, which reads modules of anybody, to what it
// needs, where the kernel can do that.
func confine(pidfd int) {
	if c, err := confinement(); err == nil {
		_ = c.Add(pidfd) // it has ended: who waits for it is told why
	}
}

// confinementCheck is of what OpenConfinement returned.
func confinementCheck(err error) Check {
	c := Check{Name: "compiler confinement", Status: "enforced", Mechanism: bpf.ConfineMechanism + ": no sockets, no other programs and processes"}
	if err == nil {
		return c
	}
	c.Status, c.Mechanism = "fallback", "a process of its own, with limits of memory and time"
	c.Why, c.Hint = err.Error(), "a kernel with CONFIG_BPF_LSM, booted with lsm=...,bpf, and CAP_BPF and CAP_PERFMON"
	if errors.Is(err, errors.ErrUnsupported) {
		c.Hint = "use Linux"
	}
	return c
}

// checkConfinement says whether the kernel could do it.
func checkConfinement() Check {
	c, err := bpf.OpenConfinement()
	if err == nil {
		err = c.Close()
	}
	return confinementCheck(err)
}
