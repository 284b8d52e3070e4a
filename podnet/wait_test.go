package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// The Go faces of every kind of connection are what package net's are.
func TestNettestKinds(t *testing.T) {
	listen := func(t testing.TB, ns *Namespace) net.Listener {
		l, err := ns.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, c := range []struct {
		name string
		dial func(pods []*Namespace) (net.Conn, error)
	}{
		{"between pods", func(pods []*Namespace) (net.Conn, error) {
			return pods[1].DialContext(context.Background(), "tcp", pods[0].IP().String()+":80")
		}},
		{"a client at the edge", func(pods []*Namespace) (net.Conn, error) {
			return pods[0].DialFrom(context.Background(), netip.MustParseAddrPort("192.0.2.1:999"), "tcp", pods[0].IP().String()+":80")
		}},
		{"by way of a Service", func(pods []*Namespace) (net.Conn, error) {
			return pods[1].DialContext(context.Background(), "tcp", "127.192.0.1:80")
		}},
		{"through the outside", func(pods []*Namespace) (net.Conn, error) {
			return pods[1].DialContext(context.Background(), "tcp", "192.0.2.1:80")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				var pods []*Namespace
				pods = newPods(t, Config{
					Reserved: []netip.Prefix{netip.MustParsePrefix("127.192.0.0/16")},
					Route: func(_ *Namespace, _ Proto, to netip.AddrPort) Verdict {
						if to.Addr() == netip.MustParseAddr("127.192.0.1") {
							return Verdict{To: netip.AddrPortFrom(pods[0].IP(), 80)}
						}
						return Verdict{}
					},
					Outside: outsideFunc(func(ctx context.Context) (net.Conn, error) {
						return pods[0].DialContext(ctx, "tcp", "127.0.0.1:80")
					}),
				}, 2)
				l := listen(t, pods[0])
				defer l.Close()
				a, err := c.dial(pods)
				if err != nil {
					return nil, nil, nil, err
				}
				b, err := l.Accept()
				if err != nil {
					return nil, nil, nil, err
				}
				return a, b, func() { a.Close(); b.Close() }, nil
			})
		})
	}
}

type outsideFunc func(context.Context) (net.Conn, error)

func (f outsideFunc) DialContext(ctx context.Context, _ *Namespace, _, _ string) (net.Conn, error) {
	return f(ctx)
}

// after runs f, which has to take d of the bubble's time.
func after(d time.Duration, f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	if took := time.Since(begin); took != d {
		return took, fmt.Errorf("took %v, want %v: %w", took, d, err)
	}
	return d, err
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newPod(t)
		l, _ := ns.Listen("tcp", ":80")
		pc, _ := ns.ListenPacket("udp", ":80")
		a, _ := tcpPair(t, ns, "tcp", "127.0.0.1:0")
		u, _ := ns.DialContext(t.Context(), "udp", "127.0.0.1:80")
		big := make([]byte, 1<<20)
		for _, c := range []struct {
			name string
			set  func(time.Time) error
			call func() error
		}{
			{"accept", l.(*Listener).SetDeadline, func() error { _, err := l.Accept(); return err }},
			{"read", a.SetReadDeadline, func() error { _, err := a.Read(big); return err }},
			{"write", a.SetWriteDeadline, func() error { _, err := a.Write(big); return err }},
			{"readfrom", pc.SetReadDeadline, func() error { _, _, err := pc.ReadFrom(big); return err }},
			{"read of UDP", u.SetDeadline, func() error { _, err := u.Read(big); return err }},
		} {
			for range 2 { // a deadline can be set again
				c.set(time.Now().Add(time.Minute))
				go func() {
					time.Sleep(time.Second)
					c.set(time.Now().Add(time.Hour)) // while somebody waits
				}()
				var netErr net.Error
				if _, err := after(time.Hour+time.Second, c.call); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() {
					t.Errorf("%s: %v", c.name, err)
				}
				if _, err := after(0, c.call); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s, afterwards: %v", c.name, err)
				}
			}
		}
	})
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := func(name string, f func()) { // a bubble has no subtests
			t.Log(name)
			f()
		}
		ns := newPod(t)
		l, _ := ns.Socket(IPv4, Stream, nil)
		at := netip.AddrPortFrom(loopback4, 80)
		l.Bind(at)
		l.Listen(1) // takes two, as on Linux
		dial := func(ctx context.Context) (net.Conn, error) { return ns.DialContext(ctx, "tcp", at.String()) }
		for range 2 {
			if _, err := dial(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var last []net.Conn
		step("a context ends a dial that waits", func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := after(time.Second, func() error { _, err := dial(ctx); return err }); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		step("ETIMEDOUT", func() {
			if _, err := after(connectTimeout, func() error { _, err := dial(t.Context()); return err }); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Error(err)
			}
		})
		step("who waits is admitted in turn", func() {
			type result struct {
				i   int
				c   net.Conn
				err error
			}
			results := make(chan result, 3)
			for i := range 3 {
				go func() {
					c, err := dial(t.Context())
					results <- result{i, c, err}
				}()
				synctest.Wait()
			}
			for i := range 3 {
				if _, err := l.Accept(); err != nil {
					t.Fatal(err)
				}
				r := <-results
				if r.i != i || r.err != nil {
					t.Errorf("number %d was admitted, %v; want %d", r.i, r.err, i)
				}
				last = append(last, r.c)
			}
		})
		step("those that were not accepted are reset", func() {
			waits := make(chan error, 1)
			go func() { _, err := dial(t.Context()); waits <- err }()
			synctest.Wait()
			l.Close()
			if err := <-waits; !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("in the queue: %v", err)
			}
		})
		for _, c := range last[1:] {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("of a listener that has gone: %v", err)
			}
		}
	})
}

