package runtime

import (
	"bytes"
	"errors"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/dns"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/service"
)

// clusterDNSIP is the cluster's resolver, the tenth address of the range by an
// old custom.
var clusterDNSIP = netip.AddrFrom4([4]byte{127, 192, 0, 10})

// clusterDNS answers the pods' questions, in a namespace of its own and with no
// socket of the host but for what it passes on.
type clusterDNS struct {
	namespace *podnet.Namespace
	server    *dns.Server
	sockets   []interface{ Close() error }
	serving   sync.WaitGroup
	service   *corev1.Service
	pod       *corev1.Pod
}

func (n *network) serveDNS(resolvConf []byte) (_ *clusterDNS, err error) {
	d := &clusterDNS{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.namespace, err = n.net.NewNamespace(); err != nil {
		return nil, err
	}
	d.service, d.pod = kubeDNS(d.namespace.IP())
	forwarder := dns.NewForwarder(dns.ForwarderConfig{Servers: nameservers(resolvConf), Allow: n.mayAskOutside})
	d.server = dns.New(dns.Config{
		Zones: []string{container.ClusterDomain + ".", "127.in-addr.arpa."}, Lookup: n.lookup, Forward: forwarder.Forward,
	})
	pc, err := d.namespace.ListenPacket("udp4", ":53")
	if err != nil {
		return nil, err
	}
	d.sockets = append(d.sockets, pc)
	l, err := d.namespace.Listen("tcp4", ":53")
	if err != nil {
		return nil, err
	}
	d.sockets = append(d.sockets, l)
	d.serving.Go(func() { _ = d.server.ServePacket(pc) }) // until it is closed
	d.serving.Go(func() { _ = d.server.ServeListener(l) })
	return d, nil
}

func (d *clusterDNS) close() error {
	var errs []error
	for _, s := range d.sockets {
		errs = append(errs, s.Close())
	}
	if d.namespace != nil {
		errs = append(errs, d.namespace.Close())
	}
	d.serving.Wait()
	if d.server != nil {
		errs = append(errs, d.server.Close())
	}
	return errors.Join(errs...)
}

// mayAskOutside reports whether a pod's questions are passed on.
func (n *network) mayAskOutside(client netip.Addr) bool {
	ns := n.net.Lookup(client)
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[ns]
	return m != nil && m.egress.AllowsDNS()
}

func (n *network) lookup(name string) ([]dns.Record, bool) {
	records, exists := n.current().Lookup(name)
	out := make([]dns.Record, 0, len(records))
	for _, r := range records {
		out = append(out, dns.Record{Name: r.Name, Kind: recordKinds[r.Kind], Addr: r.Addr, Target: r.Target, Port: r.Port})
	}
	return out, exists
}

var recordKinds = [...]dns.Kind{
	service.Address: dns.Address, service.Alias: dns.Alias, service.Pointer: dns.Pointer, service.Server: dns.Service,
}

// nameservers are those of a resolv.conf.
func nameservers(resolvConf []byte) (servers []netip.AddrPort) {
	for line := range bytes.Lines(resolvConf) {
		f := bytes.Fields(line)
		if len(f) < 2 || string(f[0]) != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(string(f[1])); err == nil {
			servers = append(servers, netip.AddrPortFrom(ip, 53))
		}
	}
	return servers
}
