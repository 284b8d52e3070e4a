package podnet

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The differential test runs the same calls on sockets of the kernel's loopback
// and on those of a Namespace, and wants the same results: that is what "as
// Linux" means. What the package comment lists as different is left out.

// sock is one socket of either stack. Results are strings: what a program sees.
type sock interface {
	bind(netip.AddrPort) string
	listen(int) string
	connect(netip.AddrPort) string
	accept() (sock, string)
	send([]byte) string
	sendTo([]byte, netip.AddrPort) string
	recv(n int, peek bool) string
	shutdown(How) string
	close() string
	local() netip.AddrPort
	names(shown func(netip.AddrPort) string) string
	soError() string
	option(Option, int) string
	poll() string
}

func errName(err error) string {
	if err == nil {
		return "ok"
	}
	if e, ok := err.(syscall.Errno); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// ours is a Socket.
type ours struct{ s *Socket }

func (o ours) bind(a netip.AddrPort) string    { return errName(o.s.Bind(a)) }
func (o ours) listen(n int) string             { return errName(o.s.Listen(n)) }
func (o ours) connect(a netip.AddrPort) string { return errName(o.s.Connect(a)) }
func (o ours) shutdown(h How) string           { return errName(o.s.Shutdown(h)) }
func (o ours) close() string                   { return errName(o.s.Close()) }
func (o ours) soError() string                 { return errName(o.s.Err()) }
func (o ours) local() netip.AddrPort           { return o.s.LocalAddr() }

func (o ours) accept() (sock, string) {
	s, err := o.s.Accept()
	if err != nil {
		return nil, errName(err)
	}
	return ours{s}, "ok"
}

func (o ours) send(b []byte) string {
	n, err := o.s.Send([][]byte{b})
	return fmt.Sprint(n, errName(err))
}

func (o ours) sendTo(b []byte, to netip.AddrPort) string {
	n, err := o.s.SendTo([][]byte{b}, to)
	return fmt.Sprint(n, errName(err))
}

func (o ours) recv(n int, peek bool) string {
	b := make([]byte, n)
	flags := Flags(0)
	if peek {
		flags = Peek
	}
	k, _, truncated, err := o.s.RecvFrom([][]byte{b[:n/2], b[n/2:]}, flags)
	return fmt.Sprintf("%q %v %s", b[:k], truncated, errName(err))
}

func (o ours) names(shown func(netip.AddrPort) string) string {
	peer := "ENOTCONN"
	if a := o.s.RemoteAddr(); a.IsValid() {
		peer = shown(a)
	}
	return shown(o.s.LocalAddr()) + " " + peer
}

func (o ours) option(opt Option, value int) string { return errName(o.s.SetOption(opt, value)) }

func (o ours) poll() string {
	r, w, _, hup := o.s.Ready()
	return fmt.Sprintf("in=%v out=%v hup=%v", r, w, hup)
}

// kernel is a socket of the host.
type kernel struct{ fd int }

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (k kernel) bind(a netip.AddrPort) string    { return errName(unix.Bind(k.fd, sockaddr(a))) }
func (k kernel) listen(n int) string             { return errName(unix.Listen(k.fd, n)) }
func (k kernel) connect(a netip.AddrPort) string { return errName(unix.Connect(k.fd, sockaddr(a))) }
func (k kernel) shutdown(h How) string           { return errName(unix.Shutdown(k.fd, int(h)-1)) }
func (k kernel) close() string                   { return errName(unix.Close(k.fd)) }

func (k kernel) local() netip.AddrPort {
	sa, _ := unix.Getsockname(k.fd)
	return addrPort(sa)
}

func (k kernel) soError() string {
	n, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return errName(err)
	}
	if n == 0 {
		return "ok"
	}
	return unix.ErrnoName(syscall.Errno(n))
}

func (k kernel) accept() (sock, string) {
	fd, _, err := unix.Accept4(k.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, errName(err)
	}
	return kernel{fd}, "ok"
}

func (k kernel) send(b []byte) string {
	n, err := unix.SendmsgN(k.fd, b, nil, nil, unix.MSG_NOSIGNAL)
	return fmt.Sprint(n, errName(err))
}

