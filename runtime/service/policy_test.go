package service

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// naive is the definition of the API, written down for one direction: filter
// by filter, over lists, without anything that was prepared.
type naive struct {
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
	namespaces map[string]map[string]string
}

func (n naive) find(ip string) *corev1.Pod {
	for _, p := range n.pods {
		if p.Status.PodIP == ip {
			return p
		}
	}
	return nil
}

func matches(s metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		got, has := labels[e.Key]
		in := false
		for _, v := range e.Values {
			in = in || has && v == got
		}
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			if !in {
				return false
			}
		case metav1.LabelSelectorOpNotIn:
			if in {
				return false
			}
		case metav1.LabelSelectorOpExists:
			if !has {
				return false
			}
		case metav1.LabelSelectorOpDoesNotExist:
			if has {
				return false
			}
		}
	}
	return true
}

func (n naive) labelsOf(ns string) map[string]string {
	all := map[string]string{"kubernetes.io/metadata.name": ns}
	for k, v := range n.namespaces[ns] {
		all[k] = v
	}
	return all
}

func (n naive) direction(kind networkingv1.PolicyType, selfIP, otherIP, targetIP string, protocol corev1.Protocol, port int32) bool {
	self := n.find(selfIP)
	if self == nil {
		return true
	}
	allowed, isolated := false, false
	for _, np := range n.policies {
		about := false
		for _, t := range np.Spec.PolicyTypes {
			about = about || t == kind
		}
		if !about || np.Namespace != self.Namespace || !matches(np.Spec.PodSelector, self.Labels) {
			continue
		}
		isolated = true
		rule := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
			peerOK, portOK := len(peers) == 0, len(ports) == 0
			for _, p := range peers {
				other := n.find(otherIP)
				switch {
				case p.IPBlock != nil:
					_, block, _ := net.ParseCIDR(p.IPBlock.CIDR)
					in := block.Contains(net.ParseIP(otherIP))
					for _, e := range p.IPBlock.Except {
						_, except, _ := net.ParseCIDR(e)
						in = in && !except.Contains(net.ParseIP(otherIP))
					}
					peerOK = peerOK || in
				case other == nil:
				case p.NamespaceSelector == nil:
					peerOK = peerOK || other.Namespace == np.Namespace && matches(*p.PodSelector, other.Labels)
				case p.PodSelector == nil:
					peerOK = peerOK || matches(*p.NamespaceSelector, n.labelsOf(other.Namespace))
				default:
					peerOK = peerOK || matches(*p.NamespaceSelector, n.labelsOf(other.Namespace)) && matches(*p.PodSelector, other.Labels)
				}
			}
			for _, p := range ports {
				if *p.Protocol != protocol {
					continue
				}
				switch {
				case p.Port == nil:
					portOK = true
				case p.Port.Type == intstr.String:
					if target := n.find(targetIP); target != nil {
						for _, c := range target.Spec.Containers {
							for _, cp := range c.Ports {
								portOK = portOK || cp.Name == p.Port.StrVal && cp.Protocol == protocol && cp.ContainerPort == port
							}
						}
					}
				case p.EndPort != nil:
					portOK = portOK || port >= p.Port.IntVal && port <= *p.EndPort
				default:
					portOK = portOK || port == p.Port.IntVal
				}
			}
			allowed = allowed || peerOK && portOK
		}
		if kind == networkingv1.PolicyTypeIngress {
			for _, r := range np.Spec.Ingress {
				rule(r.From, r.Ports)
			}
		} else {
			for _, r := range np.Spec.Egress {
				rule(r.To, r.Ports)
			}
		}
	}
	return allowed || !isolated
}

func (n naive) allowed(protocol corev1.Protocol, from, to string, port int32) bool {
	return from == to || n.direction(networkingv1.PolicyTypeEgress, from, to, to, protocol, port) &&
		n.direction(networkingv1.PolicyTypeIngress, to, from, to, protocol, port)
}

