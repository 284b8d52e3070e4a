package runtime

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
)

// hostNetwork is the network of the pods with spec.hostNetwork (NET-05): one
// namespace for all of them, so that they share localhost and its ports. What
// they listen on is bound at the node's address on the host, and where the host
// does not give it, listen fails as it does there. Loopback addresses at which
// none of them listens are the host's, as far as egress allows that by name.
// Other pods and Services know the namespace by a pod IP of its own: the node's
// is every pod's own localhost.
//
// They are one network in what they may reach, too: what one pod's annotation
// does not allow none of them reaches.
type hostNetwork struct {
	pods      map[types.UID]*hostPod
	namespace atomic.Pointer[podnet.Namespace] // nil while there are no pods
	member    *member
}

type hostPod struct {
	pod    *corev1.Pod
	ports  []hostPort // for the scheduler's sake; they are bound by who listens
	egress egress.Config
}

// connectHost connects a pod to the host's network.
func (n *network) connectHost(pod *corev1.Pod) (*inproc.Connection, error) {
	policy, err := n.egressOf(pod)
	if err != nil {
		return nil, err
	}
	p := &hostPod{pod: pod, ports: n.hostPorts(pod), egress: policy}
	n.sockets.prepare() // its sockets are the host's
	n.mu.Lock()
	if err := n.checkPorts(p.ports); err != nil {
		n.mu.Unlock()
		return nil, err
	}
	ns := n.host.namespace.Load()
	if ns == nil {
		if ns, err = n.net.NewNamespace(); err != nil {
			n.mu.Unlock()
			return nil, err
		}
		ns.ReachThrough(func(proto podnet.Proto, to netip.AddrPort) bool {
			return n.egress.Allows(proto.String(), to) && n.checkHostEgress(proto.String(), to.String()) == nil
		})
		n.host.member = n.newMember(ns, n.nodeIP, egress.Config{Policy: n.egress})
		n.members[ns] = n.host.member
		n.host.namespace.Store(ns)
	}
	n.host.pods[pod.UID], n.ips[pod.UID] = p, ns.IP()
	n.stale = true
	guarded := n.guardHost()
	n.mu.Unlock()
	if guarded != nil {
		return nil, errors.Join(guarded, n.leaveHost(p))
	}
	var once sync.Once
	return &inproc.Connection{Namespace: ns, IP: n.nodeIP.String(), Close: func() (err error) {
		once.Do(func() { err = n.leaveHost(p) })
		return err
	}}, nil
}

// leaveHost undoes connectHost. The sockets of the pod are closed by its guests.
func (n *network) leaveHost(p *hostPod) error {
	n.mu.Lock()
	delete(n.host.pods, p.pod.UID)
	delete(n.ips, p.pod.UID)
	n.stale = true
	m := n.host.member
	last := len(n.host.pods) == 0
	var err error
	if last {
		n.host.member = nil
		n.host.namespace.Store(nil)
	} else {
		err = n.guardHost()
	}
	n.mu.Unlock()
	if !last {
		return err
	}
	return errors.Join(n.leave(m), m.ns.Close())
}

// guardHost has the kernel hold the pods to what all of them allow. n.mu is held.
func (n *network) guardHost() error {
	if n.sockets == nil {
		return nil
	}
	policies := []egress.Policy{n.egress}
	texts := make(map[string]bool)
	for _, p := range n.host.pods {
		if text, ok := p.pod.Annotations[egressAnnotation]; ok && !texts[text] {
			texts[text] = true
			policies = append(policies, p.egress.Policy)
		}
	}
	if len(texts) > maxHostPolicies {
		return fmt.Errorf("pods on the host's network have more than %d different annotations %s", maxHostPolicies, egressAnnotation)
	}
	return n.host.member.guard.set(policies)
}

// checkHostEgress says whether every pod on the host's network allows an
// address; the node's own policy is looked at by whoever dials.
func (n *network) checkHostEgress(network, address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.host.pods {
		if !p.egress.Policy.Allows(network, to) {
			return &net.OpError{Op: "dial", Net: strings.ToLower(network), Err: syscall.EACCES}
		}
	}
	return nil
}
