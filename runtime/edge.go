package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/podnet/hostport"
)

// Bounds of what a guest can have the host open for it.
const (
	maxPodListeners = 256 // real sockets of one pod IP
	// Datagram sockets at ports from here on are clients that wait for an answer
	// far more often than servers.
	firstEphemeral = 32768
)

// member is a pod that is connected.
type member struct {
	pod    *corev1.Pod
	ns     *podnet.Namespace
	egress *egress.Dialer
	limit  *hostport.Limit // of all that comes from the host
	ports  []hostPort      // that the pod holds
	bound  []*hostport.Forwarder

	mu     sync.Mutex // guards what follows
	left   bool
	edge   map[edgeKey]*hostport.Forwarder // pod IP and port, on the host
	failed map[edgeKey]bool                // could not be bound, and were told of
	// retired are unbound and still have connections.
	retired map[*hostport.Forwarder]struct{}
	ending  sync.WaitGroup
}

type edgeKey struct {
	proto podnet.Proto
	port  uint16
}

// hostPort is a port of the host that a pod asks for.
type hostPort struct {
	at       netip.AddrPort
	protocol corev1.Protocol
	target   uint16
}

// conflicts reports whether two pods cannot have both, as the scheduler sees it:
// the unspecified address is all of them.
func (p hostPort) conflicts(q hostPort) bool {
	return p.protocol == q.protocol && p.at.Port() == q.at.Port() &&
		(p.at.Addr() == q.at.Addr() || p.at.Addr().IsUnspecified() || q.at.Addr().IsUnspecified())
}

// hostPorts are the host ports of a pod's containers and sidecars. One that
// names no IP is bound at the node's.
func (n *network) hostPorts(pod *corev1.Pod) (ports []hostPort) {
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 || p.Protocol == corev1.ProtocolSCTP {
				continue
			}
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				ip = n.nodeIP
			}
			ports = append(ports, hostPort{netip.AddrPortFrom(ip.Unmap(), uint16(p.HostPort)), p.Protocol, uint16(p.ContainerPort)})
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return ports
}

// join is inproc.Config.Join. The error of a host port that is taken is the
// scheduler's, and as there the pod waits until it is free.
func (n *network) join(ctx context.Context, pod *corev1.Pod, ns *podnet.Namespace) (leave func() error, _ error) {
	m := &member{
		pod: pod, ns: ns, limit: hostport.NewLimit(0), ports: n.hostPorts(pod),
		edge: make(map[edgeKey]*hostport.Forwarder), failed: make(map[edgeKey]bool),
		retired: make(map[*hostport.Forwarder]struct{}),
	}
	policy := egress.Config{Policy: n.egress}
	if text, ok := pod.Annotations[egressAnnotation]; ok {
		own, err := egress.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", egressAnnotation, err)
		}
		policy = egress.Config{Policy: own, Ceiling: &n.egress}
	}
	m.egress = egress.New(policy)

	n.mu.Lock()
	for _, other := range n.members {
		for _, p := range m.ports {
			if slices.ContainsFunc(other.ports, p.conflicts) {
				n.mu.Unlock()
				return nil, fmt.Errorf("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports: %s/%s is of pod %q in namespace %q",
					p.at, p.protocol, other.pod.Name, other.pod.Namespace)
			}
		}
	}
	n.members[ns], n.ips[pod.UID] = m, ns.IP()
	n.stale = true
	n.mu.Unlock()
	leave = func() error { return n.leave(m) }
	for _, p := range m.ports {
		f, err := hostport.Listen(ctx, strings.ToLower(string(p.protocol)), p.at, hostport.Config{
			Dial:  n.dialer(m, p.target),
			Limit: m.limit, Log: n.log,
		})
		if err != nil {
			err = fmt.Errorf("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports: %w", err)
			return nil, errors.Join(err, leave())
		}
		m.bound = append(m.bound, f)
	}
	return leave, nil
}

// dialer connects clients of the host to a port of the pod.
func (n *network) dialer(m *member, port uint16) hostport.Dial {
	return func(ctx context.Context, network string, client netip.AddrPort) (net.Conn, error) {
		return n.dialPod(ctx, network, client, netip.AddrPortFrom(m.ns.IP(), port))
	}
}

// leave undoes join.
func (n *network) leave(m *member) error {
	m.mu.Lock()
	m.left = true
	edge := slices.AppendSeq(slices.Collect(maps.Values(m.edge)), maps.Keys(m.retired))
	m.edge = nil
	m.mu.Unlock()
	var errs []error
	for _, f := range m.bound {
		errs = append(errs, f.Close())
	}
	m.bound = nil
	for _, f := range edge {
		errs = append(errs, f.Close())
	}
	m.ending.Wait()
	errs = append(errs, m.egress.Close())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members[m.ns] == m {
		delete(n.members, m.ns)
		delete(n.ips, m.pod.UID)
		n.stale = true
	}
	return errors.Join(errs...)
}

// listening is podnet.Config.Changed: what a pod listens on at its IP can be
// reached at that IP by processes of the host, for which loopback has it. It
// returns when it can, so that a client need not try again.
func (n *network) listening(ns *podnet.Namespace, proto podnet.Proto, port uint16) {
	if n.claim == nil || proto == podnet.UDP && port >= firstEphemeral {
		return
	}
	n.mu.Lock()
	m := n.members[ns]
	n.mu.Unlock()
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return
	}
	key, at := edgeKey{proto, port}, netip.AddrPortFrom(ns.IP(), port)
	f := m.edge[key]
	if !ns.Takes(proto, at) {
		delete(m.failed, key)
		if f != nil {
			delete(m.edge, key)
			m.unbind(key, f)
		}
		return
	}
	if f != nil || m.failed[key] || len(m.edge)+len(m.failed) >= maxPodListeners {
		return
	}
	f, err := hostport.Listen(context.Background(), proto.String(), at, hostport.Config{
		Dial: n.dialer(m, port), Limit: m.limit, Log: n.log,
	})
	if err != nil {
		m.failed[key] = true
		n.log.Info("a port of a pod is not reachable from the host", "pod", m.pod.Name, "namespace", m.pod.Namespace, "error", err)
		return
	}
	m.edge[key] = f
}

// unbind ends a listener, and waits for nobody: connections go on when the
// socket that took them is closed. m.mu is held.
func (m *member) unbind(key edgeKey, f *hostport.Forwarder) {
	_ = f.Unbind()
	if key.proto == podnet.UDP {
		m.ending.Go(func() { _ = f.Close() })
		return
	}
	m.retired[f] = struct{}{}
	m.ending.Go(func() {
		f.Wait()
		_ = f.Close()
		m.mu.Lock()
		delete(m.retired, f)
		m.mu.Unlock()
	})
}
