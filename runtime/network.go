package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/podnet/cni"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/podnet/hostport"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/service"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// clusterIPs is where cluster IPs come from. Connections to them stay in memory,
// so that several runs on one host may use the same.
var clusterIPs = netip.MustParsePrefix("127.192.0.0/16")

// egressAnnotation of a pod is an egress policy, which the node's bounds.
const egressAnnotation = "wasmpod.dev/egress"

// network is what connects the pods of a Runtime with each other, with Services
// and with the host. It is safe for concurrent use.
type network struct {
	log       *slog.Logger
	store     *store.Store
	net       *podnet.Network
	nodeIP    netip.Addr // where node ports, and host ports that name no IP, are bound
	egress    egress.Policy
	sockets   *socketWall  // nil: the kernel checks nothing
	claim     *claim       // of the pod IPs on the host; nil: pod IPs are not reachable from there
	cni       *cni.Network // gives pods their IPs; nil: they are of net
	dns       *clusterDNS
	plain     atomic.Bool // there is no Service and no policy: no need for a table
	affinity  affinity
	allocator *service.Allocator

	mu         sync.Mutex
	members    map[*podnet.Namespace]*member
	host       hostNetwork
	ips        map[types.UID]netip.Addr // of members' pods
	services   []*corev1.Service        // with their addresses
	policies   []*networkingv1.NetworkPolicy
	namespaces map[string]map[string]string
	nodePorts  []*hostport.Forwarder
	node       *guard         // of their sockets
	changes    *store.Watcher // nil until there is a need for tables
	pods       map[types.UID]*corev1.Pod
	order      []types.UID
	stale      bool
	table      *service.Table
	turns      map[turn]int
}

// turn is whose turn it is among the endpoints of a port of a Service.
type turn struct {
	namespace, service, port string
	protocol                 corev1.Protocol
}

func newNetwork(ctx context.Context, cfg Config, objects *store.Store, resolvConf []byte, sockets *socketWall) (_ *network, err error) {
	n := &network{
		log: cfg.Log, store: objects, sockets: sockets,
		node:       sockets.newGuard(cfg.Log, egress.Policy{}), // they connect nowhere
		nodeIP:     netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		egress:     egress.Allow,
		members:    make(map[*podnet.Namespace]*member),
		ips:        make(map[types.UID]netip.Addr),
		namespaces: make(map[string]map[string]string),
		pods:       make(map[types.UID]*corev1.Pod),
		turns:      make(map[turn]int),
		stale:      true,
	}
	n.host.pods = make(map[types.UID]*hostPod)
	n.affinity.clients = make(map[client]choice)
	n.plain.Store(true)
	if cfg.Egress != "" {
		if n.egress, err = egress.Parse(cfg.Egress); err != nil {
			return nil, err
		}
	}
	if cfg.CNIConfDir != "" {
		if n.cni, err = cni.Open(ctx, cni.Config{ConfDir: cfg.CNIConfDir, BinDirs: cfg.CNIBinDirs}); err != nil {
			return nil, fmt.Errorf("CNI: %w", err)
		}
	}
	prefix := cfg.PodIPs
	if !prefix.IsValid() {
		if n.claim, err = claimPodIPs(podnet.DefaultPrefix); err != nil {
			cfg.Log.Info("pod IPs are not reachable from the host", "error", err)
			prefix = podnet.DefaultPrefix
		} else {
			prefix = n.claim.prefix
		}
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.allocator, err = service.NewAllocator(clusterIPs); err != nil {
		return nil, err
	}
	n.allocator.Free = n.nodePortFree
	n.net, err = podnet.NewNetwork(podnet.Config{
		Prefix: prefix, Reserved: []netip.Prefix{clusterIPs},
		Route: n.route, Stay: n.stay, Outside: n, Changed: n.listening,
	})
	if err != nil {
		return nil, err
	}
	if n.dns, err = n.serveDNS(resolvConf); err != nil {
		return nil, err
	}
	return n, n.allocator.Allocate([]*corev1.Service{n.dns.service})
}

// close ends what is not of a single pod; the pods have left.
func (n *network) close() error {
	n.mu.Lock()
	ports := n.nodePorts
	n.nodePorts = nil
	if n.changes != nil {
		n.changes.Close()
	}
	n.mu.Unlock()
	var errs []error
	for _, f := range ports {
		errs = append(errs, f.Close())
	}
	if n.dns != nil {
		errs = append(errs, n.dns.close())
	}
	if n.claim != nil {
		errs = append(errs, n.claim.Close())
	}
	errs = append(errs, n.node.close(), n.sockets.close())
	return errors.Join(errs...)
}

// put adds Services, which get their addresses and node ports (WL-30), and
// NetworkPolicies. An object of the same name is replaced.
func (n *network) put(ctx context.Context, objects *manifest.Objects) error {
	services := make([]*corev1.Service, 0, len(objects.Services))
	for _, svc := range objects.Services {
		services = append(services, svc.DeepCopy())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, svc := range services {
		n.services = slices.DeleteFunc(n.services, func(old *corev1.Service) bool {
			same := old.Namespace == svc.Namespace && old.Name == svc.Name
			if same {
				n.allocator.Release(old)
				n.closeNodePorts(old)
			}
			return same
		})
	}
	if err := n.allocator.Allocate(services); err != nil {
		return err
	}
	n.services = append(n.services, services...)
	for _, p := range objects.NetworkPolicies {
		n.policies = slices.DeleteFunc(n.policies, func(old *networkingv1.NetworkPolicy) bool {
			return old.Namespace == p.Namespace && old.Name == p.Name
		})
		n.policies = append(n.policies, p.DeepCopy())
	}
	for _, ns := range objects.Namespaces {
		n.namespaces[ns.Name] = ns.DeepCopy().Labels
	}
	n.stale = true
	n.plain.Store(len(n.services)+len(n.policies) == 0)
	for i, svc := range services {
		if err := n.publish(ctx, svc, objects.Services[i]); err != nil {
			return err
		}
	}
	return nil
}

// list returns the Services with their addresses.
func (n *network) list() []*corev1.Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*corev1.Service, 0, len(n.services))
	for _, svc := range n.services {
		out = append(out, svc.DeepCopy())
	}
	return out
}

