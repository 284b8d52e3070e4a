//go:build linux && !amd64 && !arm64

package bpf

import "errors"

func (a *Accounting) load(m Mechanism, _ Config) error {
	return errors.New(m.String() + ": there are programs for amd64 and arm64 only")
}
