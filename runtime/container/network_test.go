package container

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + "-.b"
	for _, tt := range []struct {
		id   string
		edit func(*corev1.Pod)
		want string
	}{
		{"NET-01 the pod's name", func(*corev1.Pod) {}, "p"},
		{"NET-01 spec.hostname", func(p *corev1.Pod) { p.Spec.Hostname = "h" }, "h"},
		{"NET-01 cut and trimmed", func(p *corev1.Pod) { p.Name = long }, strings.Repeat("a", 62)},
		{"NET-01 hostnameOverride", func(p *corev1.Pod) {
			p.Spec.Hostname, p.Spec.Subdomain, p.Spec.HostnameOverride = "h", "s", ptr("over.ride")
		}, "over.ride"},
		{"NET-01 hostNetwork", func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.NodeName = true, "node-7" }, "node-7"},
		{"NET-01 hostNetwork, node from the runtime", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "node-1"},
		{"NET-02 subdomain alone", func(p *corev1.Pod) { p.Spec.Subdomain = "s" }, "p"},
		{"NET-02 setHostnameAsFQDN", func(p *corev1.Pod) { p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "s", ptr(true) }, "p.s.ns.svc.cluster.local"},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod, c := testPod(func(p *corev1.Pod, _ *corev1.Container) { tt.edit(p) })
			in := testInputs()
			in.Image.Env = nil
			cfg := mustConfig(t, pod, c, in)
			if cfg.Hostname != tt.want || cfg.Env[0] != "HOSTNAME="+tt.want {
				t.Errorf("got %q and %q, want %q", cfg.Hostname, cfg.Env[0], tt.want)
			}
		})
	}
	t.Run("NET-02 too long", func(t *testing.T) {
		pod, _ := testPod(func(p *corev1.Pod, _ *corev1.Container) {
			p.Name, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = strings.Repeat("p", 60), "s", ptr(true)
		})
		fqdn := pod.Name + ".s.ns.svc.cluster.local"
		want := fmt.Sprintf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", fqdn, len(fqdn))
		if err := CheckHostname(pod); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
		pod.Spec.SetHostnameAsFQDN = nil
		if err := CheckHostname(pod); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

const hostsHead = `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

func TestHostsFileNET03(t *testing.T) {
	pod, _ := testPod()
	check := func(id, want string, got []byte) {
		t.Helper()
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
	check("NET-03 plain", hostsHead+"10.0.0.2\tp\n", HostsFile(pod, "10.0.0.2"))
	check("NET-03 no address", hostsHead, HostsFile(pod, ""))
	pod.Spec.Subdomain, pod.Spec.Hostname = "s", "h"
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}, {IP: "5.6.7.8", Hostnames: []string{"c"}}}
	aliases := "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n5.6.7.8\tc\n"
	check("NET-03 domain and aliases", hostsHead+"10.0.0.2\th.s.ns.svc.cluster.local\th\n"+aliases, HostsFile(pod, "10.0.0.2"))
	check("NET-03 host network", "# Kubernetes-managed hosts file (host network).\n9.9.9.9 x\n"+aliases, HostNetworkHostsFile(pod, []byte("9.9.9.9 x\n")))
}

func TestResolvConf(t *testing.T) {
	const node = "# comment\nnameserver 1.1.1.1\nsearch old\nnameserver 2.2.2.2\nsearch corp.example. home .\noptions ndots:2 rotate ndots:3\nnameserver\nbogus line\n"
	for _, tt := range []struct {
		id      string
		policy  corev1.DNSPolicy
		config  *corev1.PodDNSConfig
		node    string
		want    string
		cluster string
	}{
		{"NET-04 Default", corev1.DNSDefault, nil, node, "search corp.example home\nnameserver 1.1.1.1\nnameserver 2.2.2.2\noptions ndots:3 rotate\n", ""},
		{"NET-04 ClusterFirst without cluster DNS is Default", corev1.DNSClusterFirst, nil, "nameserver 1.1.1.1\n", "nameserver 1.1.1.1\n", ""},
		{"NET-04 None", corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"3.3.3.3"}}, node, "nameserver 3.3.3.3\n", ""},
		{"NET-04 dnsConfig is appended, options override by name", corev1.DNSDefault, &corev1.PodDNSConfig{
			Nameservers: []string{"2.2.2.2", "3.3.3.3"}, Searches: []string{"home", "x.y"},
			Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("5")}, {Name: "edns0"}}},
			node, "search corp.example home x.y\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\noptions ndots:5 rotate edns0\n", ""},
		{"NET-04 no file", corev1.DNSDefault, nil, "", "search .\nnameserver 127.0.0.1\n", ""},
		{"NET-04 ClusterFirst", corev1.DNSClusterFirst, nil, node, "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example home\nnameserver 127.192.0.10\noptions ndots:5\n", "127.192.0.10"},
		{"NET-04 Default with a cluster DNS", corev1.DNSDefault, nil, "nameserver 1.1.1.1\n", "nameserver 1.1.1.1\n", "127.192.0.10"},
		{"NET-04 None with a cluster DNS", corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"3.3.3.3"}}, node, "nameserver 3.3.3.3\n", "127.192.0.10"},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod, _ := testPod(func(p *corev1.Pod, _ *corev1.Container) { p.Spec.DNSPolicy, p.Spec.DNSConfig = tt.policy, tt.config })
			if diff := cmp.Diff(tt.want, string(ResolvConf(pod, []byte(tt.node), tt.cluster))); diff != "" {
				t.Errorf("resolv.conf (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("NET-04 on the host's network", func(t *testing.T) {
		for policy, want := range map[corev1.DNSPolicy]string{corev1.DNSClusterFirst: "1.1.1.1", corev1.DNSClusterFirstWithHostNet: "127.192.0.10"} {
			pod, _ := testPod(func(p *corev1.Pod, _ *corev1.Container) { p.Spec.DNSPolicy, p.Spec.HostNetwork = policy, true })
			if dns, _ := PodDNS(pod, []byte("nameserver 1.1.1.1\n"), "127.192.0.10"); len(dns.Servers) != 1 || dns.Servers[0] != want {
				t.Errorf("%s: %v, want %s", policy, dns.Servers, want)
			}
		}
	})
	t.Run("NET-04 limits", func(t *testing.T) {
		var searches []string
		for i := range 40 {
			searches = append(searches, fmt.Sprintf("d%d.%s", i, strings.Repeat("x", 90)))
		}
		searches[0] = strings.Repeat("y", 254)
		pod, _ := testPod(func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1", "2", "3", "4"}, Searches: searches}
		})
		dns, warnings := PodDNS(pod, nil, "")
		if len(dns.Servers) != 3 || len(strings.Join(dns.Searches, " ")) > 2048 || len(dns.Searches) != 21 || dns.Searches[0] != searches[1] {
			t.Errorf("got %d servers, %d searches", len(dns.Servers), len(dns.Searches))
		}
		want := []string{
			"Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1 2 3",
			"Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(dns.Searches, " "),
		}
		if diff := cmp.Diff(want, warnings); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	})
}
