//go:build !linux

package bpf

import "errors"

// There is no cheap clock of a thread: what is charged is time, and all
// goroutines share one entry, so that containers that run at once are charged
// too little.
const clockName = "wall clock"

func threadID() uint32 { return 1 }

func threadTime() int64 { return nanotime() }

func threadLives(uint32) bool { return true }

type tables any

func (a *Accounting) share() error { return errors.New("BPF is there on Linux only") }

func (a *Accounting) load(Mechanism) (program, error) { return program{}, errors.ErrUnsupported }