func (k kernel) sendTo(b []byte, to netip.AddrPort) string {
	n, err := unix.SendmsgN(k.fd, b, nil, sockaddr(to), unix.MSG_NOSIGNAL)
	return fmt.Sprint(n, errName(err))
}

func (k kernel) recv(n int, peek bool) string {
	b := make([]byte, n)
	flags := 0
	if peek {
		flags = unix.MSG_PEEK
	}
	got, _, recvFlags, _, err := unix.Recvmsg(k.fd, b, nil, flags)
	return fmt.Sprintf("%q %v %s", b[:max(got, 0)], err == nil && recvFlags&unix.MSG_TRUNC != 0, errName(err))
}

func (k kernel) names(shown func(netip.AddrPort) string) string {
	peer := ""
	if sa, err := unix.Getpeername(k.fd); err != nil {
		peer = errName(err)
	} else {
		peer = shown(addrPort(sa))
	}
	return shown(k.local()) + " " + peer
}

func (k kernel) option(opt Option, value int) string {
	switch opt {
	case Linger:
		return errName(unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: int32(toInt(value >= 0)), Linger: int32(max(value, 0))}))
	case V6Only:
		return errName(unix.SetsockoptInt(k.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, value))
	case ReuseAddr:
		return errName(unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, value))
	case ReusePort:
		return errName(unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, value))
	}
	panic(opt)
}

func (k kernel) poll() string {
	fds := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN | unix.POLLOUT}}
	unix.Poll(fds, 0)
	r := fds[0].Revents
	// An error makes both ready.
	return fmt.Sprintf("in=%v out=%v hup=%v", r&(unix.POLLIN|unix.POLLERR) != 0, r&(unix.POLLOUT|unix.POLLERR) != 0, r&unix.POLLHUP != 0)
}

// diff holds both stacks and compares.
type diff struct {
	t     *rapid.T
	ns    *Namespace
	ip    netip.Addr   // the kernel's loopback has others on 127.0.0.1
	fixed []uint16     // ports that are bound by number
	socks []*twins     // open
	dirty map[int]bool // ports of closed connections: the kernel keeps them
	trace []string
}

type twins struct {
	id           int
	kind         Kind
	family       Family
	kernel, ours sock
	port         uint16 // fixed, or 0
	shut         How
	early        bool // shut down without being connected
	connected    bool
}

var diffCases atomic.Uint32

func (d *diff) shown(a netip.AddrPort) string {
	if a.Port() == 0 || slices.Contains(d.fixed, a.Port()) {
		return a.String()
	}
	return a.Addr().String() + ":any"
}

func (d *diff) same(what, kernel, ours string) {
	d.t.Helper()
	d.trace = append(d.trace, fmt.Sprintf("%s = %s", what, kernel))
	if kernel != ours {
		d.t.Fatalf("ours: %s; after:\n%s", ours, strings.Join(d.trace, "\n"))
	}
}

// both runs a call on both stacks.
func (d *diff) both(s *twins, what string, call func(sock) string) string {
	d.t.Helper()
	ours := call(s.ours)
	kernel := call(s.kernel)
	d.same(fmt.Sprintf("%d.%s", s.id, what), kernel, ours)
	return kernel
}

func (d *diff) addr(s *twins, wild bool) netip.Addr {
	list := []netip.Addr{d.ip, d.ip, d.ip}
	if s.family == IPv6 {
		list = []netip.Addr{loopback6, loopback6, netip.AddrFrom16(d.ip.As16())}
	}
	if wild {
		list = append(list, s.ours.(ours).s.wildcard())
	}
	return rapid.SampledFrom(list).Draw(d.t, "addr")
}

func (d *diff) pick() *twins { return rapid.SampledFrom(d.socks).Draw(d.t, "socket") }

