//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// tables are the maps that user space and the programs share.
type tables map[string]*ebpf.Map

// share puts the tables where programs can have them, too.
func (a *Accounting) share() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("BPF: %w", explain(err))
	}
	threads, err := newTable(&a.threads, "threads", maxThreads)
	if err != nil {
		return err
	}
	containers, err := newTable(&a.containers, "containers", a.cfg.Containers+1)
	if err != nil {
		return errors.Join(err, threads.Close())
	}
	a.shared = tables{"threads": threads, "containers": containers}
	return nil
}

// newTable makes an array and maps it. It stays mapped: a stint may be under way
// when the Accounting is closed.
func newTable[T any](mapped *[]T, name string, n int) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(*new(T))), MaxEntries: uint32(n), Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return nil, fmt.Errorf("BPF: table of %s: %w", name, explain(err))
	}
	if *mapped, err = mapTable[T](m); err != nil {
		return nil, errors.Join(fmt.Errorf("BPF: %w", explain(err)), m.Close())
	}
	return m, nil
}

// load loads and attaches the programs. They are detached when they are closed
// or, as the kernel does it, when the process ends in whatever way.
func (a *Accounting) load(m Mechanism) (_ program, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%v: %w", m, explain(err))
		}
	}()
	spec, err := loadAccount()
	if err != nil {
		return program{}, err
	}
	spec.Maps["containers"].MaxEntries = uint32(a.cfg.Containers + 1)
	prefix := map[Mechanism]string{BTFTracepoint: "btf_", RawTracepoint: "raw_"}[m]
	for name := range spec.Programs {
		if name != "whoami" && name != "switches" && name[:len(prefix)] != prefix {
			delete(spec.Programs, name)
		}
	}
	collection, err := newCollection(spec, a.shared)
	if err != nil {
		return program{}, err
	}
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		closers = nil
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	closers = append(closers, func() error { collection.Close(); return nil })

	if _, err := collection.Programs["whoami"].Run(&ebpf.RunOptions{}); err != nil {
		return program{}, fmt.Errorf("run a program: %w", err)
	}
	records, err := ringbuf.NewReader(collection.Maps["events"])
	if err != nil {
		return program{}, err
	}
	closers = append(closers, records.Close)
	attach := func(program, tracepoint string) (link.Link, error) {
		p := collection.Programs[prefix+program]
		if p == nil {
			return nil, fmt.Errorf("attach to %s: no program", tracepoint)
		}
		var l link.Link
		var err error
		if m == BTFTracepoint {
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		} else {
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
		}
		if err != nil {
			return nil, fmt.Errorf("attach to %s: %w", tracepoint, err)
		}
		return l, nil
	}
	// Those that rest; threads end seldom.
	var resting []link.Link
	detachSwitch := func() error {
		var errs []error
		for _, l := range resting {
			errs = append(errs, l.Close())
		}
		resting = nil
		return errors.Join(errs...)
	}
	attachSwitch := func() error {
		for _, at := range []struct{ program, tracepoint string }{{"switch", "sched_switch"}, {"tick", "sched_stat_runtime"}} {
			if at.program == "tick" && a.cfg.NoTick {
				continue
			}
			l, err := attach(at.program, at.tracepoint)
			if err != nil {
				return errors.Join(err, detachSwitch())
			}
			resting = append(resting, l)
		}
		return nil
	}
	closers = append(closers, detachSwitch)
	exit, err := attach("exit", "sched_process_exit")
	if err != nil {
		return program{}, err
	}
	closers = append(closers, exit.Close)
	if err := attachSwitch(); err != nil {
		return program{}, err
	}
	a.mechanism.Store(int32(m))
	a.clocked.Store(false)
	var r *rester
	if a.cfg.Rest {
		counter := &switchCounter{program: collection.Programs["switches"]}
		r = &rester{attach: attachSwitch, detach: detachSwitch, switches: counter.busiest}
	}
	dropped := collection.Variables["dropped"]
	return program{
		close:  closeAll,
		rester: r,
		spent:  func() (Spent, error) { return a.readSpent(records) },
		dropped: func() uint64 {
			var n uint64
			if dropped.Get(&n) != nil {
				return 0
			}
			return n
		},
	}, nil
}

func (a *Accounting) readSpent(r *ringbuf.Reader) (Spent, error) {
	for {
		record, err := r.Read()
		if err != nil {
			return Spent{}, err
		}
		var raw struct{ Owner, CPU, Limit, Time uint64 }
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &raw); err != nil {
			return Spent{}, err
		}
		if c := a.account(raw.Owner); c != nil {
			return Spent{Account: c, CPU: time.Duration(raw.CPU - raw.Limit), At: int64(raw.Time)}, nil
		}
	}
}

// mapTable maps an array whose entries are Ts.
func mapTable[T any](m *ebpf.Map) ([]T, error) {
	n := int(m.MaxEntries())
	size := unsafe.Sizeof(*new(T))
	if uintptr(m.ValueSize()) != size || uint64(n)*uint64(size) > math.MaxInt32 {
		return nil, fmt.Errorf("entries of %v have %d bytes, not %d", m, m.ValueSize(), size)
	}
	page := os.Getpagesize()
	length := (n*int(size) + page - 1) / page * page
	memory, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %v: %w", m, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), n), nil
}

// errTrampolines says that functions of the kernel cannot be followed.
var errTrampolines = errors.New("fentry and LSM programs need Linux 6.4 on arm64")

// attachFunction attaches a program to a function of the kernel.
func attachFunction(p *ebpf.Program) (l link.Link, err error) {
	if p.Type() == ebpf.LSM {
		l, err = link.AttachLSM(link.LSMOptions{Program: p})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	}
	if runtime.GOARCH == "arm64" && errors.Is(err, ebpf.ErrNotSupported) {
		err = errTrampolines // the programs of older kernels can be loaded, and called by nobody
	}
	return l, err
}

// explain adds what to do about an error.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch _, noBTF := os.Stat("/sys/kernel/btf/vmlinux"); {
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: needs CAP_BPF and CAP_PERFMON (or root)", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel needs CONFIG_BPF_SYSCALL", err)
	case noBTF != nil:
		return fmt.Errorf("%w: the kernel needs CONFIG_DEBUG_INFO_BTF (/sys/kernel/btf/vmlinux is absent)", err)
	case errors.As(err, &verifier):
		return fmt.Errorf("refused by the kernel's verifier: %w", err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: needs Linux 5.8", err)
	}
	return err
}
