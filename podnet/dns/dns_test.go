package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient asks by datagrams: on the loopback only what hangs takes as long.
var patient = &dns.Client{Timeout: time.Minute}

func zone(name string) ([]Record, bool) {
	switch name {
	case "web.ns.svc.cluster.local.":
		return []Record{{Name: name, Addr: netip.MustParseAddr("10.0.0.1")}}, true
	case "big.ns.svc.cluster.local.":
		var records []Record
		for i := range 200 {
			records = append(records, Record{Name: name, Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})})
		}
		return records, true
	case "alias.ns.svc.cluster.local.":
		return []Record{{Name: name, Kind: Alias, Target: "web.ns.svc.cluster.local."}}, true
	case "out.ns.svc.cluster.local.":
		return []Record{{Name: name, Kind: Alias, Target: "example.org."}}, true
	case "_http._tcp.web.ns.svc.cluster.local.":
		return []Record{{Name: name, Kind: Service, Target: "web.ns.svc.cluster.local.", Port: 80},
			{Name: "web.ns.svc.cluster.local.", Addr: netip.MustParseAddr("10.0.0.1")}}, true
	case "1.0.0.10.in-addr.arpa.":
		return []Record{{Name: name, Kind: Pointer, Target: "web.ns.svc.cluster.local."}}, true
	}
	return nil, false
}

// start serves on real loopback sockets and returns a Go resolver that asks
// there.
func start(t *testing.T, forward func(context.Context, netip.Addr, *dns.Msg) (*dns.Msg, error)) (*net.Resolver, string) {
	t.Helper()
	pc, l := samePort(t)
	s := New(Config{Zones: []string{"cluster.local.", "10.in-addr.arpa."}, Lookup: zone, Forward: forward})
	done := make(chan struct{}, 2)
	go func() { s.ServePacket(pc); done <- struct{}{} }()
	go func() { s.ServeListener(l); done <- struct{}{} }()
	t.Cleanup(func() {
		pc.Close()
		l.Close()
		<-done
		<-done
		s.Close()
	})
	address := pc.LocalAddr().String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}, address
}

// samePort binds a port for datagrams and for streams: one that the kernel has free
// for the former may be taken for the latter, by whatever else runs on this machine.
func samePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		defer pc.Close() // at the end: so that the next is another port
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

