// Package dns is the resolver of the pods: it answers for the names of the run,
// and passes other questions on where that is allowed. It knows neither
// WebAssembly nor Kubernetes.
package dns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of a Server.
const (
	maxInFlight  = 256 // questions at a time
	maxStreams   = 128 // TCP connections at a time
	streamIdle   = 10 * time.Second
	minUDP       = 512
	maxUDP       = 4096
	localTTL     = 5 // seconds: pods come and go
	maxAnswers   = 1000
	forwardLimit = 5 * time.Second
)

// Kind is the type of a Record.
type Kind int

const (
	Address Kind = iota // A or AAAA
	Alias               // CNAME
	Pointer             // PTR
	Service             // SRV
)

// Record is one record of a zone of ours. Names are fully qualified.
type Record struct {
	Name   string
	Kind   Kind
	Addr   netip.Addr // of Address
	Target string     // of the others
	Port   uint16     // of Service
}

// Config of a Server.
type Config struct {
	// Zones are the domains that this server alone answers for, fully qualified and
	// in lower case.
	Zones []string
	// Lookup answers for the zones: the records of a name and of the targets among
	// them. exists is false if there is no such name.
	Lookup func(name string) (records []Record, exists bool)
	// Forward passes a question on and returns the answer; nil: nothing is passed
	// on. client is who asks.
	Forward func(ctx context.Context, client netip.Addr, question *dns.Msg) (*dns.Msg, error)
}

// Server answers questions. It is safe for concurrent use.
type Server struct {
	cfg      Config
	ctx      context.Context
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	inFlight chan struct{}
	streams  chan struct{}
}

// New returns a Server. Close it.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, inFlight: make(chan struct{}, maxInFlight), streams: make(chan struct{}, maxStreams)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends what is under way and waits for it. Close the sockets before.
func (s *Server) Close() error {
	s.cancel()
	s.tasks.Wait()
	return nil
}

// ServePacket answers datagrams until pc is closed. Those that come while too
// many are being answered are lost, as datagrams may be.
func (s *Server) ServePacket(pc net.PacketConn) error {
	b := make([]byte, maxUDP)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return err
		}
		select {
		case s.inFlight <- struct{}{}:
		default:
			continue
		}
		packet := append([]byte(nil), b[:n]...)
		s.tasks.Go(func() {
			defer func() { <-s.inFlight }()
			if reply := s.handle(addrOf(from), packet, true); reply != nil {
				_, _ = pc.WriteTo(reply, from)
			}
		})
	}
}

// ServeListener answers questions on streams until l is closed.
func (s *Server) ServeListener(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case s.streams <- struct{}{}:
		default:
			c.Close()
			continue
		}
		s.tasks.Go(func() {
			defer func() { <-s.streams }()
			stop := context.AfterFunc(s.ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.serveStream(c)
		})
	}
}

// serveStream answers one question after the other.
func (s *Server) serveStream(c net.Conn) {
	client := addrOf(c.RemoteAddr())
	var length [2]byte
	for {
		if c.SetDeadline(time.Now().Add(streamIdle)) != nil {
			return
		}
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		reply := s.handle(client, packet, false)
		if reply == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// handle answers one packet; nil: with nothing.
func (s *Server) handle(client netip.Addr, packet []byte, datagram bool) []byte {
	question := new(dns.Msg)
	if err := question.Unpack(packet); err != nil {
		if len(packet) < 12 || packet[2]&0x80 != 0 {
			return nil
		}
		// The header is there: say that the rest is not understood.
		reply := &dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(packet), Response: true, Rcode: dns.RcodeFormatError}}
		return pack(reply, minUDP)
	}
	if question.Response {
		return nil // who answers answers may be made to answer itself
	}
	reply := s.answer(client, question)
	size := dns.MaxMsgSize - 1
	if opt := question.IsEdns0(); opt != nil {
		reply.SetEdns0(maxUDP, false)
		if opt.Version() != 0 {
			reply.Answer, reply.Ns, reply.Rcode = nil, nil, dns.RcodeBadVers
		}
	}
	if datagram {
		size = minUDP
		if opt := question.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), minUDP), maxUDP)
		}
	}
	return pack(reply, size)
}

