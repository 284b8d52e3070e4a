//go:build !linux

package cni

import (
	"context"
	"net/netip"
)

// Network is a network that plugins connect pods to.
type Network struct{}

// Open fails.
func Open(context.Context, Config) (*Network, error) { return nil, ErrNotSupported }

// Add fails.
func (*Network) Add(context.Context, Pod) (*Link, error) { return nil, ErrNotSupported }

// Link is a pod's connection to a Network.
type Link struct{ ips []netip.Addr }

// Do fails.
func (*Link) Do(context.Context, func() error) error { return ErrNotSupported }

// Close does nothing.
func (*Link) Close(context.Context) error { return nil }
