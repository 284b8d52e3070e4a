package upstream

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

func genService(t *rapid.T) *corev1.Service {
	g := gen{t, rapid.Bool().Draw(t, "tidy"), new(int)}
	svc := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}}
	svc.Name = one(g, "name", []string{"s", "0web"}, []string{"", "S", "a.b", strings.Repeat("a", 64)})
	if g.chance("annotations", g.untidy(10)) {
		svc.Annotations = map[string]string{
			corev1.AnnotationLoadBalancerSourceRangesKey:  one(g, "ranges", []string{"10.0.0.0/8, 1.2.3.0/24", ""}, []string{"x"}),
			corev1.DeprecatedAnnotationTopologyAwareHints: "a", corev1.AnnotationTopologyMode: one(g, "mode", []string{"a"}, []string{"b"}),
		}
	}
	s := &svc.Spec
	s.Type = one(g, "type", []corev1.ServiceType{"", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}, []corev1.ServiceType{"x"})
	external, exposed := s.Type == "ExternalName", s.Type == "NodePort" || s.Type == "LoadBalancer"
	if external || g.chance("external name", g.untidy(10)) {
		s.ExternalName = one(g, "external name", []string{"a.example", "a.example."}, []string{"", "A B", "."})
	}
	fewest := 1
	if external {
		fewest = 0
	}
	ports := one(g, "ports", []int{fewest, 2}, []int{0})
	for i := range ports {
		p := corev1.ServicePort{
			Name:       one(g, "port name", []string{"p" + string(rune('0'+i))}, []string{"", "p0", "P", "a--b"}),
			Port:       one(g, "port", []int32{80 + int32(i)}, []int32{80, 0, -1, 65536}),
			Protocol:   one(g, "protocol", []corev1.Protocol{"", "TCP", "UDP", "SCTP"}, []corev1.Protocol{"tcp"}),
			TargetPort: one(g, "target", []intstr.IntOrString{{}, intstr.FromInt32(8080), intstr.FromString("http"), intstr.FromString("")}, []intstr.IntOrString{intstr.FromInt32(-1), intstr.FromString("8080"), intstr.FromString("X")}),
			AppProtocol: maybe(g, "app protocol", 10, func() string {
				return one(g, "app protocol", []string{"http", "k8s.io/h2c"}, []string{"", "a b"})
			}),
		}
		if exposed || g.chance("node port", g.untidy(10)) {
			p.NodePort = one(g, "node port", []int32{0, 30000 + int32(i)}, []int32{30000})
		}
		s.Ports = append(s.Ports, p)
	}
	if g.chance("selector", 80) {
		s.Selector = map[string]string{one(g, "label", []string{"a", "x.y/b"}, []string{"", "a b"}): one(g, "value", []string{"", "v"}, []string{"a b"})}
	}
	s.SessionAffinity = one(g, "affinity", []corev1.ServiceAffinity{"", "None", "ClientIP"}, []corev1.ServiceAffinity{"x"})
	if g.chance("affinity config", 30) && s.SessionAffinity != "x" {
		s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: maybe(g, "client", 80, func() corev1.ClientIPConfig {
			return corev1.ClientIPConfig{TimeoutSeconds: maybe(g, "timeout", 80, func() int32 { return one(g, "timeout", []int32{1, 86400}, []int32{0, -1, 86401}) })}
		})}
	}
	if !external || g.chance("cluster IP", g.untidy(20)) {
		good := []string{"", "10.0.0.1", "fd00::1"}
		if !exposed {
			good = append(good, "None")
		}
		s.ClusterIP = one(g, "cluster IP", good, []string{"None", "x", "010.0.0.1", "::ffff:1.2.3.4"})
		if g.chance("cluster IPs", g.untidy(30)) {
			s.ClusterIPs = one(g, "cluster IPs", [][]string{{s.ClusterIP}}, [][]string{{"10.0.0.1"}, {"10.0.0.1", "fd00::1"}, {"10.0.0.1", "10.0.0.2"}, {"None", "10.0.0.1"}, {"10.0.0.1", "fd00::1", "10.0.0.2"}, {"", "x"}})
		}
		if g.chance("families", g.untidy(30)) {
			s.IPFamilies = one(g, "families", [][]corev1.IPFamily{{"IPv4"}, {"IPv6"}, {"IPv4", "IPv6"}}, [][]corev1.IPFamily{{"IPv4", "IPv4"}, {"x"}})
		}
		s.IPFamilyPolicy = maybe(g, "family policy", 20, func() corev1.IPFamilyPolicy {
			return one(g, "family policy", []corev1.IPFamilyPolicy{"SingleStack", "PreferDualStack"}, []corev1.IPFamilyPolicy{"x"})
		})
	}
	if g.chance("external IPs", 10) {
		s.ExternalIPs = one(g, "external IPs", [][]string{{"1.2.3.4"}}, [][]string{{"127.0.0.1"}, {"0.0.0.0"}, {"169.254.1.1"}, {"224.0.0.1"}, {"x"}, {"::1"}})
	}
	if s.Type == "LoadBalancer" || g.chance("balancer", g.untidy(5)) {
		s.LoadBalancerSourceRanges = one(g, "ranges", [][]string{nil, {" 10.0.0.0/8 "}}, [][]string{{"10.0.0.1/8"}, {"x"}})
		s.LoadBalancerClass = maybe(g, "class", 20, func() string { return one(g, "class", []string{"a/b"}, []string{"a b"}) })
		s.AllocateLoadBalancerNodePorts = maybe(g, "allocate", 20, func() bool { return g.chance("allocate", 50) })
	}
	if exposed || g.chance("external policy", g.untidy(10)) {
		s.ExternalTrafficPolicy = one(g, "external policy", []corev1.ServiceExternalTrafficPolicy{"", "Cluster"}, []corev1.ServiceExternalTrafficPolicy{"x"})
	}
	if g.chance("health check", g.untidy(5)) {
		s.HealthCheckNodePort = 31000
	}
	s.InternalTrafficPolicy = maybe(g, "internal policy", 20, func() corev1.ServiceInternalTrafficPolicy {
		return one(g, "internal policy", []corev1.ServiceInternalTrafficPolicy{"Cluster", "Local"}, []corev1.ServiceInternalTrafficPolicy{"x", ""})
	})
	s.TrafficDistribution = maybe(g, "distribution", 10, func() string { return one(g, "distribution", []string{"PreferClose", "PreferSameNode"}, []string{"x"}) })
	s.PublishNotReadyAddresses = g.chance("not ready", 10)
	return svc
}