// of returns the Services of a namespace, which are not to be changed.
func (n *network) of(namespace string) (services []*corev1.Service) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, svc := range n.services {
		if svc.Namespace == namespace {
			services = append(services, svc)
		}
	}
	return services
}

// current is the table of now. It is made when it is asked for, and only if
// something has changed.
func (n *network) current() *service.Table {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changes == nil {
		n.changes = n.store.Watch()
	}
	for _, uid := range n.changes.Changed() {
		n.stale = true
		pod := n.store.Pod(uid)
		if pod == nil {
			delete(n.pods, uid)
			continue
		}
		if n.pods[uid] == nil {
			n.order = append(n.order, uid)
		}
		n.pods[uid] = pod
	}
	if !n.stale {
		return n.table
	}
	pods := []*corev1.Pod{n.dns.pod}
	n.order = slices.DeleteFunc(n.order, func(uid types.UID) bool { return n.pods[uid] == nil })
	for _, uid := range n.order {
		// The address counts from before anything of the pod runs until nothing does,
		// whatever its status says by now: policies have no gap at either end.
		pod := n.pods[uid]
		ip := ""
		if addr, ok := n.ips[uid]; ok {
			ip = addr.String()
		}
		if pod.Status.PodIP != ip {
			pod = pod.DeepCopy() // tables are immutable
			pod.Status.PodIP = ip
			n.pods[uid] = pod
		}
		pods = append(pods, pod)
	}
	n.table = service.NewTable(service.State{
		Services: append([]*corev1.Service{n.dns.service}, n.services...), Pods: pods,
		Policies: slices.Clone(n.policies), Namespaces: n.namespaceLabels(), Domain: container.ClusterDomain,
	})
	n.stale = false
	return n.table
}

func (n *network) namespaceLabels() map[string]map[string]string {
	out := make(map[string]map[string]string, len(n.namespaces))
	for name, labels := range n.namespaces {
		out[name] = labels
	}
	return out
}

