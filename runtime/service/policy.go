package service

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// policy is a NetworkPolicy with its selectors parsed.
type policy struct {
	namespace       string
	pods            labels.Selector
	ingress, egress bool // the directions in which it isolates
	in, out         []policyRule
}

// policyRule allows what is at one of its peers and at one of its ports; without
// any, all are meant.
type policyRule struct {
	peers []policyPeer
	ports []networkingv1.NetworkPolicyPort
}

type policyPeer struct {
	pods       labels.Selector // nil: not said
	namespaces labels.Selector // nil: the policy's own
	block      netip.Prefix    // valid: a peer by address
	except     []netip.Prefix
}

// compile parses policies, by namespace. They are valid: what does not parse
// selects nothing.
func compile(policies []*networkingv1.NetworkPolicy) map[string][]*policy {
	out := make(map[string][]*policy)
	for _, np := range policies {
		p := &policy{namespace: np.Namespace, pods: selector(&np.Spec.PodSelector)}
		for _, t := range np.Spec.PolicyTypes {
			p.ingress = p.ingress || t == networkingv1.PolicyTypeIngress
			p.egress = p.egress || t == networkingv1.PolicyTypeEgress
		}
		for _, r := range np.Spec.Ingress {
			p.in = append(p.in, policyRule{peers(r.From), r.Ports})
		}
		for _, r := range np.Spec.Egress {
			p.out = append(p.out, policyRule{peers(r.To), r.Ports})
		}
		out[np.Namespace] = append(out[np.Namespace], p)
	}
	return out
}

// selector parses a selector; nil stays nil.
func selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return nil
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

func peers(list []networkingv1.NetworkPolicyPeer) []policyPeer {
	out := make([]policyPeer, 0, len(list))
	for _, p := range list {
		peer := policyPeer{pods: selector(p.PodSelector), namespaces: selector(p.NamespaceSelector)}
		if b := p.IPBlock; b != nil {
			block, err := netip.ParsePrefix(b.CIDR)
			if err != nil {
				peer.pods = labels.Nothing()
			}
			peer.block = block.Masked()
			for _, e := range b.Except {
				if except, err := netip.ParsePrefix(e); err == nil {
					peer.except = append(peer.except, except.Masked())
				}
			}
		}
		out = append(out, peer)
	}
	return out
}

// Allowed says whether NetworkPolicies let a connection, or a flow of datagrams,
// pass. to is the destination after a Service was resolved. An address that is
// no pod's is one outside; what comes from the node itself need not ask, as it is
// always allowed. Replies pass with the connection that they belong to.
//
// A pod that a policy for a direction selects is isolated in it: only what one
// rule of one of these policies allows passes. A connection passes if both the
// pod that it leaves and the pod that it enters let it. A pod always reaches
// itself.
func (t *Table) Allowed(protocol corev1.Protocol, from netip.Addr, to netip.AddrPort) bool {
	src := party{ip: from.Unmap(), pod: t.Pod(from)}
	dst := party{ip: to.Addr().Unmap(), pod: t.Pod(to.Addr())}
	if src.ip == dst.ip {
		return true
	}
	return t.lets(src, dst, dst.pod, protocol, to.Port(), false) && t.lets(dst, src, dst.pod, protocol, to.Port(), true)
}

// party is one end of a connection; pod is nil for somebody outside.
type party struct {
	ip  netip.Addr
	pod *corev1.Pod
}

// lets says whether the policies of self let it talk with other in a direction.
// target is the pod whose port it is about, nil if it is none.
func (t *Table) lets(self, other party, target *corev1.Pod, protocol corev1.Protocol, port uint16, ingress bool) bool {
	if self.pod == nil {
		return true
	}
	isolated := false
	for _, p := range t.policies[self.pod.Namespace] {
		rules, applies := p.out, p.egress
		if ingress {
			rules, applies = p.in, p.ingress
		}
		if !applies || !p.pods.Matches(labels.Set(self.pod.Labels)) {
			continue
		}
		isolated = true
		for i := range rules {
			if rules[i].hasPort(target, protocol, port) && t.hasPeer(&rules[i], p.namespace, other) {
				return true
			}
		}
	}
	return !isolated
}

func (r *policyRule) hasPort(target *corev1.Pod, protocol corev1.Protocol, port uint16) bool {
	for _, p := range r.ports {
		if want := p.Protocol; want != nil && *want != protocol || want == nil && protocol != corev1.ProtocolTCP {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if target != nil {
				if n, ok := namedPort(target, p.Port.StrVal, protocol); ok && n == port {
					return true
				}
			}
		case p.EndPort != nil:
			if int32(port) >= p.Port.IntVal && int32(port) <= *p.EndPort {
				return true
			}
		case int32(port) == p.Port.IntVal:
			return true
		}
	}
	return len(r.ports) == 0
}

func (t *Table) hasPeer(r *policyRule, namespace string, other party) bool {
	for i := range r.peers {
		if t.isPeer(&r.peers[i], namespace, other) {
			return true
		}
	}
	return len(r.peers) == 0
}

func (t *Table) isPeer(p *policyPeer, namespace string, other party) bool {
	if p.block.IsValid() {
		if !p.block.Contains(other.ip) {
			return false
		}
		for _, e := range p.except {
			if e.Contains(other.ip) {
				return false
			}
		}
		return true
	}
	if other.pod == nil {
		return false
	}
	if p.namespaces == nil && other.pod.Namespace != namespace ||
		p.namespaces != nil && !p.namespaces.Matches(t.namespaceLabels(other.pod.Namespace)) {
		return false
	}
	return p.pods == nil && p.namespaces != nil || p.pods != nil && p.pods.Matches(labels.Set(other.pod.Labels))
}

// namespaceLabels are those of a namespace and the one that every namespace has.
type namespaceLabels struct {
	name string
	set  map[string]string
}

func (t *Table) namespaceLabels(name string) labels.Labels {
	return namespaceLabels{name, t.state.Namespaces[name]}
}

func (l namespaceLabels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

func (l namespaceLabels) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

func (l namespaceLabels) Lookup(key string) (string, bool) {
	if key == corev1.LabelMetadataName {
		return l.name, true
	}
	v, ok := l.set[key]
	return v, ok
}