// Services get the same defaults and the same errors as upstream's, word for
// word (WL-30).
func TestGeneratedServices(t *testing.T) {
	valid, messages := 0, map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		svc := genService(t)
		data, err := json.Marshal(svc)
		if err != nil {
			t.Fatalf("%v", err)
		}
		v, err := upstream(data)
		if err != nil || v.decode != nil {
			t.Fatalf("upstream on %s: %v, %v", data, v.decode, err)
		}
		objs, problems := ours("service.json", data)
		if d := cmp.Diff(v.texts(), ourTexts(problems)); d != "" {
			t.Fatalf("problems of %s (-upstream +ours)\n%s", data, d)
		}
		for _, e := range v.errs {
			messages[indexes.ReplaceAllString(e.Field, "")+": "+string(e.Type)] = true
		}
		if objs != nil {
			valid++
			got := objs.Services[0].DeepCopy()
			got.TypeMeta = metav1.TypeMeta{}
			if !apiequality.Semantic.DeepEqual(v.service, got) {
				t.Errorf("defaulted Service (-upstream +ours)\n%s", cmp.Diff(v.service, got))
			}
		}
	})
	t.Logf("%d valid Services, %d different errors", valid, len(messages))
	if valid < 10 || len(messages) < 20 {
		t.Errorf("the generator is too tame: %d valid, %d different errors", valid, len(messages))
	}
}

