//go:build linux && (amd64 || arm64)

package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/podnet/hostport"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// newWalledNetwork is newTestNetwork with a wall, and what is logged.
func newWalledNetwork(t *testing.T, policy, manifests string) (*testNetwork, *logged) {
	t.Helper()
	log := new(logged)
	cfg := Config{DataDir: t.TempDir(), EgressWall: WallAuto, Egress: policy, Log: slog.New(slog.NewTextHandler(log, nil))}
	s, err := newSocketWall(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.open() == nil {
		s.close()
		// Containers refuse it in many ways; the virtual machine in none.
		refused := slices.ContainsFunc([]error{cgroupfs.ErrNotSupported, unix.EROFS, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EBUSY}, func(err error) bool { return errors.Is(s.err, err) })
		if os.Getenv("WASMPOD_TEST_VM") != "" || os.Getenv("CI") == "true" && os.Getuid() == 0 && !refused {
			t.Fatal(s.err)
		}
		t.Skip(s.err)
	}
	n, err := newNetwork(t.Context(), cfg, store.New(), nil, s)
	if err != nil {
		t.Fatal(errors.Join(err, s.close()))
	}
	return newTestPods(t, n, manifests), log
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const walledPods = `
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: narrow, annotations: {wasmpod.dev/egress: "127.0.0.1:1"}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {type: NodePort, selector: {app: a}, ports: [{port: 80, targetPort: http}]}
`

func TestSocketWall(t *testing.T) {
	n, log := newWalledNetwork(t, "127.0.0.1 dns", walledPods)
	nodePort := n.list()[0].Spec.Ports[0].NodePort
	host := hostEcho(t)
	dial := func(pod, network, address string) error {
		c, err := n.DialContext(t.Context(), n.pods[pod], network, address)
		if err == nil {
			c.Close()
		}
		return err
	}
	member := func(pod string) *member { return n.members[n.pods[pod]] }

	t.Run("what both allow goes on", func(t *testing.T) {
		for _, network := range []string{"tcp", "udp"} {
			if err := dial("a", network, host); err != nil {
				t.Error(err)
			}
		}
		if err := dial("narrow", "tcp", host); !errors.Is(err, syscall.EACCES) {
			t.Error(err)
		}
		if u := member("a").guard.usage(); u.Denied != 0 || u.TxPackets == 0 {
			t.Errorf("%+v", u)
		}
	})
	t.Run("the kernel refuses what user space lets pass", func(t *testing.T) {
		m := member("a")
		if err := m.guard.set([]egress.Policy{{}}); err != nil {
			t.Fatal(err)
		}
		for i, network := range []string{"tcp", "udp", "tcp"} {
			if err := dial("a", network, host); !errors.Is(err, syscall.EACCES) {
				t.Errorf("%s: %v", network, err)
			}
			if u := m.guard.usage(); u.Denied != uint64(i+1) {
				t.Errorf("%+v", u)
			}
		}
		if strings.Count(log.String(), "the kernel has refused a connection") != 1 || !strings.Contains(log.String(), "pod=a") {
			t.Errorf("logged %q", log)
		}
	})
	t.Run("pod IPs and node ports take clients", func(t *testing.T) {
		l := n.serve("a", 8080)
		defer l.Close()
		var d net.Dialer
		for _, address := range []string{n.pods["a"].IP().String() + ":8080", fmt.Sprintf("127.0.0.1:%d", nodePort)} {
			for _, network := range []string{"tcp", "udp"} {
				if strings.HasPrefix(address, "127.0.0.1") && network == "udp" {
					continue
				}
				if who, err := ask(t, d.DialContext, network, address); who != "a" || err != nil {
					t.Errorf("%s %s: %q, %v", network, address, who, err)
				}
			}
		}
	})
	t.Run("what is the node's goes on as before", func(t *testing.T) {
		if c, err := net.Dial("tcp", host); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	})
	t.Run("a process that is moved away is noticed", func(t *testing.T) {
		if err := n.sockets.leave(); err != nil {
			t.Fatal(err)
		}
		m := member("narrow")
		if err := m.guard.set(nil); err != nil {
			t.Fatal(err)
		}
		m.egress = egress.New(egress.Config{Policy: mustParse(t, "127.0.0.1"), Mark: m.guard.mark})
		if err := dial("narrow", "tcp", host); err != nil || strings.Count(log.String(), "does not check the sockets of pods any more") != 1 {
			t.Errorf("%v; logged %q", err, log)
		}
		n.sockets.required = true
		if err := dial("narrow", "tcp", host); !errors.Is(err, syscall.EACCES) {
			t.Error(err)
		}
	})
}

func mustParse(t *testing.T, text string) egress.Policy {
	t.Helper()
	p, err := egress.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What crosses a pod's edge is counted twice, in two meanings: its payload exactly,
// at the pod's interface, and its packets by the kernel.
func TestOutsideTraffic(t *testing.T) {
	n, _ := newWalledNetwork(t, "deny", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n")
	l, err := n.pods["a"].Listen("tcp", ":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const request, answer = 100_000, 1_000_000
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			if _, err = io.ReadFull(c, make([]byte, request)); err == nil {
				_, err = c.Write(make([]byte, answer))
			}
			c.Close()
		}
		served <- err
	}()
	c, err := net.Dial("tcp", n.pods["a"].IP().String()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, request)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); len(got) != answer || err != nil {
		t.Fatal(len(got), err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	u := n.usage()["a"]
	if u.RxBytes != request || u.TxBytes != answer {
		t.Errorf("at the interface: %+v", *u)
	}
	// Headers, acknowledgements, and at most one segment in 500 bytes; a slow machine
	// sends some of it again. Nothing is counted twice.
	if o := u.Outside; o.RxBytes < request || o.RxBytes >= 2*request || o.TxBytes < answer || o.TxBytes >= 2*answer ||
		o.TxPackets > 2*answer/500 || o.RxPackets == 0 {
		t.Errorf("outside: %+v", *o)
	}
}

// Pods on the host's network reach what all of them allow, by the kernel too.
func TestSocketWallHostNetworkNET05(t *testing.T) {
	pod := func(name, policy string) string {
		return "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", annotations: {wasmpod.dev/egress: \"" + policy +
			"\"}}\nspec: {hostNetwork: true, containers: [{name: c, image: i}]}\n"
	}
	host := hostEcho(t)
	at := netip.MustParseAddrPort(host)
	n, _ := newWalledNetwork(t, "127.0.0.1", pod("a", "127.0.0.0/8")+pod("b", fmt.Sprintf("127.0.0.1:%d", at.Port()^1)))
	g := n.host.member.guard
	reaches := func() bool {
		t.Helper()
		// Past all that user space checks.
		pod, err := g.get()
		if err != nil {
			t.Fatal(err)
		}
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = pod.MarkDialer(fd) })
			return errors.Join(e, err)
		}}
		c, err := d.Dial("tcp", host)
		if err == nil {
			c.Close()
		} else if !errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
		return err == nil
	}
	if reaches() {
		t.Error("b does not allow it")
	}
	n.remove("b")
	if !reaches() {
		t.Error("a allows it")
	}
	var last error
	for i := range maxHostPolicies + 1 {
		p := n.host.pods["a"].pod.DeepCopy()
		p.Name = fmt.Sprint("p", i)
		p.UID = types.UID(p.Name)
		p.Annotations[egressAnnotation] = fmt.Sprintf("127.0.0.1:%d", i+1)
		if last = n.add(p); last != nil {
			break
		}
	}
	if last == nil || !strings.Contains(last.Error(), "different annotations") {
		t.Error(last)
	}
}

// The kernel says what the policies say, for any policy that can be written and any
// address: a datagram socket can be connected everywhere without a packet being sent.
func TestKernelAgreesWithEgress(t *testing.T) {
	n, _ := newWalledNetwork(t, "deny", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n")
	g := n.members[n.pods["a"]].guard
	pod, err := g.get()
	if err != nil {
		t.Fatal(err)
	}
	fds := map[int]int{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := pod.MarkDialer(uintptr(fd)); err != nil {
			t.Fatal(err)
		}
		fds[family] = fd
	}
	r := rand.New(rand.NewPCG(11, 12))
	blocks := strings.Fields(`0.0.0.0/0 10.0.0.0/8 10.1.0.0/16 10.1.2.3 127.0.0.0/8 127.0.0.1 126.0.0.0/7 169.254.0.0/15 169.254.169.254 192.0.2.0/25
		224.0.0.0/3 224.0.0.0/4 255.255.255.255 ::/0 ::/96 ::1 ::/10 2001:db8::/32 2001:db8::1 fe80::/9 ff00::/8 64:ff9b::/96 64:ff9b::7f00:0/104
		64:ff9b::a9fe:a9fe 2002::/16 2002:7f00::/24 2002:a9fe:a9fe::/48`)
	one := func() string {
		switch r.IntN(6) {
		case 0:
			return "allow"
		case 1:
			return "deny"
		}
		var items []string
		for range 1 + r.IntN(10) {
			item := blocks[r.IntN(len(blocks))]
			if r.IntN(2) == 0 {
				low := 1 + r.IntN(20)
				item = fmt.Sprintf("[%s]:%d-%d", item, low, low+r.IntN(20))
			}
			items = append(items, item+[]string{"", "/tcp", "/udp"}[r.IntN(3)])
		}
		return strings.Join(items, ",")
	}
	address := func() netip.AddrPort {
		text, _, _ := strings.Cut(blocks[r.IntN(len(blocks))], "/")
		b := netip.MustParseAddr(text).AsSlice()
		if r.IntN(2) == 0 {
			b[len(b)-1-r.IntN(3)] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		addr, _ := netip.AddrFromSlice(b)
		return netip.AddrPortFrom(addr, uint16(1+r.IntN(45)))
	}
	allowed := 0
	for range 150 {
		texts := []string{one(), one()}
		if r.IntN(3) > 0 {
			texts[1] = texts[0]
		}
		p, q := mustParse(t, texts[0]), mustParse(t, texts[1])
		if err := g.set([]egress.Policy{p, q}); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			to := address()
			want := p.Allows("udp", to) && q.Allows("udp", to)
			if want {
				allowed++
			}
			for family, fd := range fds {
				if family == unix.AF_INET && !to.Addr().Unmap().Is4() {
					continue
				}
				none := unix.RawSockaddr{Family: unix.AF_UNSPEC}
				_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
				var at unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
				if family == unix.AF_INET {
					at = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
				}
				// Where there is no way to an address the error is another one.
				err := unix.Connect(fd, at)
				if got := !errors.Is(err, unix.EPERM); got != want {
					t.Fatalf("%q: to %v (family %d) the kernel says %v, the policies %v", texts, to, family, err, want)
				}
			}
		}
	}
	if allowed < 500 {
		t.Errorf("only %d were allowed", allowed)
	}
}

func TestSocketWallOption(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if s, err := newSocketWall(Config{Log: log}, nil); s != nil || err != nil {
		t.Error(s, err)
	}
	if _, err := newSocketWall(Config{Log: log, EgressWall: "maybe"}, nil); err == nil {
		t.Error("maybe is no value")
	}
	// A host that cannot: auto goes on, and required does not.
	cannot := func() (socketGroup, error) { return socketGroup{}, syscall.EPERM }
	s := &socketWall{log: log, group: cannot}
	g := s.newGuard(log, egress.Policy{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f, err := g.listen(ctx, "tcp", netip.MustParseAddrPort("127.0.0.1:0"), hostport.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if pod, err := g.get(); pod != nil || err != nil {
		t.Error(pod, err)
	}
	if err := errors.Join(g.set(nil), g.close(), s.close()); err != nil {
		t.Error(err)
	}
}

// A connection from a pod on the host's network to a server of the host.
func BenchmarkDialOutside(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	pod := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}
	for range 5 {
		for _, wall := range []EgressWall{WallOff, WallRequired} {
			b.Run(string(wall), func(b *testing.B) {
				cfg := Config{DataDir: b.TempDir(), EgressWall: wall, Egress: "127.0.0.1", Log: slog.New(slog.DiscardHandler)}
				s, err := newSocketWall(cfg, nil)
				if err != nil {
					b.Skip(err)
				}
				n, err := newNetwork(b.Context(), cfg, store.New(), nil, s)
				if err != nil {
					b.Fatal(err)
				}
				defer n.close()
				c, err := n.connectHost(pod)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				for b.Loop() {
					c, err := c.Namespace.DialContext(b.Context(), "tcp", l.Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, c)
					c.Close()
				}
			})
		}
	}
}

// What the first socket of a process waits for, and its end: -benchtime 1x, as the
// kernel waits longer when it has not moved a process for a while.
func BenchmarkSocketWallOpen(b *testing.B) {
	var opened, closed time.Duration
	for b.Loop() {
		s, err := newSocketWall(Config{DataDir: b.TempDir(), EgressWall: WallAuto, Log: slog.New(slog.DiscardHandler)}, nil)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if s.open() == nil {
			b.Skip(s.err)
		}
		had := time.Now()
		if err := s.close(); err != nil {
			b.Fatal(err)
		}
		opened, closed = opened+had.Sub(began), closed+time.Since(had)
	}
	b.ReportMetric(float64(opened.Microseconds())/float64(b.N), "µs-open")
	b.ReportMetric(float64(closed.Microseconds())/float64(b.N), "µs-close")
}