func (d *diff) open() {
	family := rapid.SampledFrom([]Family{IPv4, IPv4, IPv6}).Draw(d.t, "family")
	kind := rapid.SampledFrom([]Kind{Stream, Stream, Datagram}).Draw(d.t, "kind")
	domain := unix.AF_INET
	if family == IPv6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, int(kind)|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := d.ns.Socket(family, kind, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.keep(&twins{kind: kind, family: family, kernel: kernel{fd}, ours: ours{s}}, fmt.Sprintf("socket(IPv%d, %d)", family, kind))
}

func (d *diff) keep(s *twins, how string) {
	s.id = len(d.trace)
	d.trace = append(d.trace, fmt.Sprintf("%d := %s", s.id, how))
	d.socks = append(d.socks, s)
}

func (d *diff) step() {
	draw := func(n int, label string) int { return rapid.IntRange(0, n-1).Draw(d.t, label) }
	op := draw(22, "op")
	if len(d.socks) == 0 || op == 0 && len(d.socks) < 8 {
		d.open()
		return
	}
	s := d.pick()
	switch op {
	case 1, 2, 3:
		port := rapid.SampledFrom(append(d.fixed, 0)).Draw(d.t, "port")
		if d.dirty[int(port)] || s.connected && s.kind == Stream {
			return // the kernel takes the port from a connection that was reset
		}
		a := netip.AddrPortFrom(d.addr(s, true), port)
		if d.both(s, fmt.Sprintf("bind(%v)", a), func(k sock) string { return k.bind(a) }) == "ok" {
			s.port = port
		}
	case 4, 5, 6:
		if s.kind == Stream && !s.early { // else its connections begin shut down
			n := rapid.IntRange(1, 4).Draw(d.t, "backlog")
			d.both(s, "listen", func(k sock) string { return k.listen(n) })
		}
	case 7, 8, 9:
		port := rapid.SampledFrom(d.fixed).Draw(d.t, "port")
		if port == s.port || d.full(port) || s.early {
			return // to itself; to a full backlog: there the kernel takes its time
		}
		a := netip.AddrPortFrom(d.addr(s, true), port)
		if s.connected && (s.kind == Datagram || s.family == IPv6) {
			return // the kernel keeps the address that the first connect chose
		}
		r := d.both(s, fmt.Sprintf("connect(%v)", a), func(k sock) string { return k.connect(a) })
		s.connected = s.connected || r == "EINPROGRESS" || s.kind == Datagram && r == "ok"
	case 10, 11:
		k, kr := s.kernel.accept()
		o, or := s.ours.accept()
		d.same(fmt.Sprintf("%d.accept", s.id), kr, or)
		if kr == "ok" {
			d.keep(&twins{kind: Stream, family: s.family, kernel: k, ours: o, port: s.port, connected: true}, fmt.Sprintf("accepted by %d", s.id))
		}
	case 12, 13:
		b := []byte("abcdefghijklmnopqrstuvwxyz")[:draw(27, "n")]
		d.both(s, fmt.Sprintf("send(%d)", len(b)), func(k sock) string { return k.send(b) })
	case 14:
		if s.kind == Datagram {
			b := []byte("0123456789")[:draw(11, "n")]
			a := netip.AddrPortFrom(d.addr(s, true), rapid.SampledFrom(append(d.fixed, 0)).Draw(d.t, "port"))
			d.both(s, fmt.Sprintf("sendto(%d, %v)", len(b), a), func(k sock) string { return k.sendTo(b, a) })
		}
	case 15, 16:
		if s.kind == Datagram && s.shut&ShutRead != 0 {
			return
		}
		n, peek := 1+draw(20, "n"), rapid.Bool().Draw(d.t, "peek")
		d.both(s, fmt.Sprintf("recv(%d, %v)", n, peek), func(k sock) string { return k.recv(n, peek) })
	case 17:
		how := rapid.SampledFrom([]How{ShutRead, ShutWrite, ShutBoth}).Draw(d.t, "how")
		r := d.both(s, fmt.Sprintf("shutdown(%d)", how), func(k sock) string { return k.shutdown(how) })
		s.shut |= how
		// A listener's connections that were reset leave its port at once only there.
		s.early = s.early || s.kind == Stream && (r == "ENOTCONN" || !s.connected)
	case 18:
		if s.connected && s.kind == Stream && draw(4, "linger") > 0 { // mostly, for the kernel has only so many ports
			d.both(s, "option(Linger, 0)", func(k sock) string { return k.option(Linger, 0) })
		}
		d.both(s, "close", sock.close)
		if s.connected {
			d.dirty[int(s.port)] = true
		}
		d.socks = slices.DeleteFunc(d.socks, func(o *twins) bool { return o == s })
	case 19:
		d.both(s, "names", func(k sock) string { return k.names(d.shown) })
	case 20:
		d.both(s, "SO_ERROR", sock.soError)
	case 21:
		opt := rapid.SampledFrom([]Option{ReuseAddr, ReusePort, Linger, V6Only}).Draw(d.t, "option")
		if opt == V6Only && (s.family == IPv4 || s.connected && s.kind == Stream) {
			return
		}
		value := toInt(rapid.Bool().Draw(d.t, "value"))
		if opt == Linger {
			value--
		}
		d.both(s, fmt.Sprintf("option(%d, %d)", opt, value), func(k sock) string { return k.option(opt, value) })
	}
	for _, s := range d.socks {
		d.arrived(s)
		d.both(s, "poll", sock.poll)
	}
}

// arrived waits until the kernel has carried to a socket what ours was given at
// once. It mostly has when a call returns; on a busy machine, where it passes
// packets to a thread of its own, it may be later.
func (d *diff) arrived(s *twins) {
	ours := s.ours.poll()
	for end := time.Now().Add(10 * time.Second); s.kernel.poll() != ours && time.Now().Before(end); {
		unix.Poll(nil, 1)
	}
}

// full reports whether some listener on port has a full backlog.
func (d *diff) full(port uint16) bool {
	for _, l := range d.ns.Listening() {
		if l.Proto == TCP && l.Addr.Port() == port && l.Pending > l.Backlog-1 {
			return true
		}
	}
	return false
}

// portRange is ports below the kernel's ephemeral ones that no other run of this
// test uses at the same time.
type portRange struct{ first, n, next int }

func newPortRange(t testing.TB) *portRange {
	t.Helper()
	const n = 2400
	for first := 10_000; first+n < firstEphemeral; first += n {
		// An abstract name belongs to the network namespace and ends with the process.
		l, err := net.Listen("unix", fmt.Sprintf("@wasmpod/podnet-test/%d", first))
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return &portRange{first: first, n: n}
		}
	}
	t.Skip("too many runs of this test at the same time")
	return nil
}

