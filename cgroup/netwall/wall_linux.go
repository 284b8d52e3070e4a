//go:build linux && (amd64 || arm64)

package netwall

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// entry is struct pod.
type entry struct {
	generation, policy                     atomic.Uint32
	checked, denied                        atomic.Uint64
	rxBytes, rxPackets, txBytes, txPackets atomic.Uint64
	_                                      uint64
}

// Wall is what is attached to one group. It is safe for concurrent use.
type Wall struct {
	sockets, destinations, ports *ebpf.Map
	closers                      []func() error

	mu         sync.RWMutex
	memory     []byte // nil once closed
	pods       []entry
	free       []uint32 // first in, first out
	next       uint32
	generation uint32
	lastPolicy uint32
	policies   map[string]*policy
}

// policy is one that pods have. Its number is never given to another: sockets of
// pods that are gone still have it.
type policy struct {
	id      uint32
	users   int
	name    string
	entries entries
}

// Pod is what the sockets of a pod are held to. It is safe for concurrent use, and
// nil does nothing: it is what a host has that cannot do this.
type Pod struct {
	wall       *Wall
	slot       uint32
	generation uint32

	mu     sync.Mutex
	policy *policy // nil once closed
	last   Stats
}

// Open attaches the programs to a group, a directory in a cgroup v2 filesystem.
// The error says what is lacking, in words for the host's operator.
func Open(dir string) (_ *Wall, err error) {
	w := &Wall{policies: make(map[string]*policy)}
	defer func() {
		if err != nil {
			err = errors.Join(explain(err), w.Close())
		}
	}()
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	spec, err := loadWall()
	if err != nil {
		return nil, err
	}
	delete(spec.Programs, wallProgVerdict)
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { collection.Close(); return nil })
	w.sockets, w.destinations, w.ports = collection.Maps[wallMapSockets], collection.Maps[wallMapDestinations], collection.Maps[wallMapPorts]
	if err := w.share(collection.Maps[wallMapPods]); err != nil {
		return nil, err
	}
	group, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	for name, attach := range map[string]ebpf.AttachType{
		wallProgConnect4: ebpf.AttachCGroupInet4Connect, wallProgConnect6: ebpf.AttachCGroupInet6Connect,
		wallProgSendmsg4: ebpf.AttachCGroupUDP4Sendmsg, wallProgSendmsg6: ebpf.AttachCGroupUDP6Sendmsg,
		wallProgBind4: ebpf.AttachCGroupInet4Bind, wallProgBind6: ebpf.AttachCGroupInet6Bind,
		wallProgIngress: ebpf.AttachCGroupInetIngress, wallProgEgress: ebpf.AttachCGroupInetEgress,
	} {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(group.Fd()), Program: collection.Programs[name], Attach: attach})
		if err != nil {
			return nil, fmt.Errorf("attach %s to %s: %w", name, dir, err)
		}
		w.closers = append(w.closers, l.Close)
	}
	return w, nil
}

// share maps the table of pods into this process.
func (w *Wall) share(m *ebpf.Map) error {
	size := MaxPods * int(unsafe.Sizeof(entry{}))
	if m.MaxEntries() != MaxPods || m.ValueSize() != uint32(unsafe.Sizeof(entry{})) {
		return fmt.Errorf("the table of pods is %v", m)
	}
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the table of pods: %w", err)
	}
	w.memory, w.pods = memory, unsafe.Slice((*entry)(unsafe.Pointer(unsafe.SliceData(memory))), MaxPods)
	return nil
}

// Close detaches the programs. Sockets are not checked from then on.
func (w *Wall) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	w.closers = nil
	if w.memory != nil {
		errs = append(errs, unix.Munmap(w.memory))
	}
	w.memory, w.pods = nil, nil
	return errors.Join(errs...)
}

// NewPod returns a Pod with a policy. Close it.
func (w *Wall) NewPod(destinations []Destination) (*Pod, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.memory == nil {
		return nil, os.ErrClosed
	}
	p := &Pod{wall: w}
	switch {
	case w.generation == math.MaxUint32:
		return nil, ErrFull
	case w.next < MaxPods:
		p.slot = w.next
		w.next++
	case len(w.free) > 0:
		p.slot, w.free = w.free[0], w.free[1:]
	default:
		return nil, ErrFull
	}
	var err error
	if p.policy, err = w.use(destinations); err != nil {
		w.free = append(w.free, p.slot)
		return nil, err
	}
	w.generation++
	p.generation = w.generation
	e := &w.pods[p.slot]
	for _, n := range []*atomic.Uint64{&e.checked, &e.denied, &e.rxBytes, &e.rxPackets, &e.txBytes, &e.txPackets} {
		n.Store(0)
	}
	e.policy.Store(p.policy.id)
	e.generation.Store(p.generation)
	return p, nil
}