// route is podnet.Config.Route: what Services and NetworkPolicies make of a
// connection that leaves a pod. Only pods are asked about; what the node
// connects to them is not subject to policy.
func (n *network) route(from *podnet.Namespace, proto podnet.Proto, to netip.AddrPort) podnet.Verdict {
	if n.plain.Load() && !clusterIPs.Contains(to.Addr()) {
		return podnet.Verdict{}
	}
	table := n.current()
	protocol := protocolOf(proto)
	verdict := podnet.Verdict{}
	if f, ok := table.Frontend(protocol, to); ok {
		endpoint, ok := n.pick(f, from.IP())
		if !ok {
			return podnet.Verdict{Action: podnet.Refuse}
		}
		verdict.To, to = endpoint, endpoint
	} else if table.IsClusterIP(to.Addr()) {
		return podnet.Verdict{Action: podnet.Refuse}
	}
	if from != n.host.namespace.Load() && !table.Allowed(protocol, from.IP(), to) {
		return podnet.Verdict{Action: podnet.Refuse}
	}
	return verdict
}

// stay is podnet.Config.Stay: as long as a pod is an endpoint of a Service and may be
// reached, it keeps the flows of datagrams that it has (WL-30).
func (n *network) stay(from *podnet.Namespace, proto podnet.Proto, to, was netip.AddrPort) bool {
	table, protocol := n.current(), protocolOf(proto)
	f, ok := table.Frontend(protocol, to)
	return ok && slices.Contains(f.Endpoints, was) && (from == n.host.namespace.Load() || table.Allowed(protocol, from.IP(), was))
}