func TestResolver(t *testing.T) {
	var asked atomic.Int32
	r, address := start(t, func(_ context.Context, client netip.Addr, q *dns.Msg) (*dns.Msg, error) {
		if q.Question[0].Name != "example.org." || client != netip.MustParseAddr("127.0.0.1") {
			return nil, ErrRefused
		}
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(192, 0, 2, 1)}}
		}
		return m, nil
	})
	for name, want := range map[string][]string{
		"web.ns.svc.cluster.local.":   {"10.0.0.1"},
		"WEB.ns.SVC.cluster.local.":   {"10.0.0.1"},
		"alias.ns.svc.cluster.local.": {"10.0.0.1"},
		"out.ns.svc.cluster.local.":   {"192.0.2.1"},
		"example.org.":                {"192.0.2.1"},
	} {
		if got, err := r.LookupHost(t.Context(), name); !slices.Equal(got, want) || err != nil {
			t.Errorf("WL-30 LookupHost(%s) = %v, %v", name, got, err)
		}
	}
	if asked.Load() == 0 {
		t.Error("nothing was passed on")
	}
	t.Run("an answer too large for a datagram comes by TCP", func(t *testing.T) {
		if got, err := r.LookupHost(t.Context(), "big.ns.svc.cluster.local."); len(got) != 200 {
			t.Errorf("%d addresses, %v", len(got), err)
		}
	})
	t.Run("no such name", func(t *testing.T) {
		_, err := r.LookupHost(t.Context(), "nope.ns.svc.cluster.local.")
		if e, ok := err.(*net.DNSError); !ok || !e.IsNotFound {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("a port", func(t *testing.T) {
		_, srv, err := r.LookupSRV(t.Context(), "http", "tcp", "web.ns.svc.cluster.local.")
		if err != nil || len(srv) != 1 || srv[0].Port != 80 || srv[0].Target != "web.ns.svc.cluster.local." {
			t.Errorf("%v, %v", srv, err)
		}
	})
	t.Run("an address", func(t *testing.T) {
		names, err := r.LookupAddr(t.Context(), "10.0.0.1")
		if err != nil || !slices.Equal(names, []string{"web.ns.svc.cluster.local."}) {
			t.Errorf("%v, %v", names, err)
		}
	})
	t.Run("who may not ask is refused", func(t *testing.T) {
		m := new(dns.Msg)
		m.SetQuestion("secret.example.", dns.TypeA)
		answer, _, err := patient.Exchange(m, address)
		if err != nil || answer.Rcode != dns.RcodeRefused {
			t.Errorf("%v, %v", answer, err)
		}
	})
	t.Run("a name without such a record", func(t *testing.T) {
		m := new(dns.Msg)
		m.SetQuestion("web.ns.svc.cluster.local.", dns.TypeAAAA)
		answer, _, err := patient.Exchange(m, address)
		if err != nil || answer.Rcode != dns.RcodeSuccess || len(answer.Answer) != 0 || len(answer.Ns) != 1 {
			t.Errorf("%v, %v", answer, err)
		}
	})
}

func TestForwarder(t *testing.T) {
	_, address := start(t, nil)
	f := NewForwarder(ForwarderConfig{
		Servers: []netip.AddrPort{netip.MustParseAddrPort(address)},
		Allow:   func(client netip.Addr) bool { return client == netip.MustParseAddr("127.0.0.1") },
	})
	ask := new(dns.Msg)
	ask.SetQuestion("big.ns.svc.cluster.local.", dns.TypeA)
	if _, err := f.Forward(t.Context(), netip.MustParseAddr("127.0.0.2"), ask); err != ErrRefused {
		t.Errorf("a client that may not ask: %v", err)
	}
	m, err := f.Forward(t.Context(), netip.MustParseAddr("127.0.0.1"), ask)
	if err != nil || len(m.Answer) != 200 {
		t.Fatalf("%d answers, %v", len(m.Answer), err)
	}
	m.Answer = nil // the caller's
	f.cfg.Servers = nil
	if m, err = f.Forward(t.Context(), netip.MustParseAddr("127.0.0.1"), ask); err != nil || len(m.Answer) != 200 {
		t.Errorf("not kept: %v", err)
	}
	for i := range 2 * maxCached {
		ask.Question[0].Name = fmt.Sprintf("n%d.example.", i)
		f.store(cacheKey{ask.Question[0].Name, dns.TypeA}, m, f.cache[cacheKey{"big.ns.svc.cluster.local.", dns.TypeA}].expires)
	}
	if len(f.cache) > maxCached {
		t.Errorf("%d answers are kept", len(f.cache))
	}
}

func FuzzHandle(f *testing.F) {
	s := New(Config{Zones: []string{"cluster.local."}, Lookup: zone})
	for _, name := range []string{"web.ns.svc.cluster.local.", "big.ns.svc.cluster.local.", "example.org."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		b, _ := m.Pack()
		f.Add(b, true)
		m.SetEdns0(65535, true)
		b, _ = m.Pack()
		f.Add(b, false)
	}
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c"), true)
	f.Fuzz(func(t *testing.T, packet []byte, datagram bool) {
		reply := s.handle(netip.MustParseAddr("127.0.0.1"), packet, datagram)
		if reply == nil {
			return
		}
		if datagram && len(reply) > maxUDP || len(reply) >= dns.MaxMsgSize {
			t.Fatalf("a reply of %d bytes", len(reply))
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("a reply that is none: %v", err)
		}
		if !m.Response || m.Id != uint16(packet[0])<<8|uint16(packet[1]) {
			t.Error("the reply is to something else")
		}
	})
}
