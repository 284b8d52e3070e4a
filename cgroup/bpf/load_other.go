//go:build linux && !amd64 && !arm64

package bpf

import "errors"

type tables any

func (a *Accounting) share() error { return errors.New("there are programs for amd64 and arm64 only") }

func (a *Accounting) load(Mechanism) (program, error) { return program{}, errors.ErrUnsupported }
