//go:build linux && (amd64 || arm64)

package netwall

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
)

// open opens a Wall around the test process. Tests that do so cannot be parallel.
func open(t testing.TB) *Wall {
	t.Helper()
	m, err := cgroupfs.Open(cgroupfs.Config{Parent: cgroupfs.Auto, State: t.TempDir(), PID: os.Getpid(), Bare: true})
	if err != nil {
		missing(t, err) // no cgroup v2 hierarchy that may be written
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	w, err := Open(m.Unified())
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// missing skips a test where the host refuses what it needs, as containers and other
// kernels may. The virtual machine refuses nothing, and what CI's verifier refuses is a
// mistake of ours.
func missing(t testing.TB, why error) {
	t.Helper()
	var verifier *ebpf.VerifierError
	ours := errors.As(why, &verifier) && len(verifier.Log) > 0
	if os.Getenv("WASMPOD_TEST_VM") != "" || os.Getenv("CI") == "true" && ours {
		t.Fatal(why)
	}
	t.Skip(why)
}

func newPod(t testing.TB, w *Wall, policy ...Destination) *Pod {
	t.Helper()
	p, err := w.NewPod(policy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func to(block string, ports ...uint16) Destination {
	d := Destination{Block: netip.MustParsePrefix(block)}
	for i := 0; i+1 < len(ports); i += 2 {
		d.TCP = append(d.TCP, [2]uint16{ports[i], ports[i+1]})
	}
	d.UDP = d.TCP
	return d
}

// socket makes a socket and marks it, if p is not nil.
func socket(t testing.TB, p *Pod, family, kind int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		missing(t, err) // a kernel without IPv6
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := p.MarkDialer(uintptr(fd)); err != nil {
		t.Fatal(err)
	}
	return fd
}

// sockaddr of an address for a socket of a family: an IPv4 one is mapped for IPv6.
func sockaddr(family int, at netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

// unconnect ends what a connected datagram socket is connected to.
func unconnect(fd int) {
	addr := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
}

func TestConnect(t *testing.T) {
	w := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	p := newPod(t, w, to("127.0.0.1/32", at.Port(), at.Port()))
	dial := func(p *Pod, network, address string) error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return control(c, p.MarkDialer) }}
		d.SetMultipathTCP(false)
		c, err := d.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err
	}
	other := netip.AddrPortFrom(at.Addr(), at.Port()^1).String()
	for _, c := range []struct {
		what             string
		pod              *Pod
		network, address string
		want             error
	}{
		{"what is allowed", p, "tcp", at.String(), nil},
		{"another port", p, "tcp", other, unix.EPERM},
		{"another address", p, "tcp", fmt.Sprintf("127.0.0.2:%d", at.Port()), unix.EPERM},
		{"another family", p, "tcp", fmt.Sprintf("[::1]:%d", at.Port()), unix.EPERM},
		{"what is no pod's", nil, "tcp", at.String(), nil},
	} {
		if c.what == "another family" {
			socket(t, nil, unix.AF_INET6, unix.SOCK_STREAM) // skips where there is none
		}
		if err := dial(c.pod, c.network, c.address); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if err := dial(nil, "tcp", other); errors.Is(err, unix.EPERM) { // perhaps somebody listens there
		t.Errorf("what is no pod's, to where no pod may: %v", err)
	}
	if s := p.Stats(); s.Checked != 4 || s.Denied != 3 {
		t.Errorf("%+v", s)
	}
	t.Run("the mapped form of an address is that address", func(t *testing.T) {
		for _, c := range []struct {
			to   netip.AddrPort
			want error
		}{{at, unix.EINPROGRESS}, {netip.MustParseAddrPort(other), unix.EPERM}} {
			fd := socket(t, p, unix.AF_INET6, unix.SOCK_STREAM)
			if err := unix.Connect(fd, sockaddr(unix.AF_INET6, c.to)); !errors.Is(err, c.want) {
				t.Errorf("connect an IPv6 socket to %v: %v, want %v", c.to, err, c.want)
			}
		}
	})
	t.Run("data in the handshake's first packet is a connection", func(t *testing.T) {
		fd := socket(t, p, unix.AF_INET, unix.SOCK_STREAM)
		err := unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, sockaddr(unix.AF_INET, netip.MustParseAddrPort(other)))
		if !errors.Is(err, unix.EPERM) {
			t.Error(err)
		}
	})
	t.Run("a dialer's socket is bound nowhere", func(t *testing.T) {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd := socket(t, p, family, unix.SOCK_STREAM)
			if err := unix.Bind(fd, sockaddr(family, netip.MustParseAddrPort("127.0.0.1:0"))); !errors.Is(err, unix.EPERM) {
				t.Error(err)
			}
		}
	})
	t.Run("another policy counts at once", func(t *testing.T) {
		if err := p.SetPolicy([]Destination{to("127.0.0.0/8", 1, 2)}); err != nil {
			t.Fatal(err)
		}
		if err := dial(p, "tcp", at.String()); !errors.Is(err, unix.EPERM) {
			t.Error(err)
		}
		if err := p.SetPolicy([]Destination{to("127.0.0.0/8", 0, 65535)}); err != nil {
			t.Fatal(err)
		}
		if err := dial(p, "tcp", at.String()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a closed pod's sockets go nowhere", func(t *testing.T) {
		p := newPod(t, w, to("0.0.0.0/0", 0, 65535))
		fd := socket(t, p, unix.AF_INET, unix.SOCK_STREAM)
		p.Close()
		newPod(t, w, to("0.0.0.0/0", 0, 65535))
		if err := unix.Connect(fd, sockaddr(unix.AF_INET, at)); !errors.Is(err, unix.EPERM) {
			t.Error(err)
		}
	})
}

func TestListen(t *testing.T) {
	w := open(t)
	p := newPod(t, w, to("0.0.0.0/0", 0, 65535), to("::/0", 0, 65535))
	at := netip.MustParseAddrPort("127.0.0.1:0")
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd uintptr) error { return p.MarkListener(fd, at) })
	}
	l, err := lc.Listen(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, elsewhere := range []string{"127.0.0.2:0", "127.0.0.1:1", "[::1]:0"} {
		if l, err := lc.Listen(t.Context(), "tcp", elsewhere); !errors.Is(err, unix.EPERM) {
			t.Errorf("bound to %s: %v", elsewhere, err)
			l.Close()
		}
	}
	t.Run("a datagram socket answers, and does not connect", func(t *testing.T) {
		pc, err := lc.ListenPacket(t.Context(), "udp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		client, err := net.Dial("udp", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := pc.WriteTo([]byte("answer"), client.LocalAddr()); err != nil {
			t.Error(err)
		}
		if n, err := client.Read(make([]byte, 10)); n != 6 || err != nil {
			t.Error(n, err)
		}
		raw, _ := pc.(*net.UDPConn).SyscallConn()
		raw.Control(func(fd uintptr) {
			if err := unix.Connect(int(fd), sockaddr(unix.AF_INET, netip.MustParseAddrPort(client.LocalAddr().String()))); !errors.Is(err, unix.EPERM) {
				t.Error(err)
			}
		})
	})
	t.Run("what it accepts is counted, and connects nowhere else", func(t *testing.T) {
		before := p.Stats()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.Write(make([]byte, 1000))
		if n, err := client.Read(make([]byte, 2000)); n != 1000 || err != nil {
			t.Error(n, err)
		}
		if s := p.Stats(); s.TxBytes-before.TxBytes < 1000+2*40 || s.RxPackets == before.RxPackets {
			t.Errorf("%+v after %+v", s, before)
		}
		raw, _ := server.(*net.TCPConn).SyscallConn()
		raw.Control(func(fd uintptr) {
			unconnect(int(fd))
			if err := unix.Connect(int(fd), sockaddr(unix.AF_INET, netip.MustParseAddrPort(l.Addr().String()))); !errors.Is(err, unix.EPERM) {
				t.Error(err)
			}
		})
	})
}

