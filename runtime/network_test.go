package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime/manifest"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// testNetwork is a network whose pods are namespaces without guests.
type testNetwork struct {
	*network
	t     *testing.T
	pods  map[string]*podnet.Namespace
	leave map[string]func() error
}

func newTestNetwork(t *testing.T, cfg Config, manifests string) *testNetwork {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	n, err := newNetwork(t.Context(), cfg, store.New(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newTestPods(t, n, manifests)
}

// newTestPods gives a network pods, and closes it when the test ends.
func newTestPods(t *testing.T, n *network, manifests string) *testNetwork {
	t.Helper()
	objects, err := manifest.Parse("default", manifest.Source{Name: "test.yaml", Data: []byte(manifests)})
	if err != nil {
		t.Fatal(err)
	}
	objs := n.store
	tn := &testNetwork{network: n, t: t, pods: make(map[string]*podnet.Namespace), leave: make(map[string]func() error)}
	t.Cleanup(func() {
		for name := range tn.pods {
			tn.remove(name)
		}
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.put(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	for _, pod := range objects.Pods {
		pod.UID = types.UID(pod.Name)
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := objs.AddPod(pod); err != nil {
			t.Fatal(err)
		}
		if err := tn.add(pod); err != nil {
			t.Fatal(err)
		}
	}
	return tn
}

func (n *testNetwork) add(pod *corev1.Pod) error {
	c, err := n.connect(n.t.Context(), pod, string(pod.UID))
	if err != nil {
		return err
	}
	n.pods[pod.Name], n.leave[pod.Name] = c.Namespace, c.Close
	return nil
}

func (n *testNetwork) remove(name string) {
	if err := n.leave[name](); err != nil {
		n.t.Error(err)
	}
	delete(n.pods, name)
}

// serve has a pod answer every connection, and every datagram, with its name.
func (n *testNetwork) serve(pod string, port int) net.Listener {
	n.t.Helper()
	l, err := n.pods[pod].Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		n.t.Fatal(err)
	}
	pc, err := n.pods[pod].ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, pod)
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo([]byte(pod+"\n"), from)
		}
	}()
	return l
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ask connects and returns who answers.
func ask(t *testing.T, dial dialFunc, network, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := dial(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

const twoReplicas = `
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {role: client}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: t, port: 80, targetPort: http}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
`

func TestServices(t *testing.T) {
	n := newTestNetwork(t, Config{}, twoReplicas)
	n.serve("a", 8080)
	n.serve("b", 8080)
	ip := make(map[string]string)
	var nodePort int32
	for _, svc := range n.list() {
		ip[svc.Name] = svc.Spec.ClusterIP + ":80"
		nodePort = max(nodePort, svc.Spec.Ports[0].NodePort)
	}
	client := n.pods["client"].DialContext
	host := new(net.Dialer).DialContext
	node := fmt.Sprintf("127.0.0.1:%d", nodePort)
	for _, c := range []struct {
		name, network, to string
		dial              dialFunc
	}{
		{"WL-30 in turn", "tcp", ip["web"], client},
		{"WL-30 UDP", "udp", ip["web"], client},
		{"WL-30 NodePort", "tcp", node, host},
		{"WL-30 NodePort, UDP", "udp", node, host},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(map[string]int)
			for range 4 {
				who, err := ask(t, c.dial, c.network, c.to)
				if err != nil {
					t.Fatal(err)
				}
				got[who]++
			}
			if got["a"] != 2 || got["b"] != 2 {
				t.Errorf("answers came from %v, want two of each", got)
			}
		})
	}
	t.Run("WL-30 affinity", func(t *testing.T) {
		first, err := ask(t, client, "tcp", ip["sticky"])
		for range 3 {
			if who, err := ask(t, client, "tcp", ip["sticky"]); err != nil || who != first {
				t.Errorf("%q, %v; the first time it was %q", who, err, first)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("WL-30 no endpoints", func(t *testing.T) {
		if _, err := ask(t, client, "tcp", ip["nobody"]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want ECONNREFUSED", err)
		}
	})
	t.Run("NET-04 names", func(t *testing.T) {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return client(ctx, network, clusterDNSIP.String()+":53")
		}}
		ips, err := r.LookupHost(t.Context(), "web.default.svc.cluster.local.")
		if err != nil || len(ips) != 1 || ips[0]+":80" != ip["web"] {
			t.Errorf("web is %v, %v; want %s", ips, err, ip["web"])
		}
		var dns *net.DNSError
		if _, err := r.LookupHost(t.Context(), "nope.default.svc.cluster.local."); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("a name that nobody has: %v", err)
		}
	})
	t.Run("WL-31 a pod that has left", func(t *testing.T) {
		n.remove("a")
		for range 3 {
			if who, err := ask(t, client, "tcp", ip["web"]); err != nil || who != "b" {
				t.Errorf("%q, %v; want b", who, err)
			}
		}
	})
}

// Node ports that others take between the look at them and their use are passed over,
// unless somebody has asked for one by its number.
func TestNodePortsTakenMeanwhile(t *testing.T) {
	n := newTestNetwork(t, Config{}, twoReplicas)
	first := max(n.list()[0].Spec.Ports[0].NodePort, n.list()[1].Spec.Ports[0].NodePort, n.list()[2].Spec.Ports[0].NodePort)
	for i := range int32(3) {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+1+i)); err == nil { // else somebody else has it
			defer l.Close()
		}
	}
	n.allocator.Free = nil // it has looked before they were taken
	svc := func(name, more string) *manifest.Objects {
		objects, err := manifest.Parse("default", manifest.Source{Name: name, Data: fmt.Appendf(nil,
			"apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {type: NodePort, selector: {app: web}, ports: [{name: t, port: 80, targetPort: 8080%s}, {name: u, port: 81, targetPort: 8080}]}\n", name, more)})
		if err != nil {
			t.Fatal(err)
		}
		return objects
	}
	if err := n.put(t.Context(), svc("asks", fmt.Sprintf(", nodePort: %d", first+1))); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that was asked for: %v, want EADDRINUSE", err)
	}
	if err := n.put(t.Context(), svc("chooses", "")); err != nil {
		t.Fatal(err)
	}
	n.serve("a", 8080)
	n.serve("b", 8080)
	for _, svc := range n.list() {
		if svc.Name != "chooses" {
			continue
		}
		for _, p := range svc.Spec.Ports {
			if who, err := ask(t, new(net.Dialer).DialContext, "tcp", fmt.Sprintf("127.0.0.1:%d", p.NodePort)); err != nil || p.NodePort <= first+3 {
				t.Errorf("WL-30 node port %d: %q, %v; %d to %d are taken", p.NodePort, who, err, first+1, first+3)
			}
		}
	}
}