// take returns three ports that the kernel has free on every address: others
// bind some, and closed connections linger.
func (r *portRange) take(t *rapid.T) (ports []uint16) {
	for range r.n {
		port := r.first + r.next
		r.next = (r.next + 1) % r.n
		if freeInKernel(port) {
			if ports = append(ports, uint16(port)); len(ports) == 3 {
				return ports
			}
		}
	}
	t.Skip("no free ports")
	return nil
}

func freeInKernel(port int) bool {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return false
		}
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: port})
		unix.Close(fd)
		if err != nil {
			return false
		}
	}
	return true
}

// differential is the property that the two stacks do the same.
func differential(t testing.TB) func(*rapid.T) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Addr: loopback6.As16()})
		unix.Close(fd)
	}
	if err != nil {
		t.Skipf("the kernel's loopback has no IPv6: %v", err)
	}
	network, err := NewNetwork(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ports := newPortRange(t)
	return func(rt *rapid.T) {
		ns, err := network.NewNamespace()
		if err != nil {
			rt.Fatal(err)
		}
		defer ns.Close()
		n := diffCases.Add(1)
		d := &diff{t: rt, ns: ns, fixed: ports.take(rt), ip: netip.AddrFrom4([4]byte{127, 77, byte(n >> 8), byte(n)}), dirty: map[int]bool{}}
		defer func() {
			for _, s := range d.socks {
				s.kernel.option(Linger, 0)
				s.kernel.close()
			}
		}()
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			d.step()
		}
	}
}

// TestSameAsKernel runs the same sequences every time; FuzzSameAsKernel looks
// for others.
func TestSameAsKernel(t *testing.T) {
	set := func(name, value string) {
		f := flag.Lookup(name)
		if f.Value.String() == f.DefValue {
			f.Value.Set(value)
			t.Cleanup(func() { f.Value.Set(f.DefValue) })
		}
	}
	set("rapid.seed", "1")
	if !testing.Short() {
		set("rapid.checks", "2000")
	}
	rapid.Check(t, differential(t))
}

func FuzzSameAsKernel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(differential(f))) }