// use returns the policy of these destinations, for one more user. w.mu is held.
func (w *Wall) use(destinations []Destination) (*policy, error) {
	name := fmt.Sprint(destinations)
	if p := w.policies[name]; p != nil {
		p.users++
		return p, nil
	}
	e, err := encode(destinations)
	if err != nil {
		return nil, err
	}
	if w.lastPolicy == math.MaxUint32 {
		return nil, ErrFull
	}
	w.lastPolicy++
	p := &policy{id: w.lastPolicy, users: 1, name: name, entries: e}
	for _, key := range e.ports {
		if err == nil {
			key.Policy = p.id
			err = w.ports.Put(key, uint8(1))
		}
	}
	for i, key := range e.destinations {
		if err == nil {
			key.Policy = p.id
			err = w.destinations.Put(key, e.sets[i])
		}
	}
	if err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return nil, errors.Join(err, w.remove(p))
	}
	w.policies[name] = p
	return p, nil
}

// drop is use's end. w.mu is held.
func (w *Wall) drop(p *policy) error {
	if p.users--; p.users > 0 {
		return nil
	}
	delete(w.policies, p.name)
	if w.memory == nil {
		return nil
	}
	return w.remove(p)
}

// remove takes out what is there of a policy.
func (w *Wall) remove(p *policy) error {
	var errs []error
	for i := len(p.entries.destinations) - 1; i >= 0; i-- {
		key := p.entries.destinations[i]
		key.Policy = p.id
		errs = append(errs, w.destinations.Delete(key))
	}
	for _, key := range p.entries.ports {
		key.Policy = p.id
		errs = append(errs, w.ports.Delete(key))
	}
	for i, err := range errs {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// SetPolicy replaces the policy. Connections that there are stay.
func (p *Pod) SetPolicy(destinations []Destination) error {
	if p == nil {
		return nil
	}
	p.wall.mu.Lock()
	defer p.wall.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy == nil || p.wall.memory == nil {
		return os.ErrClosed
	}
	now, err := p.wall.use(destinations)
	if err != nil {
		return err
	}
	before := p.policy
	p.policy = now
	p.wall.pods[p.slot].policy.Store(now.id)
	return p.wall.drop(before)
}

// MarkDialer marks a socket that is to connect, or to send datagrams, for the pod.
func (p *Pod) MarkDialer(fd uintptr) error { return p.mark(fd, netip.AddrPort{}) }

// MarkListener marks a socket that is to be bound at an address for the pod, and
// with it the connections that it will accept.
func (p *Pod) MarkListener(fd uintptr, at netip.AddrPort) error {
	if !at.IsValid() {
		return fmt.Errorf("mark a listener: %w", unix.EINVAL)
	}
	return p.mark(fd, at)
}

func (p *Pod) mark(fd uintptr, at netip.AddrPort) error {
	if p == nil {
		return nil
	}
	// A pod that is closed meanwhile has another generation: its sockets do nothing.
	key, value := int32(fd), newMark(p.slot, p.generation, at)
	// By pointers: this is in the way of every connection.
	if err := p.wall.sockets.Put(unsafe.Pointer(&key), unsafe.Pointer(&value)); err != nil {
		return fmt.Errorf("mark a socket of a pod: %w", err)
	}
	return nil
}

// Stats is what has been counted so far, and of a closed Pod what was in the end.
func (p *Pod) Stats() Stats {
	if p == nil {
		return Stats{}
	}
	p.wall.mu.RLock()
	defer p.wall.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy != nil && p.wall.memory != nil {
		e := &p.wall.pods[p.slot]
		p.last = Stats{
			Checked: e.checked.Load(), Denied: e.denied.Load(),
			RxBytes: e.rxBytes.Load(), RxPackets: e.rxPackets.Load(), TxBytes: e.txBytes.Load(), TxPackets: e.txPackets.Load(),
		}
	}
	return p.last
}

// Close has the sockets that there still are of the pod connect, send and bind no
// more.
func (p *Pod) Close() error {
	if p == nil {
		return nil
	}
	p.Stats()
	p.wall.mu.Lock()
	defer p.wall.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.policy
	if had == nil {
		return nil
	}
	p.policy = nil
	if p.wall.memory != nil {
		p.wall.pods[p.slot].generation.Store(0)
		p.wall.free = append(p.wall.free, p.slot)
	}
	return p.wall.drop(had)
}

// explain adds what to do about an error.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: needs CAP_BPF and CAP_NET_ADMIN (or root)", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF", err)
	case errors.As(err, &verifier):
		return fmt.Errorf("refused by the kernel's verifier: %w", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: needs Linux 5.8 with CONFIG_CGROUP_BPF", err)
	}
	return err
}
