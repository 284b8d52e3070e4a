//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Confinement holds processes to what a compiler needs: they get no sockets, execute
// no other program, start no process, and send no signal to and do not trace any
// other process. Its methods are safe for concurrent use.
type Confinement struct {
	tasks   *ebpf.Map
	denied  *ebpf.Variable
	closers []func() error
}

// ErrNotAsked says that the kernel has BPF among its security modules, but does not
// ask it.
var ErrNotAsked = errors.New("the kernel does not ask BPF: boot it with lsm=...,bpf")

// OpenConfinement needs BPF among the kernel's security modules (CONFIG_BPF_LSM, and
// lsm=...,bpf on its command line), CAP_BPF and CAP_PERFMON, and CAP_MAC_ADMIN on some.
func OpenConfinement() (_ *Confinement, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("BPF: %w", explain(err))
	}
	spec, err := loadConfine()
	if err != nil {
		return nil, err
	}
	collection, err := newCollection(spec, nil)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			err = unix.EPERM // the rest is about something else
		}
		return nil, fmt.Errorf("%s: %w", ConfineMechanism, err)
	}
	c := &Confinement{tasks: collection.Maps["confined"], denied: collection.Variables["denied"]}
	c.closers = append(c.closers, func() error { collection.Close(); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for name, p := range collection.Programs {
		l, err := attachFunction(p)
		if err != nil {
			return nil, fmt.Errorf("%s: attach %s: %w", ConfineMechanism, name, explain(err))
		}
		c.closers = append(c.closers, l.Close)
	}
	// Programs can be attached where nobody calls them.
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		unix.Close(fd)
	}
	var asked uint64
	if err := collection.Variables["asked"].Get(&asked); err != nil || asked == 0 {
		return nil, fmt.Errorf("%s: %w", ConfineMechanism, errors.Join(err, ErrNotAsked))
	}
	return c, nil
}

// Add confines a process, given by a descriptor of it (pidfd), with all its threads,
// until it ends.
func (c *Confinement) Add(pidfd int) error {
	if err := c.tasks.Put(uint32(pidfd), uint32(1)); err != nil {
		return fmt.Errorf("%s: %w", ConfineMechanism, err)
	}
	return nil
}

// Denied is how often processes were refused something.
func (c *Confinement) Denied() uint64 {
	var n uint64
	if c.denied.Get(&n) != nil {
		return 0
	}
	return n
}

// Close sets every process free.
func (c *Confinement) Close() error {
	closers := c.closers
	c.closers = nil
	return closeInTurn(closers)
}
