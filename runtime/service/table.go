package service

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// State is what a Table is made of. The objects are not changed, and must not
// be changed afterwards.
type State struct {
	// Services have their cluster IPs and node ports: see Allocator.
	Services []*corev1.Service
	// Pods have a status. Those without an IP, those that have ended and those on
	// the host network have no identity of their own here.
	Pods     []*corev1.Pod
	Policies []*networkingv1.NetworkPolicy
	// Namespaces are the labels of namespaces. Every namespace also has the label
	// kubernetes.io/metadata.name.
	Namespaces map[string]map[string]string
	// Domain is the cluster domain, without dots around it.
	Domain string
}

// Table answers questions about a State. It is immutable and safe for
// concurrent use.
type Table struct {
	state     State
	frontends map[frontendKey]*Frontend
	nodePorts []*Frontend
	services  map[name]*entry
	addresses map[netip.Addr]*entry // cluster IPs
	pods      map[netip.Addr]*corev1.Pod
	byNS      map[string][]*corev1.Pod
	policies  map[string][]*policy
}

type name struct{ namespace, name string }

type frontendKey struct {
	protocol corev1.Protocol
	addr     netip.AddrPort
}

// entry is a Service with its endpoints.
type entry struct {
	service   *corev1.Service
	frontends []*Frontend // one a port, in their order; none for ExternalName
	endpoints []endpoint  // ready ones, for DNS
}

// endpoint is a pod behind a Service.
type endpoint struct {
	pod  *corev1.Pod
	ip   netip.Addr
	name string // its name below the Service's
}

// Frontend is one port of a Service.
type Frontend struct {
	Namespace, Service string
	Name               string // of the port
	Protocol           corev1.Protocol
	// Address is the cluster IP and port; not valid for a headless Service.
	Address  netip.AddrPort
	NodePort uint16 // 0: none
	// Endpoints are where connections go, in the order in which the pods were
	// declared. Without any, connections are refused.
	Endpoints []netip.AddrPort
	// Affinity is for how long a client stays with its endpoint; 0: not at all.
	Affinity time.Duration
}

// NewTable makes a Table.
func NewTable(s State) *Table {
	t := &Table{
		state:     s,
		frontends: make(map[frontendKey]*Frontend),
		services:  make(map[name]*entry, len(s.Services)),
		addresses: make(map[netip.Addr]*entry, len(s.Services)),
		pods:      make(map[netip.Addr]*corev1.Pod, len(s.Pods)),
		byNS:      make(map[string][]*corev1.Pod),
		policies:  compile(s.Policies),
	}
	for _, pod := range s.Pods {
		if ip, ok := podIP(pod); ok {
			if !pod.Spec.HostNetwork { // all of those have the same, and no policy means them
				t.pods[ip] = pod
			}
			t.byNS[pod.Namespace] = append(t.byNS[pod.Namespace], pod)
		}
	}
	for _, svc := range s.Services {
		t.addService(svc)
	}
	return t
}

// podIP is the address at which a pod is reached, if there is one (WL-31).
func podIP(pod *corev1.Pod) (netip.Addr, bool) {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(pod.Status.PodIP)
	return ip.Unmap(), err == nil
}

// Pod returns the pod that has an address, or nil.
func (t *Table) Pod(ip netip.Addr) *corev1.Pod { return t.pods[ip.Unmap()] }

// Frontend returns the port of a Service that a cluster IP and port are.
func (t *Table) Frontend(protocol corev1.Protocol, to netip.AddrPort) (*Frontend, bool) {
	f, ok := t.frontends[frontendKey{protocol, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}]
	return f, ok
}

// IsClusterIP reports whether an address is a Service's.
func (t *Table) IsClusterIP(ip netip.Addr) bool { return t.addresses[ip.Unmap()] != nil }

// NodePorts returns what is published on ports of the node.
func (t *Table) NodePorts() []*Frontend { return slices.Clone(t.nodePorts) }

func (t *Table) addService(svc *corev1.Service) {
	e := &entry{service: svc}
	t.services[name{svc.Namespace, svc.Name}] = e
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	vip, err := netip.ParseAddr(svc.Spec.ClusterIP)
	vip = vip.Unmap()
	if err == nil {
		t.addresses[vip] = e
	}
	ready, stopping := t.backends(svc)
	e.endpoints = ready
	var affinity time.Duration
	if c := svc.Spec.SessionAffinityConfig; svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP && c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		f := &Frontend{
			Namespace: svc.Namespace, Service: svc.Name, Name: p.Name, Protocol: p.Protocol,
			NodePort: uint16(p.NodePort), Affinity: affinity,
		}
		f.Endpoints = targets(ready, p)
		if len(f.Endpoints) == 0 {
			// As kube-proxy does: better one that is stopping than none.
			f.Endpoints = targets(stopping, p)
		}
		e.frontends = append(e.frontends, f)
		if err == nil {
			f.Address = netip.AddrPortFrom(vip, uint16(p.Port))
			t.frontends[frontendKey{p.Protocol, f.Address}] = f
		}
		if f.NodePort != 0 {
			t.nodePorts = append(t.nodePorts, f)
		}
	}
}

// backends are the pods behind a Service: those that are ready, and those that
// would be, were they not being deleted (WL-30, WL-31, DEL-09, PROBE-12).
func (t *Table) backends(svc *corev1.Service) (ready, stopping []endpoint) {
	if len(svc.Spec.Selector) == 0 {
		return nil, nil
	}
	for _, pod := range t.byNS[svc.Namespace] {
		if !selects(svc.Spec.Selector, pod.Labels) {
			continue
		}
		ip, _ := podIP(pod)
		e := endpoint{pod: pod, ip: ip, name: dashed(ip)}
		if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
			e.name = pod.Spec.Hostname
		}
		switch serving := isReady(pod); {
		case svc.Spec.PublishNotReadyAddresses, serving && pod.DeletionTimestamp == nil:
			ready = append(ready, e)
		case serving:
			stopping = append(stopping, e)
		}
	}
	return ready, stopping
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// targets are the addresses of endpoints at a port. A named port may be another
// number in every pod; a pod that does not have it is left out.
func targets(endpoints []endpoint, p *corev1.ServicePort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range endpoints {
		if port, ok := targetPort(e.pod, p); ok {
			out = append(out, netip.AddrPortFrom(e.ip, port))
		}
	}
	return out
}

func targetPort(pod *corev1.Pod, p *corev1.ServicePort) (uint16, bool) {
	switch {
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		return namedPort(pod, p.TargetPort.StrVal, p.Protocol)
	case p.TargetPort.IntVal != 0:
		return uint16(p.TargetPort.IntVal), true
	}
	return uint16(p.Port), true
}

// namedPort finds a port of a pod by its name: in its containers, then in its
// sidecars.
func namedPort(pod *corev1.Pod, name string, protocol corev1.Protocol) (uint16, bool) {
	find := func(c *corev1.Container) (uint16, bool) {
		for _, p := range c.Ports {
			if p.Name == name && p.Protocol == protocol {
				return uint16(p.ContainerPort), true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if port, ok := find(&pod.Spec.Containers[i]); ok {
			return port, true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if port, ok := find(c); ok {
			return port, true
		}
	}
	return 0, false
}