func TestNetworkPolicy(t *testing.T) {
	n := newTestNetwork(t, Config{}, twoReplicas+`
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]}
`)
	n.serve("a", 8080)
	to := n.pods["a"].IP().String() + ":8080"
	if who, err := ask(t, n.pods["client"].DialContext, "tcp", to); err != nil || who != "a" {
		t.Errorf("allowed: %q, %v", who, err)
	}
	if _, err := ask(t, n.pods["stranger"].DialContext, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("denied: %v, want ECONNREFUSED", err)
	}
	conn, err := dialPod(t.Context(), n.pods["a"], "tcp", netip.MustParseAddrPort("127.0.0.1:999"), netip.MustParseAddrPort(to))
	if err != nil {
		t.Fatalf("the node is not subject to policy: %v", err)
	}
	conn.Close()
}

func TestPodIPOnHost(t *testing.T) {
	if goruntime.GOOS != "linux" {
		t.Skip("only on Linux is all of 127.0.0.0/8 an address of the host")
	}
	n := newTestNetwork(t, Config{}, twoReplicas)
	other := newTestNetwork(t, Config{}, twoReplicas)
	if n.claim == nil || other.claim == nil || n.claim.prefix.Overlaps(other.claim.prefix) {
		t.Fatalf("two runs have %v and %v", n.claim, other.claim)
	}
	host := new(net.Dialer).DialContext
	to := n.pods["a"].IP().String() + ":8080"
	if _, err := ask(t, host, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("before it listens: %v", err)
	}
	l := n.serve("a", 8080)
	for _, network := range []string{"tcp", "udp"} {
		if who, err := ask(t, host, network, to); err != nil || who != "a" {
			t.Errorf("%s: %q, %v", network, who, err)
		}
	}
	l.Close()
	if _, err := ask(t, host, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("when it listens no more: %v", err)
	}
	if _, err := n.pods["a"].Listen("tcp", "127.0.0.1:8081"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, host, "tcp", n.pods["a"].IP().String()+":8081"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("what listens on localhost: %v", err)
	}
}

func TestHostPortEXEC06(t *testing.T) {
	port := freePort(t)
	pod := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %%s}\nspec: {containers: [{name: c, image: i, ports: [{containerPort: 8080, hostPort: %d}]}]}\n", port)
	n := newTestNetwork(t, Config{}, fmt.Sprintf(pod, "a"))
	n.serve("a", 8080)
	host, to := new(net.Dialer).DialContext, fmt.Sprintf("127.0.0.1:%d", port)
	if who, err := ask(t, host, "tcp", to); err != nil || who != "a" {
		t.Errorf("NET-08: %q, %v", who, err)
	}
	objects, err := manifest.Parse("default", manifest.Source{Name: "b.yaml", Data: fmt.Appendf(nil, pod, "b")})
	if err != nil {
		t.Fatal(err)
	}
	b := objects.Pods[0]
	b.UID = "b"
	if err := n.add(b); err == nil || !strings.Contains(err.Error(), "didn't have free ports for the requested pod ports") {
		t.Errorf("a port that another pod has: %v", err)
	}
	n.remove("a")
	if _, err := ask(t, host, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("when the pod is gone: %v", err)
	}
	if err := n.add(b); err != nil {
		t.Errorf("a port that is free again: %v", err)
	}
}

func TestEgress(t *testing.T) {
	n := newTestNetwork(t, Config{Egress: "192.0.2.0/24"}, `
apiVersion: v1
kind: Pod
metadata: {name: a, annotations: {wasmpod.dev/egress: allow}}
spec: {containers: [{name: c, image: i}]}
`)
	if _, err := ask(t, n.pods["a"].DialContext, "tcp", "198.51.100.1:80"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a pod that allows itself more than the node does: %v, want EACCES", err)
	}
	bad := &corev1.Pod{}
	bad.Annotations = map[string]string{egressAnnotation: "nonsense"}
	if err := n.add(bad); err == nil {
		t.Error("an annotation that is no policy was taken")
	}
	if _, err := newNetwork(t.Context(), Config{Egress: "nonsense", Log: n.log}, store.New(), nil, nil); err == nil {
		t.Error("a configuration that is no policy was taken")
	}
}
