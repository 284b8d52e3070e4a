//go:build !linux || (!amd64 && !arm64)

package netwall

import "net/netip"

// Wall is nothing here.
type Wall struct{}

// Pod is nothing here. A nil Pod does nothing.
type Pod struct{}

// Open returns ErrNotSupported.
func Open(string) (*Wall, error) { return nil, ErrNotSupported }

func (*Wall) Close() error                       { return nil }
func (*Wall) NewPod([]Destination) (*Pod, error) { return nil, ErrNotSupported }

func (*Pod) SetPolicy([]Destination) error              { return nil }
func (*Pod) MarkDialer(uintptr) error                   { return nil }
func (*Pod) MarkListener(uintptr, netip.AddrPort) error { return nil }
func (*Pod) Stats() Stats                               { return Stats{} }
func (*Pod) Close() error                               { return nil }
