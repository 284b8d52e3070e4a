package container

import (
	"bytes"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ClusterDomain is the domain that pods with a subdomain are in (NET-02).
const ClusterDomain = "cluster.local"

const maxHostname = 63

// shortHostname is the pod's name in its own network (NET-01).
func shortHostname(pod *corev1.Pod) string {
	name := pod.Name
	switch {
	case pod.Spec.HostnameOverride != nil:
		name = *pod.Spec.HostnameOverride
	case pod.Spec.Hostname != "":
		name = pod.Spec.Hostname
	}
	if len(name) > maxHostname {
		name = strings.TrimRight(name[:maxHostname], "-.")
	}
	return name
}

// hostDomain is the domain of the pod, or empty (NET-02).
func hostDomain(pod *corev1.Pod) string {
	if pod.Spec.Subdomain == "" || pod.Spec.HostnameOverride != nil {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + ClusterDomain
}

// Hostname is the hostname that the guests of pod see (NET-01, NET-02): the
// node's on the host network if spec.nodeName is set, the fully qualified name
// with setHostnameAsFQDN, else the short one.
func Hostname(pod *corev1.Pod) string {
	if pod.Spec.HostNetwork && pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	name, domain := shortHostname(pod), hostDomain(pod)
	if isTrue(pod.Spec.SetHostnameAsFQDN) && domain != "" {
		return name + "." + domain
	}
	return name
}

// CheckHostname says whether a sandbox can have the pod's hostname (NET-02).
func CheckHostname(pod *corev1.Pod) error {
	const maxFQDN = 64
	if name := Hostname(pod); isTrue(pod.Spec.SetHostnameAsFQDN) && len(name) > maxFQDN {
		return fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
			name, maxFQDN, len(name))
	}
	return nil
}

func (in *Inputs) hostname(pod *corev1.Pod) string {
	if pod.Spec.HostNetwork && in.nodeName(pod) != "" {
		return in.nodeName(pod)
	}
	return Hostname(pod)
}

// HostsFile is the content of /etc/hosts of a pod that has its own network
// (NET-03). An empty podIP leaves the pod's own line out.
func HostsFile(pod *corev1.Pod, podIP string) []byte {
	var b bytes.Buffer
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	if podIP != "" {
		name := shortHostname(pod)
		if domain := hostDomain(pod); domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", podIP, name, domain, name)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", podIP, name)
		}
	}
	writeHostAliases(&b, pod)
	return b.Bytes()
}

// HostNetworkHostsFile is the content of /etc/hosts of a pod on the host
// network; node is the node's own file (NET-03).
func HostNetworkHostsFile(pod *corev1.Pod, node []byte) []byte {
	var b bytes.Buffer
	b.WriteString("# Kubernetes-managed hosts file (host network).\n")
	b.Write(node)
	writeHostAliases(&b, pod)
	return b.Bytes()
}

func writeHostAliases(b *bytes.Buffer, pod *corev1.Pod) {
	if len(pod.Spec.HostAliases) == 0 {
		return
	}
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
}
