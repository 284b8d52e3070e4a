package service

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// Of each range, the lower part is for those who ask for an address or a port,
// so that they seldom find it taken (as upstream's allocators have it).
const (
	staticIPs       = 256
	staticNodePorts = 86
)

// ErrFull is returned when a range has no free address or port.
var ErrFull = errors.New("range is full")

// Allocator gives Services their cluster IPs and node ports (WL-30). It is not
// safe for concurrent use.
type Allocator struct {
	prefix netip.Prefix
	ips    map[netip.Addr]bool
	ports  map[int32]bool
	// Free, if not nil, says whether a node port can be had on this host.
	Free func(protocol corev1.Protocol, port uint16) bool
}

// NewAllocator returns an Allocator of cluster IPs in prefix, which has room for
// more than 512 addresses.
func NewAllocator(prefix netip.Prefix) (*Allocator, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 9 {
		return nil, fmt.Errorf("range of cluster IPs %s: need room for 512 addresses", prefix)
	}
	return &Allocator{prefix: prefix, ips: make(map[netip.Addr]bool), ports: make(map[int32]bool)}, nil
}

// Allocate fills in the addresses and node ports of a batch of Services. Those
// who ask for one get it, before the others choose; a cluster IP may lie outside
// the range, since connections to it never leave the node. The error names the
// first Service that cannot have what it asks for.
func (a *Allocator) Allocate(services []*corev1.Service) error {
	for _, svc := range services {
		if err := a.static(svc); err != nil {
			return fmt.Errorf("service %q in namespace %q: %w", svc.Name, svc.Namespace, err)
		}
	}
	for _, svc := range services {
		if err := a.dynamic(svc); err != nil {
			return fmt.Errorf("service %q in namespace %q: %w", svc.Name, svc.Namespace, err)
		}
	}
	return nil
}

func (a *Allocator) static(svc *corev1.Service) error {
	s := &svc.Spec
	if ip, err := netip.ParseAddr(s.ClusterIP); err == nil && s.Type != corev1.ServiceTypeExternalName {
		if a.ips[ip.Unmap()] {
			return fmt.Errorf("failed to allocate IP %s: provided IP is already allocated", s.ClusterIP)
		}
		a.ips[ip.Unmap()] = true
	}
	own := make(map[int32]bool)
	for _, p := range s.Ports {
		if p.NodePort == 0 || own[p.NodePort] {
			continue
		}
		if a.ports[p.NodePort] {
			return fmt.Errorf("node port %d: provided port is already allocated", p.NodePort)
		}
		a.ports[p.NodePort], own[p.NodePort] = true, true
	}
	return nil
}

func (a *Allocator) dynamic(svc *corev1.Service) error {
	s := &svc.Spec
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if s.ClusterIP == "" {
		ip, err := a.freeIP()
		if err != nil {
			return fmt.Errorf("failed to allocate a serviceIP: %w", err)
		}
		s.ClusterIP, s.ClusterIPs = ip.String(), []string{ip.String()}
	}
	balancer := s.Type == corev1.ServiceTypeLoadBalancer && (s.AllocateLoadBalancerNodePorts == nil || *s.AllocateLoadBalancerNodePorts)
	if s.Type != corev1.ServiceTypeNodePort && !balancer {
		return nil
	}
	byPort := make(map[int32]int32) // one number for TCP and UDP of a port
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.NodePort == 0 && byPort[p.Port] != 0 {
			p.NodePort = byPort[p.Port]
		}
		if p.NodePort == 0 {
			port, err := a.freePort(p.Protocol)
			if err != nil {
				return fmt.Errorf("failed to allocate a nodePort: %w", err)
			}
			p.NodePort = port
		}
		byPort[p.Port] = p.NodePort
	}
	return nil
}

func (a *Allocator) freeIP() (netip.Addr, error) {
	first := a.prefix.Addr()
	for range staticIPs {
		first = first.Next()
	}
	// The last address is the broadcast.
	for ip := first; a.prefix.Contains(ip.Next()); ip = ip.Next() {
		if !a.ips[ip] {
			a.ips[ip] = true
			return ip, nil
		}
	}
	return netip.Addr{}, ErrFull
}

func (a *Allocator) freePort(protocol corev1.Protocol) (int32, error) {
	const size = manifest.MaxNodePort - manifest.MinNodePort + 1
	for i := range int32(size) {
		port := manifest.MinNodePort + (staticNodePorts+i)%size
		if !a.ports[port] && (a.Free == nil || a.Free(protocol, uint16(port))) {
			a.ports[port] = true
			return port, nil
		}
	}
	return 0, ErrFull
}

// Again chooses other node ports for a Service than those which it has been given, but
// for those that it asked for. The ports that it had stay taken, and are returned, for
// GiveBack: there are none if it has asked for all it has.
func (a *Allocator) Again(svc, asked *corev1.Service) (had []int32, err error) {
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; asked.Spec.Ports[i].NodePort == 0 && p.NodePort != 0 {
			had, p.NodePort = append(had, p.NodePort), 0
		}
	}
	return had, a.dynamic(svc)
}

// GiveBack says that ports are nobody's again.
func (a *Allocator) GiveBack(ports []int32) {
	for _, port := range ports {
		delete(a.ports, port)
	}
}

// Release gives back what a Service has.
func (a *Allocator) Release(svc *corev1.Service) {
	if ip, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil {
		delete(a.ips, ip.Unmap())
	}
	for _, p := range svc.Spec.Ports {
		delete(a.ports, p.NodePort)
	}
}
