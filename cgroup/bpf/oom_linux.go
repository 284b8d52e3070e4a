//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// OOMWatch notes whom the kernel kills for want of memory. Its methods are safe
// for concurrent use.
type OOMWatch struct {
	mechanism  OOMMechanism
	missing    []error
	kills, own *ebpf.Map
	closers    []func() error
}

// rawKill is struct kill of oom.c.
type rawKill struct {
	Time, Group, Limit         uint64
	TotalVM, File, Anon, Shmem uint64
	PID, Known                 uint32
	Adj                        int32
	_                          uint32
	Comm                       [16]byte
}

// What is in Known.
const (
	killSelf = 1 << iota
	killTask
	killLimit
)

// WatchOOM starts to watch, in the best way that works here. It never fails:
// Mechanism says what is in force, and Missing what stood in the way of better.
func WatchOOM(cfg OOMConfig) *OOMWatch {
	w := &OOMWatch{mechanism: OOMNone}
	if err := rlimit.RemoveMemlock(); err != nil {
		w.missing = append(w.missing, fmt.Errorf("BPF: %w", explain(err)))
		return w
	}
	for m := max(cfg.Mechanism, OOMLimit); m < OOMNone; m++ {
		err := w.load(m)
		if err == nil {
			w.mechanism = m
			break
		}
		if err = explain(err); m == OOMLimit && errors.Is(err, unix.EPERM) {
			err = unix.EPERM // some kernels refuse fentry to everybody; else the next says what is needed
		}
		w.missing = append(w.missing, fmt.Errorf("%v: %w", m, err))
	}
	return w
}

func (w *OOMWatch) load(m OOMMechanism) (err error) {
	spec, err := loadOom()
	if err != nil {
		return err
	}
	victim := "btf_victim"
	if m == OOMRaw {
		victim = "raw_victim"
	}
	for name := range spec.Programs {
		if name != "whoami_oom" && name != victim && (m != OOMLimit || name != "fentry_kill") {
			delete(spec.Programs, name)
		}
	}
	if m == OOMLimit {
		if err := spec.Variables["exact"].Set(uint32(1)); err != nil {
			return err
		}
	}
	collection, err := newCollection(spec, nil)
	if err != nil {
		return err
	}
	closers := []func() error{func() error { collection.Close(); return nil }}
	defer func() {
		if err != nil {
			_ = closeInTurn(closers)
		}
	}()
	if _, err := collection.Programs["whoami_oom"].Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("run a program: %w", err)
	}
	for _, name := range []string{"fentry_kill", victim} {
		p := collection.Programs[name]
		if p == nil {
			continue
		}
		var l link.Link
		if m == OOMRaw {
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "mark_victim", Program: p})
		} else {
			l, err = attachFunction(p)
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", strings.ReplaceAll(name, "_", " "), err)
		}
		closers = append(closers, l.Close)
	}
	w.kills, w.own, w.closers = collection.Maps["kills"], collection.Maps["own"], closers
	return nil
}

// closeInTurn closes the last first.
func closeInTurn(closers []func() error) error {
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

// Mechanism is what is in force.
func (w *OOMWatch) Mechanism() OOMMechanism { return w.mechanism }

// Missing is why better mechanisms are not in force.
func (w *OOMWatch) Missing() []error { return w.missing }

// Killed says whether the kernel has killed a process that this one has started, not
// before since, a value of Now. It is told once. The record is there before the
// process can be waited for.
func (w *OOMWatch) Killed(pid int, since int64) (OOMKill, bool) {
	var raw rawKill
	if w.kills == nil || w.kills.Lookup(uint32(pid), unsafe.Pointer(&raw)) != nil {
		return OOMKill{}, false
	}
	_ = w.kills.Delete(uint32(pid))
	return raw.kill(), int64(raw.Time) >= since
}

// Keep has what happens to this process kept beyond its end, under a name in a BPF
// filesystem, for LastOOMKill in another process. The name is to be removed when
// this process ends by itself.
func (w *OOMWatch) Keep(pin string) (remove func() error, err error) {
	if w.own == nil {
		return nil, errors.ErrUnsupported
	}
	m, err := w.own.Clone()
	if err != nil {
		return nil, err
	}
	if err := m.Pin(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the end of this process at %s: %w", pin, err), m.Close())
	}
	return func() error { return errors.Join(m.Unpin(), m.Close()) }, nil
}

// Close stops watching.
func (w *OOMWatch) Close() error {
	err := closeInTurn(w.closers)
	w.closers, w.kills, w.own, w.mechanism = nil, nil, nil, OOMNone
	return err
}

// LastOOMKill says whether the process that had this pin was killed by the kernel
// for want of memory, and removes the pin. An error matches fs.ErrNotExist where
// there is none.
func LastOOMKill(pin string) (k OOMKill, killed bool, err error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return OOMKill{}, false, err
	}
	defer m.Close()
	var raw rawKill
	if m.Type() != ebpf.Array || m.ValueSize() != uint32(unsafe.Sizeof(raw)) || m.MaxEntries() != 1 {
		return OOMKill{}, false, fmt.Errorf("%s is none of ours: %v", pin, m)
	}
	err = m.Lookup(uint32(0), unsafe.Pointer(&raw))
	if err == nil {
		err = m.Unpin()
	}
	return raw.kill(), err == nil && raw.Time != 0, err
}

func (r *rawKill) kill() OOMKill {
	page := int64(os.Getpagesize())
	return OOMKill{
		At: time.Now().Add(time.Duration(int64(r.Time) - nanotime())), PID: int(r.PID), Self: r.Known&killSelf != 0,
		Detailed: r.Known&killTask != 0, Command: unix.ByteSliceToString(r.Comm[:]),
		TotalVM: int64(r.TotalVM) * page, AnonRSS: int64(r.Anon) * page, FileRSS: int64(r.File) * page, ShmemRSS: int64(r.Shmem) * page,
		Group: r.Group, Adj: int(r.Adj), LimitKnown: r.Known&killLimit != 0, Limit: r.Limit,
	}
}
