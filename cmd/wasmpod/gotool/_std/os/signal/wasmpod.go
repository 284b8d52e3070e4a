//go:build wasip1

package signal

import (
	"os"
	"sync"
	"syscall"
	_ "unsafe" // for go:linkname
)

// Signals come through a descriptor, which a goroutine reads by way of the
// network poller. What no descriptor takes has its default action at the host.

//go:linkname wasmpodSignalOpen syscall.wasmpodSignalOpen
func wasmpodSignalOpen(mask uint64) (int, error)

//go:linkname wasmpodSignalMask syscall.wasmpodSignalMask
func wasmpodSignalMask(fd int, mask uint64) error

//go:linkname wasmpodSignal syscall.wasmpodSignal
func wasmpodSignal(b [4]byte) syscall.Signal

const numSig = int(syscall.SIGSYS) + 1

var descriptor struct {
	sync.Mutex
	file    *os.File
	fd      int
	wanted  uint64 // bit n is signal n
	ignored uint64
}

func signum(sig os.Signal) int {
	s, ok := sig.(syscall.Signal)
	if !ok || int(s) >= numSig {
		return -1
	}
	return int(s)
}

// setMask tells the host what to send, and opens the descriptor on first use.
// The lock is held.
func setMask() {
	d := &descriptor
	mask := d.wanted | d.ignored
	if d.file != nil {
		wasmpodSignalMask(d.fd, mask)
		return
	}
	if mask == 0 {
		return
	}
	fd, err := wasmpodSignalOpen(mask)
	if err != nil {
		return // the host has no signals; nothing ever comes
	}
	d.fd, d.file = fd, os.NewFile(uintptr(fd), "signals")
	go receive(d.file)
}

func receive(f *os.File) {
	var buf [4]byte
	for {
		if n, err := f.Read(buf[:]); n != len(buf) || err != nil {
			return
		}
		sig := wasmpodSignal(buf)
		descriptor.Lock()
		ignored := descriptor.ignored&(1<<sig) != 0
		descriptor.Unlock()
		if sig != 0 && !ignored {
			process(sig)
		}
	}
}

func change(sig int, wanted, ignored bool) {
	if sig <= 0 || sig >= numSig {
		return
	}
	descriptor.Lock()
	defer descriptor.Unlock()
	bit := uint64(1) << sig
	descriptor.wanted &^= bit
	descriptor.ignored &^= bit
	if wanted {
		descriptor.wanted |= bit
	}
	if ignored {
		descriptor.ignored |= bit
	}
	setMask()
}

func enableSignal(sig int)  { change(sig, true, false) }
func disableSignal(sig int) { change(sig, false, false) }
func ignoreSignal(sig int)  { change(sig, false, true) }

func signalIgnored(sig int) bool {
	descriptor.Lock()
	defer descriptor.Unlock()
	return sig > 0 && sig < numSig && descriptor.ignored&(1<<sig) != 0
}