// pack makes a message fit: what is left out is asked for again by TCP.
func pack(m *dns.Msg, size int) []byte {
	m.Compress = true
	m.Truncate(size)
	b, err := m.Pack()
	if err != nil || len(b) > size {
		bare := &dns.Msg{MsgHdr: m.MsgHdr}
		bare.Rcode = dns.RcodeServerFailure
		if b, err = bare.Pack(); err != nil {
			return nil
		}
	}
	return b
}

func (s *Server) answer(client netip.Addr, question *dns.Msg) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetReply(question)
	reply.RecursionAvailable = s.cfg.Forward != nil
	switch {
	case question.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
		return reply
	case len(question.Question) != 1:
		reply.Question = nil
		reply.Rcode = dns.RcodeFormatError
		return reply
	case question.Question[0].Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	q := question.Question[0]
	name := strings.ToLower(q.Name)
	zone := s.zoneOf(name)
	if zone == "" {
		return s.forward(client, question, reply)
	}
	reply.Authoritative = true
	records, exists := s.cfg.Lookup(name)
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	for _, r := range records[:min(len(records), maxAnswers)] {
		rr := resource(r, name, q.Name)
		switch {
		case rr == nil:
		case r.Name != name:
			reply.Extra = append(reply.Extra, rr)
		case rr.Header().Rrtype == q.Qtype || q.Qtype == dns.TypeANY:
			reply.Answer = append(reply.Answer, rr)
		case rr.Header().Rrtype == dns.TypeCNAME:
			reply.Answer = append(reply.Answer, rr)
			reply.Answer = append(reply.Answer, s.follow(client, question, r.Target)...)
		}
	}
	if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
		reply.Extra = nil
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{soa(zone)}
	}
	return reply
}

func (s *Server) zoneOf(name string) string {
	for _, z := range s.cfg.Zones {
		if name == z || strings.HasSuffix(name, "."+z) {
			return z
		}
	}
	return ""
}

// follow resolves the target of an alias, one step within the zones or by
// passing it on.
func (s *Server) follow(client netip.Addr, question *dns.Msg, target string) []dns.RR {
	qtype := question.Question[0].Qtype
	if s.zoneOf(target) == "" {
		next := new(dns.Msg)
		next.SetQuestion(target, qtype)
		reply := new(dns.Msg)
		reply.SetReply(next)
		return s.forward(client, next, reply).Answer
	}
	var answer []dns.RR
	records, _ := s.cfg.Lookup(target)
	for _, r := range records[:min(len(records), maxAnswers)] {
		if rr := resource(r, target, target); rr != nil && r.Name == target && rr.Header().Rrtype == qtype {
			answer = append(answer, rr)
		}
	}
	return answer
}

// forward passes a question on; without anybody to ask it is refused.
func (s *Server) forward(client netip.Addr, question, reply *dns.Msg) *dns.Msg {
	if s.cfg.Forward == nil {
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	ctx, cancel := context.WithTimeout(s.ctx, forwardLimit)
	defer cancel()
	answer, err := s.cfg.Forward(ctx, client, question)
	switch {
	case err == ErrRefused:
		reply.Rcode = dns.RcodeRefused
	case err != nil || answer == nil:
		reply.Rcode = dns.RcodeServerFailure
	default:
		reply.Rcode, reply.Answer, reply.Ns = answer.Rcode&0xf, answer.Answer, answer.Ns
	}
	return reply
}

// resource makes a record to send; asked is the name as the client has written
// it, whose case is kept.
func resource(r Record, name, asked string) dns.RR {
	if r.Name == name {
		r.Name = asked
	}
	h := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: r.Name, Rrtype: t, Class: dns.ClassINET, Ttl: localTTL}
	}
	switch r.Kind {
	case Alias:
		return &dns.CNAME{Hdr: h(dns.TypeCNAME), Target: r.Target}
	case Pointer:
		return &dns.PTR{Hdr: h(dns.TypePTR), Ptr: r.Target}
	case Service:
		return &dns.SRV{Hdr: h(dns.TypeSRV), Weight: 100, Port: r.Port, Target: r.Target}
	}
	switch {
	case r.Addr.Is4():
		return &dns.A{Hdr: h(dns.TypeA), A: r.Addr.AsSlice()}
	case r.Addr.Is6():
		return &dns.AAAA{Hdr: h(dns.TypeAAAA), AAAA: r.Addr.AsSlice()}
	}
	return nil
}

// soa tells for how long the absence of a name holds.
func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: localTTL},
		Ns:  "ns.dns." + zone, Mbox: "hostmaster." + zone, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: localTTL,
	}
}