func TestReusePort(t *testing.T) {
	ns := newPod(t)
	at := netip.AddrPortFrom(loopback4, 80)
	open := func(kind Kind) *Socket {
		s, _ := ns.Socket(IPv4, kind, nil)
		s.SetOption(ReusePort, 1)
		if err := s.Bind(at); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, kind := range []Kind{Stream, Datagram} {
		all := []*Socket{open(kind), open(kind), open(kind)}
		for _, s := range all {
			if err := s.Listen(100); kind == Stream && err != nil {
				t.Fatal(err)
			}
		}
		other, _ := ns.Socket(IPv4, kind, nil)
		if err := other.Bind(at); err != syscall.EADDRINUSE {
			t.Errorf("without the option: %v", err)
		}
		for range 90 {
			c, _ := ns.Socket(IPv4, kind, nil)
			if err := c.Connect(at); err != nil && err != syscall.EINPROGRESS {
				t.Fatal(err)
			}
			c.Send([][]byte{[]byte("x")})
		}
		for i, s := range all {
			n := 0
			for ; ; n++ {
				if kind == Stream {
					if _, err := s.Accept(); err != nil {
						break
					}
				} else if _, _, _, err := s.RecvFrom([][]byte{make([]byte, 1)}, 0); err != nil {
					break
				}
			}
			if n < 10 {
				t.Errorf("kind %d: number %d of 3 got %d of 90", kind, i, n)
			}
		}
	}
}

func TestLinger(t *testing.T) {
	ns := newPod(t)
	a, b := tcpPair(t, ns, "tcp", "127.0.0.1:0")
	a.Write([]byte("sent before"))
	a.SetLinger(0)
	a.Close()
	buf := make([]byte, 100)
	if n, err := b.Read(buf); err != nil || string(buf[:n]) != "sent before" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := b.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a linger of 0: %v", err)
	}
	a, b = tcpPair(t, ns, "tcp", "127.0.0.1:0")
	a.SetLinger(10)
	b.Write([]byte("unread"))
	a.Close()
	if _, err := b.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a close with unread data: %v", err)
	}
}

