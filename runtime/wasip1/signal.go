package wasip1

import (
	"context"
	"math/bits"
	"sync"
)

// signals are the signal descriptors of a process. Signals come from any
// goroutine.
type signals struct {
	mu   sync.Mutex
	open []*signalFile    // the latest last
	lost func(signal int) // see OnSignalLost
}

// unblockable are SIGKILL and SIGSTOP.
const unblockable = 1<<(9-1) | 1<<(19-1)

// Signal gives a signal of Linux's numbering to the descriptor that takes it,
// if the guest has opened one: see docs/abi.md. It reports false if there is
// none: whoever sends it then does what is next, the guest's handler or the
// default action. It is safe for concurrent use.
func (p *Process) Signal(signal int) bool {
	if signal < 1 || signal > 64 {
		return false
	}
	return p.signals.give(1 << (signal - 1))
}

// OnSignalLost sets what is called, on the guest's goroutine, for a signal that
// was pending at a descriptor and that nobody takes any more. Without it such
// signals are dropped. Call it before the guest starts.
func (p *Process) OnSignalLost(f func(signal int)) { p.signals.lost = f }

func (s *signals) give(bit uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.open) - 1; i >= 0; i-- {
		if f := s.open[i]; f.mask&bit != 0 {
			f.pending |= bit
			f.asleep.wake()
			return true
		}
	}
	return false
}

// pass finds others for signals that a descriptor has left behind.
func (s *signals) pass(set uint64) {
	for ; set != 0; set &= set - 1 {
		bit := set & -set
		if !s.give(bit) && s.lost != nil {
			s.lost(bits.TrailingZeros64(bit) + 1)
		}
	}
}

// signalFile is a signal descriptor.
type signalFile struct {
	noFile
	p             *Process
	mask, pending uint64 // under signals.mu
	asleep        watchers
}

func (p *Process) openSignals(mask uint64) *signalFile {
	f := &signalFile{p: p, mask: mask &^ unblockable}
	p.signals.mu.Lock()
	defer p.signals.mu.Unlock()
	p.signals.open = append(p.signals.open, f)
	return f
}

func (f *signalFile) setMask(mask uint64) {
	s := &f.p.signals
	s.mu.Lock()
	f.mask = mask &^ unblockable
	left := f.pending &^ f.mask
	f.pending &= f.mask
	s.mu.Unlock()
	s.pass(left)
}

func (f *signalFile) close() Errno {
	s := &f.p.signals
	s.mu.Lock()
	for i, other := range s.open {
		if other == f {
			s.open = append(s.open[:i], s.open[i+1:]...)
			break
		}
	}
	left := f.pending
	f.pending = 0
	s.mu.Unlock()
	s.pass(left)
	return 0
}

func (f *signalFile) filetype() uint8 { return filetypeUnknown }

func (f *signalFile) stat() (filestat, Errno) {
	return streamStat(filetypeUnknown, 0, f.p.ns.created), 0
}

// take fills buf with the numbers of pending signals.
func (f *signalFile) take(buf []byte) (n int) {
	f.p.signals.mu.Lock()
	defer f.p.signals.mu.Unlock()
	for ; f.pending != 0 && len(buf)-n >= 4; n += 4 {
		put32(buf[n:], uint32(bits.TrailingZeros64(f.pending)+1))
		f.pending &= f.pending - 1
	}
	return n
}

func (f *signalFile) read(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno) {
	var buf []byte
	for _, b := range bufs {
		if len(b) >= 4 {
			buf = b
			break
		}
	}
	if buf == nil {
		return 0, ErrnoINVAL
	}
	w := f.p.wake
	f.watch(w, false)
	defer f.unwatch(w)
	for {
		w.arm()
		if n := f.take(buf); n > 0 {
			w.disarm()
			return n, 0
		}
		if nonblock {
			w.disarm()
			return 0, ErrnoAGAIN
		}
		if errno := w.wait(ctx, nil); errno != 0 {
			return 0, errno
		}
	}
}

func (f *signalFile) poll(write bool) (ready bool, nbytes uint64, hangup bool) {
	if write {
		return false, 0, false
	}
	f.p.signals.mu.Lock()
	defer f.p.signals.mu.Unlock()
	return f.pending != 0, 4 * uint64(bits.OnesCount64(f.pending)), false
}

func (f *signalFile) watch(w *waker, _ bool) {
	f.p.signals.mu.Lock()
	defer f.p.signals.mu.Unlock()
	f.asleep.add(w)
}

func (f *signalFile) unwatch(w *waker) {
	f.p.signals.mu.Lock()
	defer f.p.signals.mu.Unlock()
	f.asleep.remove(w)
}
