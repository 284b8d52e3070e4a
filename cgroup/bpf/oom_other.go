//go:build !(linux && (amd64 || arm64))

package bpf

import (
	"errors"
	"fmt"
)

// OOMWatch watches for nothing: this is not Linux on amd64 or arm64.
type OOMWatch struct{}

// WatchOOM cannot watch here.
func WatchOOM(OOMConfig) *OOMWatch { return &OOMWatch{} }

// Mechanism is OOMNone.
func (*OOMWatch) Mechanism() OOMMechanism { return OOMNone }

// Missing says why.
func (*OOMWatch) Missing() []error { return []error{errPlatform} }

// Killed is never known.
func (*OOMWatch) Killed(int, int64) (OOMKill, bool) { return OOMKill{}, false }

// Keep cannot keep anything.
func (*OOMWatch) Keep(string) (func() error, error) { return nil, errPlatform }

// Close does nothing.
func (*OOMWatch) Close() error { return nil }

// LastOOMKill is never known.
func LastOOMKill(string) (OOMKill, bool, error) { return OOMKill{}, false, errPlatform }

var errPlatform = fmt.Errorf("BPF: needs Linux on amd64 or arm64: %w", errors.ErrUnsupported)