func protocolOf(p podnet.Proto) corev1.Protocol {
	if p == podnet.UDP {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// pick chooses the endpoint of a client: in turn, or the one it had before.
func (n *network) pick(f *service.Frontend, from netip.Addr) (netip.AddrPort, bool) {
	if len(f.Endpoints) == 0 {
		return netip.AddrPort{}, false
	}
	t := turn{f.Namespace, f.Service, f.Name, f.Protocol}
	if f.Affinity > 0 {
		if had, ok := n.affinity.get(client{t, from}, time.Now()); ok && slices.Contains(f.Endpoints, had) {
			n.affinity.set(client{t, from}, had, time.Now().Add(f.Affinity))
			return had, true
		}
	}
	n.mu.Lock()
	i := n.turns[t] % len(f.Endpoints)
	n.turns[t] = i + 1
	n.mu.Unlock()
	if f.Affinity > 0 {
		n.affinity.set(client{t, from}, f.Endpoints[i], time.Now().Add(f.Affinity))
	}
	return f.Endpoints[i], true
}

// maxAffinity bounds the clients that are remembered.
const maxAffinity = 10_000

// affinity remembers which endpoint a client has (sessionAffinity ClientIP).
type affinity struct {
	mu      sync.Mutex
	clients map[client]choice
}

type client struct {
	turn
	ip netip.Addr
}

type choice struct {
	endpoint netip.AddrPort
	expires  time.Time
}

func (a *affinity) get(c client, now time.Time) (netip.AddrPort, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	had, ok := a.clients[c]
	return had.endpoint, ok && now.Before(had.expires)
}

func (a *affinity) set(c client, to netip.AddrPort, expires time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.clients { // any: whoever comes back is remembered again
		if len(a.clients) < maxAffinity {
			break
		}
		delete(a.clients, k)
	}
	a.clients[c] = choice{to, expires}
}

// DialContext implements podnet.Outside: it dials what is no pod, as far as the
// egress policies of the pod and of the node allow.
func (n *network) DialContext(ctx context.Context, from *podnet.Namespace, network, address string) (net.Conn, error) {
	n.mu.Lock()
	m := n.members[from]
	n.mu.Unlock()
	if m == nil {
		return nil, net.ErrClosed
	}
	if m.pod == nil {
		if err := n.checkHostEgress(network, address); err != nil {
			return nil, err
		}
	}
	return m.guard.dial(address, func() (conn net.Conn, err error) {
		err = m.do(ctx, func() (err error) {
			conn, err = m.egress.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	})
}

// nodePortFree reports whether nobody on this host has a port. n.mu is held.
func (n *network) nodePortFree(protocol corev1.Protocol, port uint16) bool {
	at := netip.AddrPortFrom(n.nodeIP, port).String()
	if protocol == corev1.ProtocolUDP {
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// publish binds the node ports of a Service, of which some were asked for. Between
// the allocator's look at a port and this another process may have bound it, such as
// another run that chooses in the same order: then those that nobody has asked for
// are chosen again. n.mu is held.
func (n *network) publish(ctx context.Context, svc, asked *corev1.Service) error {
	const attempts = 100
	var passed []int32
	defer func() { n.allocator.GiveBack(passed) }()
	for attempt := 1; ; attempt++ {
		err := n.openNodePorts(ctx, svc)
		if !errors.Is(err, syscall.EADDRINUSE) || attempt == attempts {
			return err
		}
		n.closeNodePorts(svc)
		had, again := n.allocator.Again(svc, asked)
		if passed = append(passed, had...); again != nil || len(had) == 0 {
			return errors.Join(err, again)
		}
	}
}

// openNodePorts binds the node ports of a Service. n.mu is held.
func (n *network) openNodePorts(ctx context.Context, svc *corev1.Service) error {
	limit := hostport.NewLimit(0)
	for _, p := range svc.Spec.Ports {
		if p.NodePort == 0 || p.Protocol == corev1.ProtocolSCTP {
			continue
		}
		key := portKey{svc.Namespace, svc.Name, p.Protocol, uint16(p.NodePort)}
		f, err := n.node.listen(ctx, strings.ToLower(string(p.Protocol)), netip.AddrPortFrom(n.nodeIP, uint16(p.NodePort)), hostport.Config{
			Dial: func(ctx context.Context, network string, client netip.AddrPort) (net.Conn, error) {
				return n.dialNodePort(ctx, key, network, client)
			},
			Limit: limit, Log: n.log,
		})
		if err != nil {
			return fmt.Errorf("service %q in namespace %q: node port %d: %w", svc.Name, svc.Namespace, p.NodePort, err)
		}
		n.nodePorts = append(n.nodePorts, f)
	}
	return nil
}

// closeNodePorts unbinds the node ports of a Service. n.mu is held, so it does
// not wait for connections.
func (n *network) closeNodePorts(svc *corev1.Service) {
	n.nodePorts = slices.DeleteFunc(n.nodePorts, func(f *hostport.Forwarder) bool {
		has := slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return uint16(p.NodePort) == f.Addr().Port() })
		if has {
			_ = f.Unbind()
			go f.Close()
		}
		return has
	})
}

// portKey is a node port of a Service.
type portKey struct {
	namespace, service string
	protocol           corev1.Protocol
	port               uint16
}

func (n *network) dialNodePort(ctx context.Context, key portKey, network string, client netip.AddrPort) (net.Conn, error) {
	for _, f := range n.current().NodePorts() {
		if (portKey{f.Namespace, f.Service, f.Protocol, f.NodePort}) != key {
			continue
		}
		endpoint, ok := n.pick(f, client.Addr())
		if !ok {
			break
		}
		if ns := n.net.Lookup(endpoint.Addr()); ns != nil {
			return dialPod(ctx, ns, network, client, endpoint)
		}
	}
	return nil, errors.New("the Service has no endpoints")
}

// dialPod connects a client of the host to a pod, which sees the client's
// address where it can: it has none of the other family.
func dialPod(ctx context.Context, ns *podnet.Namespace, network string, client, to netip.AddrPort) (net.Conn, error) {
	if client.Addr().Is4() != to.Addr().Is4() {
		client = netip.AddrPort{}
	}
	return ns.DialFrom(ctx, client, network, to.String())
}

// kubeDNS is the cluster's DNS as other objects see it: policies that let pods
// ask it are usually written about these names and labels.
func kubeDNS(ip netip.Addr) (*corev1.Service, *corev1.Pod) {
	labels := map[string]string{"k8s-app": "kube-dns"}
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-dns", Labels: labels}
	svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterDNSIP.String(), ClusterIPs: []string{clusterDNSIP.String()}, Selector: labels,
		Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP}},
	}}
	pod := &corev1.Pod{ObjectMeta: meta, Status: corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip.String(),
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}}
	return svc, pod
}
