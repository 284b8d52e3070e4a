package service

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func newPod(ns, name, ip string, labels map[string]string, ready bool) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8080, Protocol: "TCP"}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}
}

func newService(name, clusterIP string, target intstr.IntOrString) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP", TargetPort: target}}},
	}
}

var web = map[string]string{"app": "web"}

func endpointsOf(t *testing.T, svc *corev1.Service, pods ...*corev1.Pod) []string {
	t.Helper()
	table := NewTable(State{Services: []*corev1.Service{svc}, Pods: pods, Domain: "cluster.local"})
	f, ok := table.Frontend("TCP", netip.MustParseAddrPort("10.0.0.1:80"))
	if !ok {
		t.Fatal("the Service is not there")
	}
	var out []string
	for _, e := range f.Endpoints {
		out = append(out, e.String())
	}
	return out
}

func TestEndpoints(t *testing.T) {
	deleted := metav1.NewTime(time.Unix(1, 0))
	for _, c := range []struct {
		name   string
		change func(*corev1.Service, []*corev1.Pod)
		want   []string
	}{
		{"WL-30 ready pods in their order", func(*corev1.Service, []*corev1.Pod) {}, []string{"1.0.0.1:80", "1.0.0.2:80"}},
		{"WL-31 PROBE-12 not ready", func(_ *corev1.Service, p []*corev1.Pod) { p[0].Status.Conditions[0].Status = "False" }, []string{"1.0.0.2:80"}},
		{"WL-31 DEL-09 being deleted", func(_ *corev1.Service, p []*corev1.Pod) { p[0].DeletionTimestamp = &deleted }, []string{"1.0.0.2:80"}},
		{"DEL-09 all are being deleted: better than none", func(_ *corev1.Service, p []*corev1.Pod) {
			p[0].DeletionTimestamp, p[1].DeletionTimestamp = &deleted, &deleted
		}, []string{"1.0.0.1:80", "1.0.0.2:80"}},
		{"WL-31 ended", func(_ *corev1.Service, p []*corev1.Pod) { p[1].Status.Phase = corev1.PodSucceeded }, []string{"1.0.0.1:80"}},
		{"WL-30 of its namespace", func(_ *corev1.Service, p []*corev1.Pod) { p[0].Namespace = "other" }, []string{"1.0.0.2:80"}},
		{"WL-30 by its labels", func(_ *corev1.Service, p []*corev1.Pod) { p[0].Labels = map[string]string{"app": "db"} }, []string{"1.0.0.2:80"}},
		{"WL-30 publishNotReadyAddresses", func(s *corev1.Service, p []*corev1.Pod) {
			s.Spec.PublishNotReadyAddresses = true
			p[0].Status.Conditions = nil
		}, []string{"1.0.0.1:80", "1.0.0.2:80"}},
		{"WL-30 NET-08 a port by name, another number in every pod", func(s *corev1.Service, p []*corev1.Pod) {
			s.Spec.Ports[0].TargetPort = intstr.FromString("http")
			p[1].Spec.Containers[0].Ports[0].ContainerPort = 9090
		}, []string{"1.0.0.1:8080", "1.0.0.2:9090"}},
		{"WL-30 a pod that lacks the named port", func(s *corev1.Service, p []*corev1.Pod) {
			s.Spec.Ports[0].TargetPort = intstr.FromString("http")
			p[1].Spec.Containers[0].Ports = nil
		}, []string{"1.0.0.1:8080"}},
		{"WL-30 no selector, no endpoints", func(s *corev1.Service, _ []*corev1.Pod) { s.Spec.Selector = nil }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := newService("web", "10.0.0.1", intstr.IntOrString{})
			pods := []*corev1.Pod{newPod("ns", "a", "1.0.0.1", web, true), newPod("ns", "b", "1.0.0.2", web, true)}
			c.change(svc, pods)
			if got := endpointsOf(t, svc, pods...); !slices.Equal(got, c.want) {
				t.Errorf("endpoints %v, want %v", got, c.want)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	headless := newService("db", corev1.ClusterIPNone, intstr.FromInt32(5432))
	headless.Spec.Selector = map[string]string{"app": "db"}
	external := newService("ext", "", intstr.IntOrString{})
	external.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "Example.org"}
	empty := newService("empty", corev1.ClusterIPNone, intstr.IntOrString{})
	empty.Spec.Selector = map[string]string{"app": "nobody"}
	db := newPod("ns", "db-0", "1.0.0.9", map[string]string{"app": "db"}, true)
	db.Spec.Hostname, db.Spec.Subdomain = "db-0", "db"
	table := NewTable(State{
		Services: []*corev1.Service{newService("web", "10.0.0.1", intstr.IntOrString{}), headless, external, empty},
		Pods:     []*corev1.Pod{newPod("ns", "a", "1.0.0.1", web, true), db, newPod("ns", "x", "1.0.0.8", map[string]string{"app": "db"}, true)},
		Domain:   "cluster.local",
	})
	for _, c := range []struct {
		name, ask string
		exists    bool
		want      []string
	}{
		{"WL-30 a cluster IP", "web.ns.svc.cluster.local.", true, []string{"10.0.0.1", "web.ns.svc.cluster.local.:80"}},
		{"headless: the pods", "db.ns.svc.cluster.local.", true, []string{"1.0.0.9", "1.0.0.8", "db-0.db.ns.svc.cluster.local.:5432", "1-0-0-8.db.ns.svc.cluster.local.:5432"}},
		{"NET-02 a pod by hostname and subdomain", "db-0.db.ns.svc.cluster.local.", true, []string{"1.0.0.9"}},
		{"a pod of a Service by its address", "1-0-0-8.db.ns.svc.cluster.local.", true, []string{"1.0.0.8"}},
		{"headless without pods", "empty.ns.svc.cluster.local.", false, nil},
		{"an alias", "ext.ns.svc.cluster.local.", true, []string{"CNAME example.org."}},
		{"a port", "_http._tcp.web.ns.svc.cluster.local.", true, []string{"web.ns.svc.cluster.local.:80", "10.0.0.1"}},
		{"a port that is not there", "_http._udp.web.ns.svc.cluster.local.", false, nil},
		{"a pod by its address", "1-0-0-1.ns.pod.cluster.local.", true, []string{"1.0.0.1"}},
		{"no pod has it", "1-0-0-7.ns.pod.cluster.local.", false, nil},
		{"a namespace", "ns.svc.cluster.local.", true, nil},
		{"no namespace", "nope.svc.cluster.local.", false, nil},
		{"the domain", "cluster.local.", true, nil},
		{"another domain", "mycluster.local.", false, nil},
		{"no Service", "nope.ns.svc.cluster.local.", false, nil},
		{"the name of a cluster IP", "1.0.0.10.in-addr.arpa.", true, []string{"PTR web.ns.svc.cluster.local."}},
		{"the name of a pod", "9.0.0.1.in-addr.arpa.", true, []string{"PTR db-0.db.ns.svc.cluster.local."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			records, exists := table.Lookup(c.ask)
			var got []string
			for _, r := range records {
				switch r.Kind {
				case Alias:
					got = append(got, "CNAME "+r.Target)
				case Pointer:
					got = append(got, "PTR "+r.Target)
				case Server:
					got = append(got, r.Target+":"+netip.AddrPortFrom(netip.IPv4Unspecified(), r.Port).String()[8:])
				default:
					got = append(got, r.Addr.String())
				}
			}
			if exists != c.exists || !slices.Equal(got, c.want) {
				t.Errorf("Lookup(%s) = %v, %v; want %v, %v", c.ask, got, exists, c.want, c.exists)
			}
		})
	}
}

func TestAllocatorWL30(t *testing.T) {
	a, err := NewAllocator(netip.MustParsePrefix("127.192.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	a.Free = func(_ corev1.Protocol, port uint16) bool { return port != 30086 }
	free := newService("a", "", intstr.IntOrString{})
	asks := newService("b", "127.192.1.0", intstr.IntOrString{})
	for _, s := range []*corev1.Service{free, asks} {
		s.Spec.Type = corev1.ServiceTypeNodePort
	}
	free.Spec.Ports = []corev1.ServicePort{{Name: "t", Port: 53, Protocol: "TCP"}, {Name: "u", Port: 53, Protocol: "UDP"}}
	asks.Spec.Ports[0].NodePort = 30087
	if err := a.Allocate([]*corev1.Service{free, asks}); err != nil {
		t.Fatal(err)
	}
	if free.Spec.ClusterIP != "127.192.1.1" || free.Spec.Ports[0].NodePort != 30088 || free.Spec.Ports[1].NodePort != 30088 {
		t.Errorf("got %s and %+v: what others ask for, or what the host has not, was given away", free.Spec.ClusterIP, free.Spec.Ports)
	}
	again := newService("c", "127.192.1.0", intstr.IntOrString{})
	if err := a.Allocate([]*corev1.Service{again}); err == nil {
		t.Error("a cluster IP was given to two Services")
	}
	a.Release(asks)
	if err := a.Allocate([]*corev1.Service{again}); err != nil {
		t.Errorf("after its release: %v", err)
	}
}