// What the kernel counts of datagrams is known exactly.
func TestCounting(t *testing.T) {
	w := open(t)
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	at := netip.MustParseAddrPort(echo.LocalAddr().String())
	p := newPod(t, w, to("127.0.0.1/32", at.Port(), at.Port()))
	fd := socket(t, p, unix.AF_INET, unix.SOCK_DGRAM)
	b := make([]byte, 2000)
	const header = 20 + 8
	sent := 0
	for _, n := range []int{0, 1, 500, 1400} {
		if err := unix.Sendto(fd, b[:n], 0, sockaddr(unix.AF_INET, at)); err != nil {
			t.Fatal(err)
		}
		got, from, err := echo.ReadFrom(b)
		if err != nil || got != n {
			t.Fatal(got, err)
		}
		if _, err := echo.WriteTo(b[:2*n/3], from); err != nil {
			t.Fatal(err)
		}
		// It is counted before it can be received, which a busy machine puts off.
		readable := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for err = unix.EINTR; err == unix.EINTR; {
			_, err = unix.Poll(readable, -1)
		}
		if n, _, err := unix.Recvfrom(fd, b, 0); err != nil || n != 2*got/3 {
			t.Fatal(n, err)
		}
		sent += n
	}
	want := Stats{Checked: 4, TxPackets: 4, TxBytes: uint64(sent + 4*header), RxPackets: 4, RxBytes: uint64(0 + 0 + 333 + 933 + 4*header)}
	if s := p.Stats(); s != want {
		t.Errorf("counted %+v, want %+v", s, want)
	}
	p.Close()
	if s := p.Stats(); s != want {
		t.Errorf("in the end %+v", s)
	}
	if err := unix.Sendto(fd, b[:1], 0, sockaddr(unix.AF_INET, at)); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// Nothing is left in any table when pods and sockets are gone.
func TestNoLeaks(t *testing.T) {
	w := open(t)
	empty := func() {
		t.Helper()
		for _, m := range []*ebpf.Map{w.destinations, w.ports} {
			var key [64]byte
			if err := m.NextKey(nil, key[:m.KeySize()]); !errors.Is(err, ebpf.ErrKeyNotExist) {
				t.Errorf("%v: %v", m, err)
			}
		}
	}
	r := rand.New(rand.NewPCG(9, 10))
	for range 3 {
		var pods []*Pod
		for range 50 {
			p, err := w.NewPod(somePolicy(r))
			if err != nil {
				t.Fatal(err)
			}
			pods = append(pods, p)
		}
		for _, p := range pods {
			if err := p.SetPolicy(somePolicy(r)); err != nil {
				t.Fatal(err)
			}
			p.Close()
			p.Close()
		}
		empty()
	}
	if len(w.policies) != 0 {
		t.Errorf("%d policies are left", len(w.policies))
	}
	if testing.Short() {
		return // under the race detector the rest takes seconds
	}
	var pods []*Pod
	for range MaxPods {
		p, err := w.NewPod([]Destination{to("127.0.0.0/8", 1, 9)})
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
	}
	if len(w.policies) != 1 {
		t.Errorf("equal policies are %d", len(w.policies))
	}
	if _, err := w.NewPod(nil); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	for _, p := range pods {
		p.Close()
	}
	empty()
}

func TestOpenRefuses(t *testing.T) {
	for _, dir := range []string{"/nowhere", filepath.Dir(os.Args[0])} {
		w, err := Open(dir)
		if err == nil {
			t.Errorf("attached to %s", dir)
			w.Close()
		}
	}
}

func control(c syscall.RawConn, mark func(uintptr) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = mark(fd) }); e != nil {
		return e
	}
	return err
}