func TestPoliciesAgainstTheDefinition(t *testing.T) {
	yes, no := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
		chance := func(what string) bool { return rapid.Bool().Draw(t, what) }
		ns := func() string { return pick("namespace", "a", "b") }
		labels := func() map[string]string { return map[string]string{pick("key", "x", "y"): pick("value", "1", "2")} }
		selector := func() metav1.LabelSelector {
			switch rapid.IntRange(0, 2).Draw(t, "selector") {
			case 0:
				return metav1.LabelSelector{}
			case 1:
				return metav1.LabelSelector{MatchLabels: labels()}
			}
			return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
				Key: pick("key", "x", "y"), Operator: metav1.LabelSelectorOperator(pick("operator", "In", "NotIn")), Values: []string{pick("value", "1", "2")}}}}
		}
		protocol := func() corev1.Protocol { return corev1.Protocol(pick("protocol", "TCP", "UDP")) }
		model := naive{namespaces: map[string]map[string]string{"a": labels()}}
		for i := range rapid.IntRange(0, 4).Draw(t, "pods") {
			p := newPod(ns(), fmt.Sprint("p", i), fmt.Sprintf("10.0.%d.%d", i%2, i), labels(), true)
			p.Spec.Containers[0].Ports[0].ContainerPort = int32(rapid.IntRange(80, 82).Draw(t, "named"))
			model.pods = append(model.pods, p)
		}
		peers := func() (out []networkingv1.NetworkPolicyPeer) {
			for range rapid.IntRange(0, 2).Draw(t, "peers") {
				var p networkingv1.NetworkPolicyPeer
				what := rapid.IntRange(1, 4).Draw(t, "peer")
				if what == 4 {
					p.IPBlock = &networkingv1.IPBlock{CIDR: pick("cidr", "10.0.0.0/16", "10.0.1.0/24", "0.0.0.0/0")}
					if chance("except") {
						p.IPBlock.Except = []string{"10.0.1.0/25"}
					}
				}
				if what&1 != 0 {
					s := selector()
					p.PodSelector = &s
				}
				if what == 2 || what == 3 {
					s := selector()
					p.NamespaceSelector = &s
				}
				out = append(out, p)
			}
			return out
		}
		ports := func() (out []networkingv1.NetworkPolicyPort) {
			for range rapid.IntRange(0, 2).Draw(t, "ports") {
				proto, n := protocol(), intstr.FromInt32(int32(rapid.IntRange(80, 82).Draw(t, "port")))
				p := networkingv1.NetworkPolicyPort{Protocol: &proto}
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 1:
					p.Port = &n
				case 2:
					end := int32(82)
					p.Port, p.EndPort = &n, &end
				case 3:
					named := intstr.FromString("http")
					p.Port = &named
				}
				out = append(out, p)
			}
			return out
		}
		for range rapid.IntRange(0, 3).Draw(t, "policies") {
			np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns()}}
			np.Spec.PodSelector = selector()
			for range rapid.IntRange(0, 2).Draw(t, "ingress") {
				np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers(), Ports: ports()})
			}
			for range rapid.IntRange(0, 2).Draw(t, "egress") {
				np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers(), Ports: ports()})
			}
			np.Spec.PolicyTypes = rapid.SampledFrom([][]networkingv1.PolicyType{{"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}).Draw(t, "types")
			model.policies = append(model.policies, np)
		}
		table := NewTable(State{Pods: model.pods, Policies: model.policies, Namespaces: model.namespaces, Domain: "cluster.local"})
		ips := []string{"10.0.1.200", "192.0.2.1"}
		for _, p := range model.pods {
			ips = append(ips, p.Status.PodIP)
		}
		for _, from := range ips {
			for _, to := range ips {
				for _, proto := range []corev1.Protocol{"TCP", "UDP"} {
					for port := int32(79); port <= 83; port++ {
						want := model.allowed(proto, from, to, port)
						got := table.Allowed(proto, netip.MustParseAddr(from), netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port)))
						if got != want {
							t.Fatalf("%s from %s to %s:%d: allowed %v, the definition says %v", proto, from, to, port, got, want)
						}
						if got {
							yes++
						} else {
							no++
						}
					}
				}
			}
		}
	})
	if yes == 0 || no == 0 {
		t.Errorf("the generator is too tame: %d allowed, %d denied", yes, no)
	}
}
