package service

import (
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Record is one answer of the cluster DNS: an address, another name (CNAME,
// PTR) or a port at another name (SRV).
type Record struct {
	Name   string     // whose record it is; the one asked for, or the Target of another record
	Addr   netip.Addr // valid: A or AAAA
	Target string     // else: a fully qualified name with its dot
	Kind   RecordKind
	Port   uint16 // of SRV
}

// RecordKind is the type of a Record.
type RecordKind int

const (
	Address RecordKind = iota
	Alias              // CNAME
	Pointer            // PTR
	Server             // SRV
)

// Lookup answers a question about a name of the cluster domain or of the
// reverse zone of a cluster address (WL-30, NET-02): a Service's, a pod's by
// <hostname>.<service>.<namespace>.svc or by its address, and
// _<port>._<protocol> of a Service. The name is fully qualified and in lower
// case. exists is false where there is no such name; a name may exist without
// any record.
func (t *Table) Lookup(fqdn string) (records []Record, exists bool) {
	if ip, ok := reverse(fqdn); ok {
		return t.pointers(fqdn, ip)
	}
	rest, ok := strings.CutSuffix(fqdn, t.state.Domain+".")
	if !ok {
		return nil, false
	}
	if rest == "" {
		return nil, true
	}
	rest, ok = strings.CutSuffix(rest, ".")
	if !ok {
		return nil, false
	}
	l := strings.Split(rest, ".")
	n := len(l)
	switch kind := l[n-1]; {
	case kind == "svc" && n == 1, kind == "pod" && n == 1:
		return nil, true
	case n == 2 && (kind == "svc" || kind == "pod"):
		return nil, t.hasNamespace(l[0])
	case kind == "pod" && n == 3:
		pod := t.podByDashes(l[1], l[0])
		if pod == nil {
			return nil, false
		}
		ip, _ := podIP(pod)
		return []Record{{Name: fqdn, Addr: ip}}, true
	case kind != "svc":
		return nil, false
	}
	e := t.services[name{l[n-2], l[n-3]}]
	if e == nil {
		return nil, false
	}
	base := t.serviceName(e.service)
	switch n {
	case 3:
		return e.records(fqdn, base)
	case 4:
		if strings.HasPrefix(l[0], "_") {
			return nil, l[0] == "_tcp" || l[0] == "_udp"
		}
		for _, ep := range e.endpoints {
			if ep.name == l[0] && e.headless() {
				records = append(records, Record{Name: fqdn, Addr: ep.ip})
			}
		}
		return records, len(records) > 0
	case 5:
		if !strings.HasPrefix(l[0], "_") || !strings.HasPrefix(l[1], "_") {
			return nil, false
		}
		records = e.servers(fqdn, base, l[0][1:], strings.ToUpper(l[1][1:]))
		return records, len(records) > 0
	}
	return nil, false
}

func (t *Table) serviceName(svc *corev1.Service) string {
	return svc.Name + "." + svc.Namespace + ".svc." + t.state.Domain + "."
}

func (e *entry) headless() bool { return e.service.Spec.ClusterIP == corev1.ClusterIPNone }

// records of a Service's own name.
func (e *entry) records(fqdn, base string) ([]Record, bool) {
	s := &e.service.Spec
	if s.Type == corev1.ServiceTypeExternalName {
		return []Record{{Name: fqdn, Kind: Alias, Target: strings.ToLower(strings.TrimSuffix(s.ExternalName, ".")) + "."}}, true
	}
	var records []Record
	if e.headless() {
		if len(e.endpoints) == 0 {
			return nil, false // as the specification of the cluster DNS says
		}
		for _, ep := range e.endpoints {
			records = append(records, Record{Name: fqdn, Addr: ep.ip})
		}
	} else if ip, err := netip.ParseAddr(s.ClusterIP); err == nil {
		records = append(records, Record{Name: fqdn, Addr: ip.Unmap()})
	}
	for _, r := range e.servers(fqdn, base, "", "") {
		if r.Kind == Server {
			records = append(records, r)
		}
	}
	return records, true
}

// servers are the SRV records of a port, or of all, and the addresses of the
// names in them.
func (e *entry) servers(fqdn, base, port, protocol string) (records []Record) {
	for _, f := range e.frontends {
		if port != "" && (f.Name != port || string(f.Protocol) != protocol) {
			continue
		}
		if !e.headless() {
			if f.Address.IsValid() {
				records = append(records, Record{Name: fqdn, Kind: Server, Target: base, Port: f.Address.Port()},
					Record{Name: base, Addr: f.Address.Addr()})
			}
			continue
		}
		for _, to := range f.Endpoints {
			for _, ep := range e.endpoints {
				if ep.ip == to.Addr() {
					target := ep.name + "." + base
					records = append(records, Record{Name: fqdn, Kind: Server, Target: target, Port: to.Port()},
						Record{Name: target, Addr: ep.ip})
				}
			}
		}
	}
	return records
}

func (t *Table) hasNamespace(ns string) bool {
	if _, ok := t.state.Namespaces[ns]; ok || len(t.byNS[ns]) > 0 {
		return true
	}
	for n := range t.services {
		if n.namespace == ns {
			return true
		}
	}
	return false
}

// pointers answers a reverse question.
func (t *Table) pointers(fqdn string, ip netip.Addr) (records []Record, exists bool) {
	if e := t.addresses[ip]; e != nil {
		return []Record{{Name: fqdn, Kind: Pointer, Target: t.serviceName(e.service)}}, true
	}
	pod := t.pods[ip]
	if pod == nil {
		return nil, false
	}
	for _, svc := range t.state.Services {
		e := t.services[name{svc.Namespace, svc.Name}]
		if svc.Namespace != pod.Namespace {
			continue
		}
		for _, ep := range e.endpoints {
			if ep.pod == pod {
				records = append(records, Record{Name: fqdn, Kind: Pointer, Target: ep.name + "." + t.serviceName(svc)})
			}
		}
	}
	return records, len(records) > 0
}

func dashed(ip netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(ip.String())
}

func (t *Table) podByDashes(ns, label string) *corev1.Pod {
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil {
		return nil
	}
	if pod := t.pods[ip]; pod != nil && pod.Namespace == ns {
		return pod
	}
	return nil
}

// reverse reads the name of an IPv4 address in the reverse zone.
func reverse(fqdn string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(fqdn, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return netip.Addr{}, false
		}
		b[3-i] = byte(v)
	}
	return netip.AddrFrom4(b), true
}