// What a container may not pay for is refused, and costs nothing.
func TestAccountRefuses(t *testing.T) {
	pods := newPods(t, Config{Outside: pipes{}}, 2)
	m := &meter{limit: 5*socketCharge + 700}
	server, _ := pods[0].Socket(IPv4, Stream, m)
	at := netip.AddrPortFrom(pods[0].IP(), 80)
	server.Bind(at)
	server.Listen(100)
	t.Run("ENOBUFS: a socket", func(t *testing.T) {
		var all []*Socket
		for {
			s, err := pods[0].Socket(IPv4, Stream, m)
			if err != nil {
				if err != syscall.ENOBUFS || len(all) != 4 {
					t.Errorf("%d sockets, then %v", len(all), err)
				}
				break
			}
			all = append(all, s)
		}
		for _, s := range all {
			s.Close()
		}
	})
	clients := &meter{limit: 9 * socketCharge}
	t.Run("a client pays for both ends until it is accepted", func(t *testing.T) {
		n := 0
		for ; ; n++ {
			c, err := pods[1].Socket(IPv4, Stream, clients)
			if err != nil {
				t.Fatal(err)
			}
			if err = c.Connect(at); err != syscall.EINPROGRESS {
				t.Fatal(err)
			}
			if err := c.Err(); err != nil {
				if err != syscall.ENOBUFS {
					t.Error(err)
				}
				break
			}
		}
		if n != 4 || m.used.Load() != socketCharge {
			t.Errorf("%d connections; the server pays %d", n, m.used.Load())
		}
		for range 4 {
			if _, err := server.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		if clients.used.Load() != 5*socketCharge || m.used.Load() != 5*socketCharge {
			t.Errorf("accepted: the clients pay %d, the server %d", clients.used.Load(), m.used.Load())
		}
		c, _ := pods[1].Socket(IPv4, Stream, nil)
		c.Connect(at)
		if _, err := server.Accept(); err != syscall.EAGAIN { // the listener would have paid at once
			t.Errorf("accept beyond the limit: %v", err)
		}
		c, _ = pods[1].Socket(IPv4, Stream, clients)
		c.Connect(at)
		if _, err := server.Accept(); err != syscall.ENOBUFS {
			t.Errorf("accept beyond the limit: %v", err)
		}
	})
	t.Run("flows, and the outside", func(t *testing.T) {
		m := &meter{limit: 2*socketCharge + 3*flowCharge}
		u, _ := pods[1].Socket(IPv4, Datagram, m)
		for i := range 5 {
			to := netip.AddrPortFrom(pods[0].IP(), uint16(1000+i))
			if _, err := u.SendTo([][]byte{[]byte("x")}, to); (err != nil) != (i >= 5) && err != syscall.ENOBUFS {
				t.Errorf("flow %d: %v", i, err)
			}
		}
		s, err := pods[1].Socket(IPv4, Stream, m)
		if err == nil {
			s.Connect(netip.MustParseAddrPort("192.0.2.1:80"))
			err = s.Err()
		}
		if err != syscall.ENOBUFS {
			t.Errorf("a stream outside: %v", err)
		}
	})
}

// A pod that floods a neighbour, hoards half-open connections and reads nothing
// is bounded by what it may hold itself, and the neighbour goes on.
func TestFlood(t *testing.T) {
	pods := newPods(t, Config{}, 3)
	victim, hostile, friend := pods[0], pods[1], pods[2]
	const limit = 4 << 20
	victims, hostiles := &meter{limit: limit}, &meter{limit: limit}
	at := netip.AddrPortFrom(victim.IP(), 80)
	l, _ := victim.Socket(IPv4, Stream, victims)
	l.Bind(at)
	l.Listen(maxBacklog)
	before := heapInUse()

	var hoard []*Socket
	for {
		s, err := hostile.Socket(IPv4, Stream, hostiles)
		if err != nil {
			break
		}
		hoard = append(hoard, s)
		s.Connect(at)
		s.Send([][]byte{make([]byte, 1<<20)}) // as much as it takes
		if len(hoard)%3 == 0 {
			s.Shutdown(ShutWrite)
		}
	}
	u, _ := hostile.Socket(IPv4, Datagram, nil)
	for i := range 20_000 {
		u.SendTo([][]byte{make([]byte, 100)}, netip.AddrPortFrom(victim.IP(), uint16(1+i%60_000)))
	}
	if used := hostiles.used.Load(); used > limit {
		t.Errorf("%d bytes are charged, more than %d", used, limit)
	}
	if used := victims.used.Load(); used > 2*socketCharge {
		t.Errorf("the victim pays %d bytes for connections that it has not accepted", used)
	}
	if grown := heapInUse() - before; grown > limit+limit/4 {
		t.Errorf("the heap has grown by %d bytes, for a limit of %d", grown, limit)
	}
	// A friend is served meanwhile.
	c, err := friend.DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	for {
		kid, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if kid.RemoteAddr().String() == c.LocalAddr().String() {
			kid.Send([][]byte{[]byte("hello")})
			break
		}
		kid.Close()
	}
	buf := make([]byte, 10)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("the friend reads %q, %v", buf[:n], err)
	}
	hostile.Close()
	if used := hostiles.used.Load(); used != 0 {
		t.Errorf("%d bytes stay charged to a pod that is gone", used)
	}
	runtime.KeepAlive(hoard)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // a second time empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestIdleMemory keeps an eye on what 10,000 connections hold, both ends of
// them; make bench-net measures whole pods.
func TestIdleMemory(t *testing.T) {
	const n, most = 10_000, 2 << 10
	ns := newPod(t)
	at := netip.AddrPortFrom(loopback4, 80)
	l, _ := ns.Socket(IPv4, Stream, nil)
	l.Bind(at)
	l.Listen(8)
	all := make([]*Socket, 0, 3*n)
	for _, c := range []struct {
		name string
		open func(i int)
	}{
		{"connection", func(int) {
			c, _ := ns.Socket(IPv4, Stream, nil)
			c.Connect(at)
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			// It was busy once: buffers have come and gone.
			for _, end := range []*Socket{c, s} {
				end.Send([][]byte{make([]byte, 100)})
			}
			for _, end := range []*Socket{c, s} {
				end.Recv([][]byte{make([]byte, 100)}, 0)
			}
			all = append(all, c, s)
		}},
		{"listener", func(i int) {
			s, _ := ns.Socket(IPv4, Stream, nil)
			s.Bind(netip.AddrPortFrom(loopback4, uint16(1000+i)))
			if err := s.Listen(128); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}},
	} {
		before := heapInUse()
		for i := range n {
			c.open(i)
		}
		each := (heapInUse() - before) / n
		t.Logf("an idle %s: %d bytes", c.name, each)
		if each > most {
			t.Errorf("an idle %s holds %d bytes, more than %d", c.name, each, most)
		}
	}
	runtime.KeepAlive(all)
}