func genPolicy(t *rapid.T) *networkingv1.NetworkPolicy {
	g := gen{t, rapid.Bool().Draw(t, "tidy"), new(int)}
	selector := func() metav1.LabelSelector {
		s := metav1.LabelSelector{}
		if g.chance("labels", 50) {
			s.MatchLabels = map[string]string{one(g, "label", []string{"a"}, []string{"", "a b"}): one(g, "value", []string{"v", ""}, []string{"a b"})}
		}
		s.MatchExpressions = many(g, "expressions", 1, func() metav1.LabelSelectorRequirement {
			r := metav1.LabelSelectorRequirement{Key: "a", Operator: one(g, "operator", []metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}, []metav1.LabelSelectorOperator{"x"})}
			if (r.Operator == "In" || r.Operator == "NotIn") != g.chance("wrong values", g.untidy(5)) {
				r.Values = []string{"v"}
			}
			return r
		})
		return s
	}
	peer := func() networkingv1.NetworkPolicyPeer {
		var p networkingv1.NetworkPolicyPeer
		what := one(g, "peer", []int{1, 2, 3, 4}, []int{0, 5, 7})
		if what&1 != 0 {
			s := selector()
			p.PodSelector = &s
		}
		if what&2 != 0 {
			s := selector()
			p.NamespaceSelector = &s
		}
		if what&4 != 0 {
			p.IPBlock = &networkingv1.IPBlock{CIDR: one(g, "cidr", []string{"10.0.0.0/8", "0.0.0.0/0", "fd00::/8"}, []string{"", "x", "10.0.0.1/8"}),
				Except: one(g, "except", [][]string{nil}, [][]string{{"10.1.0.0/16"}, {"10.0.0.0/8"}, {"x"}, {"11.0.0.0/16"}, {"10.1.0.1/16"}})}
		}
		return p
	}
	port := func() networkingv1.NetworkPolicyPort {
		return networkingv1.NetworkPolicyPort{
			Protocol: maybe(g, "protocol", 50, func() corev1.Protocol {
				return one(g, "protocol", []corev1.Protocol{"TCP", "UDP", "SCTP"}, []corev1.Protocol{"tcp", ""})
			}),
			Port: maybe(g, "port", 80, func() intstr.IntOrString {
				return one(g, "port", []intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("http")}, []intstr.IntOrString{intstr.FromInt32(0), intstr.FromString("X"), intstr.FromString("80")})
			}),
			EndPort: maybe(g, "end", g.untidy(30), func() int32 { return one(g, "end", []int32{90, 80}, []int32{79, 65536}) }),
		}
	}
	np := &networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}}
	np.Name = one(g, "name", []string{"p", "a.b"}, []string{"", "P"})
	np.Spec.PodSelector = selector()
	np.Spec.Ingress = many(g, "ingress", 2, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{Ports: many(g, "ports", 2, port), From: many(g, "from", 2, peer)}
	})
	np.Spec.Egress = many(g, "egress", 2, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{Ports: many(g, "ports", 2, port), To: many(g, "to", 2, peer)}
	})
	np.Spec.PolicyTypes = one(g, "types", [][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}, [][]networkingv1.PolicyType{{"x"}, {"Ingress", "Egress", "Ingress"}})
	return np
}

// NetworkPolicies too.
func TestGeneratedNetworkPolicies(t *testing.T) {
	valid, messages := 0, map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		np := genPolicy(t)
		data, err := json.Marshal(np)
		if err != nil {
			t.Fatalf("%v", err)
		}
		v, err := upstream(data)
		if err != nil || v.decode != nil {
			t.Fatalf("upstream on %s: %v, %v", data, v.decode, err)
		}
		objs, problems := ours("policy.json", data)
		if d := cmp.Diff(v.texts(), ourTexts(problems)); d != "" {
			t.Fatalf("problems of %s (-upstream +ours)\n%s", data, d)
		}
		for _, e := range v.errs {
			messages[indexes.ReplaceAllString(e.Field, "")+": "+string(e.Type)] = true
		}
		if objs != nil {
			valid++
			got := objs.NetworkPolicies[0].DeepCopy()
			got.TypeMeta = metav1.TypeMeta{}
			if !apiequality.Semantic.DeepEqual(v.policy, got) {
				t.Errorf("defaulted NetworkPolicy (-upstream +ours)\n%s", cmp.Diff(v.policy, got))
			}
		}
	})
	t.Logf("%d valid policies, %d different errors", valid, len(messages))
	if valid < 10 || len(messages) < 15 {
		t.Errorf("the generator is too tame: %d valid, %d different errors", valid, len(messages))
	}
}
