package podnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPod(t testing.TB) *Namespace {
	t.Helper()
	return newPods(t, Config{}, 1)[0]
}

func newPods(t testing.TB, cfg Config, n int) []*Namespace {
	t.Helper()
	network, err := NewNetwork(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var pods []*Namespace
	for range n {
		ns, err := network.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		pods = append(pods, ns)
	}
	return pods
}

// tcpPair connects two Conns of one pod.
func tcpPair(t testing.TB, ns *Namespace, network, address string) (client, server *Conn) {
	t.Helper()
	l, err := ns.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := ns.DialContext(context.Background(), network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Conn), s.(*Conn)
}

func TestNettestConn(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				a, b := tcpPair(t, newPod(t), "tcp", address)
				return a, b, func() { a.Close(); b.Close() }, nil
			})
		})
	}
}

func TestErrorsReadAsThoseOfPackageNet(t *testing.T) {
	ns := newPod(t)
	_, err := ns.DialContext(t.Context(), "tcp", "127.0.0.1:80")
	if !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != "dial tcp 127.0.0.1:80: connect: connection refused" {
		t.Errorf("refused: %v", err)
	}
	l, _ := ns.Listen("tcp", ":80")
	_, err = ns.Listen("tcp", "127.0.0.1:80")
	if !errors.Is(err, syscall.EADDRINUSE) || err.Error() != "listen tcp 127.0.0.1:80: bind: address already in use" {
		t.Errorf("in use: %v", err)
	}
	l.Close()
	if _, err = l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err = ns.DialContext(t.Context(), "tcp", "192.0.2.1:80"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("outside: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	ns := newPod(t)
	server, err := ns.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ns.DialContext(t.Context(), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "question" || from.String() != client.LocalAddr().String() {
		t.Fatalf("%q from %v, %v", buf[:n], from, err)
	}
	server.WriteTo([]byte("answer"), from)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

func TestPodToPod(t *testing.T) {
	pods := newPods(t, Config{}, 2)
	a, b := pods[0], pods[1]
	l, err := b.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Listen("tcp", ":80"); err != nil {
		t.Fatalf("MAIN-08: another pod has its own ports: %v", err)
	}
	c, err := a.DialContext(t.Context(), "tcp", netip.AddrPortFrom(b.IP(), 80).String())
	if err != nil {
		t.Fatal(err)
	}
	s, _ := l.Accept()
	if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != a.IP() {
		t.Errorf("source address %s, want the pod IP %s", got, a.IP())
	}
	c.Write([]byte("x"))
	b.Close()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the other pod has gone: %v", err)
	}
}

func TestCloseOfNamespaceWakesEveryWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newPod(t)
		l, _ := ns.Listen("tcp", ":80")
		p, _ := ns.ListenPacket("udp", ":80")
		a, _ := tcpPair(t, ns, "tcp", "127.0.0.1:0")
		b, _ := tcpPair(t, ns, "tcp", "127.0.0.1:0")
		results := make(chan error, 4)
		go func() { _, err := l.Accept(); results <- err }()
		go func() { _, _, err := p.ReadFrom(make([]byte, 1)); results <- err }()
		go func() { _, err := a.Read(make([]byte, 1)); results <- err }()
		go func() { _, err := b.Write(make([]byte, 1<<20)); results <- err }()
		synctest.Wait()
		a.SetReadDeadline(timeIn(1))
		ns.Close()
		for range 4 {
			if err := <-results; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want net.ErrClosed", err)
			}
		}
		if _, err := ns.Listen("tcp", ":81"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen afterwards: %v", err)
		}
	})
}

// TestTranslatedDatagrams: a client of a Service sees answers from the address
// that it asked.
func TestTranslatedDatagrams(t *testing.T) {
	vip := netip.MustParseAddrPort("127.192.0.10:53")
	var server netip.AddrPort
	n, err := NewNetwork(Config{
		Reserved: []netip.Prefix{netip.MustParsePrefix("127.192.0.0/16")},
		Route: func(_ *Namespace, _ Proto, to netip.AddrPort) Verdict {
			if to == vip {
				return Verdict{To: server}
			}
			return Verdict{}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var pods [2]*Namespace
	for i := range pods {
		if pods[i], err = n.NewNamespace(); err != nil {
			t.Fatal(err)
		}
		defer pods[i].Close()
	}
	pc, err := pods[0].ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	server = netip.AddrPortFrom(pods[0].IP(), 53)
	go func() {
		b := make([]byte, 10)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
	connected, err := pods[1].DialContext(t.Context(), "udp", vip.String())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	for range 2 {
		if _, err := connected.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if n, err := connected.Read(b); err != nil || string(b[:n]) != "hi" {
			t.Fatalf("read %q, %v", b[:n], err)
		}
	}
	loose, err := pods[1].ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	loose.WriteTo([]byte("ho"), net.UDPAddrFromAddrPort(vip))
	if n, from, err := loose.ReadFrom(b); err != nil || string(b[:n]) != "ho" || from.String() != vip.String() {
		t.Fatalf("read %q from %v, %v; want the address that was asked", b[:n], from, err)
	}
}
