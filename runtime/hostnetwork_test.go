package runtime

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

const hostNetworkPods = `
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: other}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Ingress]}
`

// freePort is a port of 127.0.0.1 that is free, and stays so: the kernel gives it to
// none of those who ask for any, as tests of other packages do all the time, and no
// Service has it for a node port.
func freePort(t *testing.T) int {
	t.Helper()
	for port := 20_000 + os.Getpid()%6_000; port < 27_000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue
		}
		defer pc.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// hostEcho is a server of the host: what it gets by UDP or as a line it sends
// back.
func hostEcho(t *testing.T) string {
	t.Helper()
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			l.Close()
			continue // another's
		}
		t.Cleanup(func() { l.Close(); pc.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "host")
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
				pc.WriteTo([]byte("host\n"), from)
			}
		}()
		return l.Addr().String()
	}
	t.Fatal("no port is free for both protocols")
	return ""
}

func TestHostNetwork(t *testing.T) {
	port := freePort(t)
	n := newTestNetwork(t, Config{}, hostNetworkPods+fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: %d}]}
`, port))
	host := new(net.Dialer).DialContext
	at := fmt.Sprintf("127.0.0.1:%d", port)

	taken, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.pods["a"].Listen("tcp", fmt.Sprintf(":%d", port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("NET-05 a port that a process of the host has: %v, want EADDRINUSE", err)
	}
	own, err := n.pods["other"].Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatalf("MAIN-08 in a pod that is not on the host's network: %v", err)
	}
	own.Close()
	taken.Close()

	n.serve("a", port)
	if _, err := n.pods["b"].Listen("tcp", fmt.Sprintf(":%d", port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("NET-05 a port that another pod on the host's network has: %v, want EADDRINUSE", err)
	}
	service := n.list()[0].Spec.ClusterIP + ":80"
	for _, c := range []struct {
		name, network, to string
		dial              dialFunc
	}{
		{"from the host", "tcp", at, host},
		{"from the host", "udp", at, host},
		{"from the other pod on the host's network, by localhost", "tcp", at, n.pods["b"].DialContext},
		{"from the other pod on the host's network, by localhost", "udp", at, n.pods["b"].DialContext},
		{"by a Service, from a pod with a network of its own", "tcp", service, n.pods["other"].DialContext},
	} {
		if who, err := ask(t, c.dial, c.network, c.to); who != "a" || err != nil {
			t.Errorf("NET-05 %s, %s: %q, %v", c.name, c.network, who, err)
		}
	}
	if _, err := ask(t, n.pods["other"].DialContext, "tcp", at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("localhost of a pod with a network of its own: %v, want ECONNREFUSED", err)
	}
	n.serve("other", 80)
	if who, err := ask(t, n.pods["a"].DialContext, "tcp", n.pods["other"].IP().String()+":80"); who != "other" || err != nil {
		t.Errorf("the node is not subject to policy: %q, %v", who, err)
	}

	n.remove("a")
	if _, err := n.pods["b"].Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Errorf("when one of two pods has gone: %v", err)
	}
	n.remove("b")
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatalf("when the pods have gone: %v", err)
	}
	l.Close()
}

// The host's loopback is out of reach of pods on its network too, unless
// somebody allows it by name.
func TestHostNetworkEgress(t *testing.T) {
	server := hostEcho(t)
	for _, c := range []struct {
		name, egress, annotation string
		reached                  bool
	}{
		{"by default", "", "", false},
		{"allow", "allow", "", false},
		{"by name", "allow, " + server, "", true},
		{"by name", server, "", true},
		{"a pod that allows itself more", "allow", server, false},
		{"a pod that allows itself less", server, "deny", false},
	} {
		if strings.HasPrefix(c.egress, "allow,") {
			c.egress = "0.0.0.0/0 " + server
		}
		n := newTestNetwork(t, Config{Egress: c.egress}, hostNetworkPods)
		if c.annotation != "" {
			objects, err := manifest.Parse("default", manifest.Source{Name: "x.yaml", Data: fmt.Appendf(nil,
				"apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {wasmpod.dev/egress: %q}}\nspec: {hostNetwork: true, containers: [{name: c, image: i}]}\n", c.annotation)})
			if err != nil {
				t.Fatal(err)
			}
			objects.Pods[0].UID = "x"
			if err := n.add(objects.Pods[0]); err != nil {
				t.Fatal(err)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			who, err := ask(t, n.pods["a"].DialContext, network, server)
			if c.reached && (who != "host" || err != nil) || !c.reached && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s, node %q, %s: %q, %v", c.name, c.egress, network, who, err)
			}
			if _, err := ask(t, n.pods["other"].DialContext, network, server); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s, node %q: localhost of a pod with a network of its own: %v", c.name, c.egress, err)
			}
		}
	}
}

func TestHostNetworkPorts(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 8123}]}]}\n"
	n := newTestNetwork(t, Config{}, fmt.Sprintf(pod, "a"))
	objects, err := manifest.Parse("default", manifest.Source{Name: "b.yaml", Data: fmt.Appendf(nil, pod, "b")})
	if err != nil {
		t.Fatal(err)
	}
	b := objects.Pods[0]
	b.UID = "b"
	if err := n.add(b); err == nil || !strings.Contains(err.Error(), "didn't have free ports for the requested pod ports") {
		t.Errorf("MAN-09 a port that another pod on the host's network declares: %v", err)
	}
}
