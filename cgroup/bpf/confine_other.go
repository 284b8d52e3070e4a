//go:build !(linux && (amd64 || arm64))

package bpf

// Confinement is of Linux on amd64 and arm64.
type Confinement struct{}

// OpenConfinement cannot work here.
func OpenConfinement() (*Confinement, error) { return nil, errPlatform }

// Add does nothing.
func (*Confinement) Add(int) error { return errPlatform }

// Denied is never more than 0.
func (*Confinement) Denied() uint64 { return 0 }

// Close does nothing.
func (*Confinement) Close() error { return nil }
