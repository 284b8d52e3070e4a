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
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/cni"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/podnet/hostport"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
)

// Bounds of what a guest can have the host open for it.
const (
	maxPodListeners = 256 // real sockets of one pod IP
	// Datagram sockets at ports from here on are clients that wait for an answer
	// far more often than servers.
	firstEphemeral = 32768
)

// member is a namespace that is connected: a pod's, or that of all pods on the
// host's network.
type member struct {
	pod    *corev1.Pod // nil: see hostNetwork
	ns     *podnet.Namespace
	at     netip.Addr // where the host has it; invalid: it has not
	link   *cni.Link  // of a pod whose IP is of CNI plugins: real sockets are opened there
	egress *egress.Dialer
	guard  *guard          // of its real sockets
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

// newMember returns a member without a pod.
func (n *network) newMember(ns *podnet.Namespace, at netip.Addr, policy egress.Config) *member {
	policies := []egress.Policy{policy.Policy}
	if policy.Ceiling != nil {
		policies = append(policies, *policy.Ceiling)
	}
	g := n.sockets.newGuard(n.log, policies...)
	if n.sockets != nil {
		policy.Mark = g.mark
	}
	return &member{
		ns: ns, at: at, egress: egress.New(policy), guard: g, limit: hostport.NewLimit(0),
		edge: make(map[edgeKey]*hostport.Forwarder), failed: make(map[edgeKey]bool),
		retired: make(map[*hostport.Forwarder]struct{}),
	}
}

// connect is inproc.Config.Connect.
func (n *network) connect(ctx context.Context, pod *corev1.Pod, id string) (*inproc.Connection, error) {
	if pod.Spec.HostNetwork {
		return n.connectHost(pod)
	}
	var link *cni.Link
	var ns *podnet.Namespace
	var err error
	if n.cni != nil {
		p := cni.Pod{ID: id, Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
		if link, err = n.cni.Add(ctx, p); err != nil {
			return nil, err
		}
		ns, err = n.net.NewNamespaceAt(link.IPs()...)
	} else {
		ns, err = n.net.NewNamespace()
	}
	unlink := func() error {
		if link == nil {
			return nil
		}
		return link.Close(context.WithoutCancel(ctx))
	}
	if err != nil {
		return nil, errors.Join(err, unlink())
	}
	leave, err := n.join(ctx, pod, ns, link)
	if err != nil {
		return nil, errors.Join(err, ns.Close(), unlink())
	}
	return &inproc.Connection{Namespace: ns, IP: ns.IP().String(), Close: func() error { return errors.Join(leave(), ns.Close(), unlink()) }}, nil
}

// egressOf is what a pod may reach outside.
func (n *network) egressOf(pod *corev1.Pod) (egress.Config, error) {
	text, ok := pod.Annotations[egressAnnotation]
	if !ok {
		return egress.Config{Policy: n.egress}, nil
	}
	own, err := egress.Parse(text)
	if err != nil {
		return egress.Config{}, fmt.Errorf("annotation %s: %w", egressAnnotation, err)
	}
	return egress.Config{Policy: own, Ceiling: &n.egress}, nil
}

// noFreePorts is what the scheduler says of a pod whose host ports are taken.
const noFreePorts = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports"

// checkPorts says if another pod has one of the host ports. n.mu is held.
func (n *network) checkPorts(ports []hostPort) error {
	conflict := func(pod *corev1.Pod, taken []hostPort) error {
		for _, p := range ports {
			if slices.ContainsFunc(taken, p.conflicts) {
				return fmt.Errorf("%s: %s/%s is of pod %q in namespace %q", noFreePorts, p.at, p.protocol, pod.Name, pod.Namespace)
			}
		}
		return nil
	}
	for _, other := range n.members {
		if err := conflict(other.pod, other.ports); err != nil {
			return err
		}
	}
	for _, other := range n.host.pods {
		if err := conflict(other.pod, other.ports); err != nil {
			return err
		}
	}
	return nil
}

// join connects the network of a pod with what is outside of it; leave, which
// may be called more than once, undoes that. The error of a host port that is
// taken is the scheduler's, and as there the pod waits until it is free.
func (n *network) join(ctx context.Context, pod *corev1.Pod, ns *podnet.Namespace, link *cni.Link) (leave func() error, _ error) {
	policy, err := n.egressOf(pod)
	if err != nil {
		return nil, err
	}
	at := ns.IP()
	if n.claim == nil && link == nil {
		at = netip.Addr{}
	}
	m := n.newMember(ns, at, policy)
	m.pod, m.ports, m.link = pod, n.hostPorts(pod), link
	m.guard.log = n.log.With("pod", pod.Name, "namespace", pod.Namespace)
	if slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return len(c.Ports) > 0 }) {
		n.sockets.prepare() // it will listen
	}
	n.mu.Lock()
	if err := n.checkPorts(m.ports); err != nil {
		n.mu.Unlock()
		return nil, err
	}
	n.members[ns], n.ips[pod.UID] = m, ns.IP()
	n.stale = true
	n.mu.Unlock()
	leave = func() error { return n.leave(m) }
	for _, p := range m.ports {
		f, err := m.guard.listen(ctx, strings.ToLower(string(p.protocol)), p.at, hostport.Config{
			Dial:  n.dialer(m, netip.AddrPortFrom(ns.IP(), p.target)),
			Limit: m.limit, Log: n.log,
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", noFreePorts, err), leave())
		}
		m.mu.Lock()
		m.bound = append(m.bound, f)
		m.mu.Unlock()
	}
	return leave, nil
}

// dialer connects clients of the host to an address of the pod.
func (n *network) dialer(m *member, to netip.AddrPort) hostport.Dial {
	return func(ctx context.Context, network string, client netip.AddrPort) (net.Conn, error) {
		return dialPod(ctx, m.ns, network, client, to)
	}
}

// leave undoes join.
func (n *network) leave(m *member) error {
	m.mu.Lock()
	m.left = true
	edge := slices.AppendSeq(slices.Collect(maps.Values(m.edge)), maps.Keys(m.retired))
	m.edge = nil
	bound := m.bound
	m.bound = nil
	m.mu.Unlock()
	var errs []error
	for _, f := range bound {
		errs = append(errs, f.Close())
	}
	for _, f := range edge {
		errs = append(errs, f.Close())
	}
	m.ending.Wait()
	errs = append(errs, m.egress.Close(), m.guard.close())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members[m.ns] == m {
		delete(n.members, m.ns)
		if m.pod != nil {
			delete(n.ips, m.pod.UID)
		}
		n.stale = true
	}
	return errors.Join(errs...)
}

// listening is podnet.Config.Changed: what a pod listens on at its IP can be
// reached at that IP by processes of the host, for which loopback has it. It
// returns when it can, so that a client need not try again. On the host's
// network a port that the host does not give is an error.
func (n *network) listening(ns *podnet.Namespace, proto podnet.Proto, port uint16) error {
	n.mu.Lock()
	m := n.members[ns]
	n.mu.Unlock()
	if m == nil || !m.at.IsValid() || m.pod != nil && proto == podnet.UDP && port >= firstEphemeral {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return nil
	}
	key, at := edgeKey{proto, port}, netip.AddrPortFrom(m.at, port)
	f := m.edge[key]
	if !ns.Takes(proto, at) {
		delete(m.failed, key)
		if f != nil {
			delete(m.edge, key)
			m.unbind(key, f)
		}
		return nil
	}
	if f != nil || m.failed[key] {
		return nil
	}
	if len(m.edge)+len(m.failed) >= maxPodListeners {
		if m.pod == nil {
			return syscall.ENFILE
		}
		return nil
	}
	err := m.do(context.Background(), func() (err error) {
		f, err = m.guard.listen(context.Background(), proto.String(), at, hostport.Config{
			Dial: n.dialer(m, at), Limit: m.limit, Log: n.log,
		})
		return err
	})
	switch {
	case err == nil:
		m.edge[key] = f
	case m.pod == nil:
		return err
	default:
		m.failed[key] = true
		n.log.Info("a port of a pod is not reachable from the host", "pod", m.pod.Name, "namespace", m.pod.Namespace, "error", err)
	}
	return nil
}

// do runs f, which opens a real socket of the pod, where that belongs.
func (m *member) do(ctx context.Context, f func() error) error {
	if m.link == nil {
		return f()
	}
	return m.link.Do(ctx, f)
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
