package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The range that node ports come from, as kube-apiserver has it by default
// (WL-30).
const (
	MinNodePort = 30000
	MaxNodePort = 32767
)

// defaultService fills in what the API server fills in, but for the addresses
// and node ports it allocates.
func defaultService(svc *corev1.Service) {
	s := &svc.Spec
	setDefault(&s.SessionAffinity, corev1.ServiceAffinityNone)
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		s.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := s.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := corev1.DefaultClientIPServiceAffinitySeconds
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	setDefault(&s.Type, corev1.ServiceTypeClusterIP)
	for i := range s.Ports {
		p := &s.Ports[i]
		setDefault(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if externallyAccessible(s) {
		setDefault(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	switch s.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		setPointer(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		setPointer(&s.AllocateLoadBalancerNodePorts, true)
	}
	// A client that knows one field means both.
	if s.ClusterIP != "" && len(s.ClusterIPs) == 0 {
		s.ClusterIPs = []string{s.ClusterIP}
	}
	svc.Status = corev1.ServiceStatus{}
}

func externallyAccessible(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeNodePort ||
		s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0
}

func isHeadless(s *corev1.ServiceSpec) bool {
	return len(s.ClusterIPs) == 1 && s.ClusterIPs[0] == corev1.ClusterIPNone
}

// validateService validates a defaulted Service as on creation (WL-30).
func validateService(svc *corev1.Service) field.ErrorList {
	s, path, headless := &svc.Spec, field.NewPath("spec"), isHeadless(&svc.Spec)
	errs := validateMeta(&svc.ObjectMeta, true, apivalidation.NameIsDNSLabel, field.NewPath("metadata"))
	add := func(e ...*field.Error) { errs = append(errs, e...) }

	annotations := field.NewPath("metadata", "annotations")
	hints, hasHints := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if mode, ok := svc.Annotations[corev1.AnnotationTopologyMode]; ok && hasHints && mode != hints {
		add(field.Invalid(annotations.Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints)))
	}
	if len(s.Ports) == 0 && !headless && s.Type != corev1.ServiceTypeExternalName {
		add(field.Required(path.Child("ports"), ""))
	}
	switch s.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless {
			add(field.Invalid(path.Child("clusterIPs").Index(0), s.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", s.Type)))
		}
	case corev1.ServiceTypeExternalName:
		add(validateExternalName(s, path)...)
	}
	add(validateServicePorts(s, path.Child("ports"))...)
	if s.Selector != nil {
		add(metavalidation.ValidateLabels(s.Selector, path.Child("selector"))...)
	}
	add(validateAffinity(s, path)...)
	add(validateClusterIPs(s, path)...)
	for i, ip := range s.ExternalIPs {
		at := path.Child("externalIPs").Index(i)
		if e := validation.IsValidIPForLegacyField(at, ip, true, nil); len(e) > 0 {
			add(e...)
		} else {
			add(validateEndpointIP(ip, at)...)
		}
	}
	add(supportedValue(path.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	add(validateNodePorts(s, path.Child("ports"))...)
	add(validateLoadBalancer(svc, path)...)
	add(validateTrafficPolicies(s, path)...)
	return errs
}

func validateExternalName(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	const forbidden = "may not be set for ExternalName services"
	if len(s.ClusterIPs) > 0 {
		errs = append(errs, field.Forbidden(path.Child("clusterIPs"), forbidden))
	}
	if len(s.IPFamilies) > 0 {
		errs = append(errs, field.Forbidden(path.Child("ipFamilies"), forbidden))
	}
	if s.IPFamilyPolicy != nil {
		errs = append(errs, field.Forbidden(path.Child("ipFamilyPolicy"), forbidden))
	}
	at := path.Child("externalName")
	// The dot of a fully qualified name may be there.
	name := strings.TrimSuffix(s.ExternalName, ".")
	if name == "" {
		return append(errs, field.Required(at, ""))
	}
	return append(errs, each(at, name, validation.IsDNS1123Subdomain(name))...)
}

func validateServicePorts(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range s.Ports {
		p, at := &s.Ports[i], path.Index(i)
		switch {
		case p.Name != "":
			errs = append(errs, validateLabelName(p.Name, at.Child("name"))...)
			if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names.Insert(p.Name)
		case len(s.Ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		errs = append(errs, each(at.Child("port"), p.Port, validation.IsValidPortNum(int(p.Port)))...)
		errs = append(errs, supportedValue(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		target := at.Child("targetPort")
		if p.TargetPort.Type == intstr.Int {
			errs = append(errs, each(target, p.TargetPort.IntVal, validation.IsValidPortNum(int(p.TargetPort.IntVal)))...)
		} else {
			errs = append(errs, each(target, p.TargetPort.StrVal, validation.IsValidPortName(p.TargetPort.StrVal))...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, each(at.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName(*p.AppProtocol))...)
		}
	}
	return errs
}

// validateNodePorts checks what the ports of a Service must not have in common.
func validateNodePorts(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	nodePorts, ports := sets.New[key](), sets.New[key]()
	for i, p := range s.Ports {
		if s.Type == corev1.ServiceTypeClusterIP && p.NodePort != 0 {
			errs = append(errs, field.Forbidden(path.Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
	}
	for i, p := range s.Ports {
		if k := (key{p.Protocol, p.NodePort}); p.NodePort != 0 {
			if nodePorts.Has(k) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("nodePort"), p.NodePort))
			}
			nodePorts.Insert(k)
		}
	}
	for i, p := range s.Ports {
		k := key{p.Protocol, p.Port}
		if ports.Has(k) {
			errs = append(errs, field.Duplicate(path.Index(i), fmt.Sprintf("%d/%s", p.Port, p.Protocol)))
		}
		ports.Insert(k)
	}
	return errs
}

func validateAffinity(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	errs := supportedValue(path.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	if s.SessionAffinity != corev1.ServiceAffinityClientIP {
		return errs
	}
	// defaultService has put the timeout there, if nobody else did.
	const most = 86400
	if t := s.SessionAffinityConfig.ClientIP.TimeoutSeconds; *t <= 0 || *t > most {
		errs = append(errs, field.Invalid(path.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), *t,
			fmt.Sprintf("must be greater than 0 and less than %d", most)))
	}
	return errs
}

// validateClusterIPs checks clusterIP, clusterIPs and the IP families against
// one another.
func validateClusterIPs(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs field.ErrorList
	ips := path.Child("clusterIPs")
	switch {
	case s.ClusterIP == "" && len(s.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(ips, s.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP:
		errs = append(errs, field.Invalid(ips, s.ClusterIPs, "first value must match `clusterIP`"))
	}
	families := sets.New[corev1.IPFamily]()
	for i, f := range s.IPFamilies {
		at := path.Child("ipFamilies").Index(i)
		errs = append(errs, notSupported(at, f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if families.Has(f) {
			errs = append(errs, field.Duplicate(at, f))
		}
		families.Insert(f)
	}
	if p := s.IPFamilyPolicy; p != nil {
		errs = append(errs, notSupported(path.Child("ipFamilyPolicy"), *p,
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	bad := false
	for i, ip := range s.ClusterIPs {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(s.ClusterIPs) > 1 {
				bad = true
				errs = append(errs, field.Invalid(ips, s.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		e := validation.IsValidIPForLegacyField(ips.Index(i), ip, true, nil)
		bad = bad || len(e) > 0
		errs = append(errs, e...)
	}
	if len(s.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(ips, s.ClusterIPs, "may only hold up to 2 values"))
	}
	if bad {
		return errs // what follows would only repeat it
	}
	if len(s.ClusterIPs) > 1 {
		four := func(ip string) bool { return !isIPv6(ip) }
		if !slices.ContainsFunc(s.ClusterIPs, four) || !slices.ContainsFunc(s.ClusterIPs, isIPv6) {
			errs = append(errs, field.Invalid(ips, s.ClusterIPs, "may specify no more than one IP for each IP family"))
		}
	}
	if isHeadless(s) {
		return errs
	}
	for i, ip := range s.ClusterIPs[:min(len(s.ClusterIPs), len(s.IPFamilies))] {
		six := isIPv6(ip)
		switch f := s.IPFamilies[i]; {
		case f == corev1.IPv4Protocol && six, f == corev1.IPv6Protocol && !six:
			errs = append(errs, field.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", f, i)))
		}
	}
	return errs
}

func isIPv6(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && ip.Is6()
}

// validateEndpointIP rejects addresses that never belong to somebody else.
func validateEndpointIP(text string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return append(errs, field.Invalid(path, text, "must be a valid IP address"))
	}
	for _, c := range []struct {
		is     bool
		detail string
	}{
		{ip.IsUnspecified(), fmt.Sprintf("may not be unspecified (%v)", text)},
		{ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if c.is {
			errs = append(errs, field.Invalid(path, text, c.detail))
		}
	}
	return errs
}

func validateLoadBalancer(svc *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, balancer := &svc.Spec, svc.Spec.Type == corev1.ServiceTypeLoadBalancer
	const forbidden = "may only be used when `type` is 'LoadBalancer'"
	if len(s.LoadBalancerSourceRanges) > 0 {
		at := path.Child("LoadBalancerSourceRanges") // the capital letter is upstream's
		if !balancer {
			errs = append(errs, field.Forbidden(at, forbidden))
		}
		for i, r := range s.LoadBalancerSourceRanges {
			errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), strings.TrimSpace(r), true, nil)...)
		}
	} else if v, ok := svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; ok {
		at := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if !balancer {
			errs = append(errs, field.Forbidden(at, forbidden))
		}
		if v = strings.TrimSpace(v); v != "" {
			for r := range strings.SplitSeq(v, ",") {
				errs = append(errs, validation.IsValidCIDRForLegacyField(at, strings.TrimSpace(r), true, nil)...)
			}
		}
	}
	if s.AllocateLoadBalancerNodePorts != nil && !balancer {
		errs = append(errs, field.Forbidden(path.Child("allocateLoadBalancerNodePorts"), forbidden))
	}
	if c := s.LoadBalancerClass; c != nil {
		if balancer {
			errs = append(errs, each(path.Child("loadBalancerClass"), *c, validation.IsQualifiedName(*c))...)
		} else {
			errs = append(errs, field.Forbidden(path.Child("loadBalancerClass"), forbidden))
		}
	}
	return errs
}

func validateTrafficPolicies(s *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	external := path.Child("externalTrafficPolicy")
	if externallyAccessible(s) {
		errs = append(errs, supportedValue(external, s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if s.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(external, s.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	check := path.Child("healthCheckNodePort")
	switch needed := s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal; {
	case !needed && s.HealthCheckNodePort != 0:
		errs = append(errs, field.Invalid(check, s.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	case s.HealthCheckNodePort != 0:
		errs = append(errs, each(check, s.HealthCheckNodePort, validation.IsValidPortNum(int(s.HealthCheckNodePort)))...)
	}
	if p := s.InternalTrafficPolicy; p != nil {
		errs = append(errs, notSupported(path.Child("internalTrafficPolicy"), *p, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	}
	if d := s.TrafficDistribution; d != nil {
		errs = append(errs, notSupported(path.Child("trafficDistribution"), *d,
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}

// validateAllocations checks what the API server finds out when it allocates: a
// node port that is out of range or, like a cluster IP, another Service's.
func (p *parser) validateAllocations(svc *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if svc.Spec.Type != corev1.ServiceTypeExternalName {
		for _, ip := range svc.Spec.ClusterIPs {
			if ip == corev1.ClusterIPNone {
				continue
			}
			owner := objectKey{"clusterIP", "", ip}
			if p.taken[owner] {
				errs = append(errs, field.Invalid(path.Child("clusterIPs"), svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", ip)))
			} else {
				p.take(owner)
			}
		}
	}
	var own []int32 // one number may serve TCP and UDP of one Service
	for i, port := range svc.Spec.Ports {
		at := path.Child("ports").Index(i).Child("nodePort")
		owner := objectKey{"nodePort", "", fmt.Sprint(port.NodePort)}
		switch {
		case port.NodePort == 0 || svc.Spec.Type == corev1.ServiceTypeClusterIP || slices.Contains(own, port.NodePort):
		case port.NodePort < MinNodePort || port.NodePort > MaxNodePort:
			errs = append(errs, field.Invalid(at, port.NodePort, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", MinNodePort, MaxNodePort)))
		case p.taken[owner]:
			errs = append(errs, field.Invalid(at, port.NodePort, "provided port is already allocated"))
		default:
			p.take(owner)
			own = append(own, port.NodePort)
		}
	}
	return errs
}

func (p *parser) take(owner objectKey) {
	if p.taken == nil {
		p.taken = map[objectKey]bool{}
	}
	p.taken[owner] = true
}

// warnService warns of a Service that is valid and does less than it says.
func warnService(svc *corev1.Service) (warnings []Problem) {
	s := &svc.Spec
	warn := func(path, message, hint string) {
		warnings = append(warnings, Problem{Path: path, Message: message, Hint: hint})
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		warn("spec.type", "treated as NodePort", "there is no load balancer to be had from a cloud")
	}
	if len(s.Selector) == 0 && s.Type != corev1.ServiceTypeExternalName {
		warn("spec.selector", "a Service without a selector has no endpoints", "nothing else declares endpoints in wasmpod run")
	}
	for i, p := range s.Ports {
		if p.Protocol == corev1.ProtocolSCTP {
			warn(fmt.Sprintf("spec.ports[%d].protocol", i), "ignored", "pods have TCP and UDP, but no SCTP")
		}
	}
	for i, f := range s.IPFamilies {
		if f == corev1.IPv6Protocol {
			warn(fmt.Sprintf("spec.ipFamilies[%d]", i), "ignored", "pods have IPv4 addresses")
		}
	}
	return warnings
}
