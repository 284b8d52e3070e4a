package container

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Limits of a resolver's configuration (NET-04).
const (
	maxNameservers   = 3
	maxSearches      = 32
	maxSearchChars   = 2048
	maxResolvConfLen = 10 << 20
)

// DNS is a pod's resolver configuration.
type DNS struct {
	Servers  []string
	Searches []string
	Options  []string
}

// PodDNS computes the resolver configuration of pod from the node's
// resolv.conf (NET-04). clusterDNS is the address of the cluster's resolver;
// without one, and on the host's network, ClusterFirst is Default. warnings are texts of DNSConfigForming events: what
// did not fit was left out.
func PodDNS(pod *corev1.Pod, nodeResolvConf []byte, clusterDNS string) (dns DNS, warnings []string) {
	policy := pod.Spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
	case clusterDNS != "" && policy != corev1.DNSDefault && (!pod.Spec.HostNetwork || policy == corev1.DNSClusterFirstWithHostNet):
		node := parseResolvConf(nodeResolvConf)
		svc := "svc." + ClusterDomain
		dns = DNS{
			Servers:  []string{clusterDNS},
			Searches: omitDuplicates(append([]string{pod.Namespace + "." + svc, svc, ClusterDomain}, node.Searches...)),
			Options:  []string{"ndots:5"},
		}
	default:
		dns = parseResolvConf(nodeResolvConf)
		if len(nodeResolvConf) == 0 {
			// What resolvers do without a file, written down.
			dns = DNS{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}
		}
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		dns.Servers = omitDuplicates(append(dns.Servers, extra.Nameservers...))
		dns.Searches = omitDuplicates(append(dns.Searches, extra.Searches...))
		for _, o := range extra.Options {
			option := o.Name
			if o.Value != nil && *o.Value != "" {
				option += ":" + *o.Value
			}
			dns.Options = setOption(dns.Options, option)
		}
	}
	if len(dns.Servers) > maxNameservers {
		dns.Servers = dns.Servers[:maxNameservers]
		warnings = append(warnings, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+
			strings.Join(dns.Servers, " "))
	}
	searches, cut := fitSearches(dns.Searches)
	dns.Searches = searches
	if cut {
		warnings = append(warnings, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+
			strings.Join(dns.Searches, " "))
	}
	return dns, warnings
}

func fitSearches(searches []string) (fitting []string, cut bool) {
	if len(searches) > maxSearches {
		searches, cut = searches[:maxSearches], true
	}
	total := -1 // no separator before the first
	for _, s := range searches {
		if len(s) > validation.DNS1123SubdomainMaxLength {
			cut = true
			continue
		}
		if total += 1 + len(s); total > maxSearchChars {
			return fitting, true
		}
		fitting = append(fitting, s)
	}
	return fitting, cut
}

// ResolvConf is the content of the pod's /etc/resolv.conf. Use PodDNS where
// the warnings are wanted too.
func ResolvConf(pod *corev1.Pod, nodeResolvConf []byte, clusterDNS string) []byte {
	dns, _ := PodDNS(pod, nodeResolvConf, clusterDNS)
	var b strings.Builder
	if len(dns.Searches) > 0 {
		b.WriteString("search " + strings.Join(dns.Searches, " ") + "\n")
	}
	for _, s := range dns.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(dns.Options) > 0 {
		b.WriteString("options " + strings.Join(dns.Options, " ") + "\n")
	}
	return []byte(b.String())
}

// parseResolvConf reads a resolv.conf as the kubelet does: nameservers add up,
// the last search line wins, options override by name.
func parseResolvConf(data []byte) DNS {
	var dns DNS
	data = data[:min(len(data), maxResolvConfLen)]
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 {
				dns.Servers = append(dns.Servers, fields[1])
			}
		case "search":
			dns.Searches = nil
			for _, s := range fields[1:] {
				// The same domain with and without a dot counts once.
				if s = strings.TrimSuffix(s, "."); s != "" {
					dns.Searches = append(dns.Searches, s)
				}
			}
		case "options":
			for _, o := range fields[1:] {
				dns.Options = setOption(dns.Options, o)
			}
		}
	}
	return dns
}

func setOption(options []string, option string) []string {
	name, _, _ := strings.Cut(option, ":")
	for i, o := range options {
		if n, _, _ := strings.Cut(o, ":"); n == name {
			options[i] = option
			return options
		}
	}
	return append(options, option)
}

func omitDuplicates(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
