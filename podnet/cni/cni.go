// Package cni gives pods a network interface by CNI plugins: a network
// namespace of the kernel, in which the plugins of a configuration set up an
// interface with the pod's IP. It needs root. Sockets of the pod itself stay in
// memory (package podnet); real ones are opened in the namespace by Link.Do.
package cni

import (
	"errors"
	"net/netip"
)

// ErrNotSupported is returned by Open where there is no such thing.
var ErrNotSupported = errors.New("network namespaces are a feature of Linux, and need root")

// Config of a Network.
type Config struct {
	// ConfDir has the configurations of networks, of which the first by name is
	// used, as by the kubelet's runtimes.
	ConfDir string
	// BinDirs have the plugins; default DefaultBinDirs.
	BinDirs []string
	// StateDir is where namespaces are mounted and results are kept, for all
	// processes on this host; default /run/wasmpod/cni.
	StateDir string
}

// DefaultBinDirs are where plugins usually are.
var DefaultBinDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// Pod is what plugins are told of a pod.
type Pod struct{ ID, Namespace, Name, UID string }

// IPs are the pod's addresses, the first being the pod IP.
func (l *Link) IPs() []netip.Addr { return l.ips }
