package wasip1

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The resolver behind sock_getaddrinfo: the container's /etc/hosts, then DNS over
// the container's own network, so that the pod's resolver and egress rules apply.

const (
	maxHostsFile    = 1 << 20  // bytes read of /etc/hosts
	maxResolverFile = 64 << 10 // and of /etc/resolv.conf
	maxAddresses    = 64       // found for one name
	maxServers      = 3
	maxSearch       = 32
	maxDomain       = 254
	maxAliases      = 16 // CNAMEs followed in one answer
	maxQueryTime    = 30 * time.Second

	datagramBytes = 4 << 10
	// resolvingBytes is what a guest has the host keep while it waits for an answer:
	// the names to ask for, a question, its socket and a datagram.
	resolvingBytes = 2*maxSearch*maxDomain + datagramBytes + 2<<10
)

// resolverConfig is what resolv.conf(5) says.
type resolverConfig struct {
	servers  []netip.AddrPort
	search   []string
	ndots    int
	timeout  time.Duration
	attempts int
	rotate   bool
}

func parseResolvConf(text string) resolverConfig {
	const port = 53
	c := resolverConfig{ndots: 1, timeout: 5 * time.Second, attempts: 2}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if ip, err := netip.ParseAddr(f[1]); err == nil && len(c.servers) < maxServers {
				c.servers = append(c.servers, netip.AddrPortFrom(ip.WithZone(""), port))
			}
		case "search", "domain":
			c.search = nil
			for _, domain := range f[1:min(len(f), maxSearch+1)] {
				if len(domain) <= maxDomain {
					c.search = append(c.search, strings.Clone(domain)) // it outlives the text
				}
			}
		case "options":
			for _, o := range f[1:] {
				name, value, _ := strings.Cut(o, ":")
				n, err := strconv.Atoi(value)
				ok := err == nil && n >= 0
				switch {
				case name == "ndots" && ok:
					c.ndots = min(n, 15)
				case name == "timeout" && ok:
					c.timeout = time.Duration(max(1, min(n, 30))) * time.Second
				case name == "attempts" && ok:
					c.attempts = max(1, min(n, 5))
				case name == "rotate":
					c.rotate = true
				}
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return c
}

// names are the names to ask for, in order (resolv.conf(5)).
func (c *resolverConfig) names(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var list []string
	for _, domain := range c.search {
		list = append(list, name+"."+strings.TrimSuffix(domain, ".")+".")
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{name + "."}, list...)
	}
	return append(list, name+".")
}

// readFile reads the beginning of a file of the container for the host.
func (p *Process) readFile(name string, most int64) string {
	f, errno := p.ns.openFile(name)
	if errno != 0 {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(b)
}

// lookupHosts finds a name in the text of hosts(5), and its canonical name.
func lookupHosts(text, name string) (addrs []netip.Addr, canonical string) {
	name = strings.TrimSuffix(name, ".")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		var ip netip.Addr
		first, found := "", false
		for field := range strings.FieldsSeq(line) { // a line may be the whole file
			if !ip.IsValid() {
				var err error
				if ip, err = netip.ParseAddr(field); err != nil {
					break
				}
				continue
			}
			if first == "" {
				first = field
			}
			if found = strings.EqualFold(field, name); found {
				break
			}
		}
		if !found {
			continue
		}
		if addrs = append(addrs, ip.WithZone("").Unmap()); canonical == "" {
			canonical = strings.Clone(first)
		}
		if len(addrs) == maxAddresses {
			break
		}
	}
	return addrs, canonical
}

// resolve finds the addresses of a name, of the families asked for.
func (p *Process) resolve(ctx context.Context, name string, v4, v6 bool) (addrs []netip.Addr, canonical string, errno Errno) {
	wanted := func(a netip.Addr) bool { return a.Is4() && v4 || a.Is6() && v6 }
	hosts := p.readFile("/etc/hosts", maxHostsFile)
	p.work(ctx, len(hosts))
	found, canonical := lookupHosts(hosts, name)
	for _, a := range found {
		if wanted(a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) > 0 {
		return addrs, canonical, 0
	}
	giveBack, ok := p.borrow(resolvingBytes)
	if !ok {
		return nil, "", errnoAIMEMORY
	}
	defer giveBack()
	conf := parseResolvConf(p.readFile("/etc/resolv.conf", maxResolverFile))
	if conf.rotate && len(conf.servers) > 1 {
		p.rotation++
		first := p.rotation % len(conf.servers)
		conf.servers = slices.Concat(conf.servers[first:], conf.servers[:first])
	}
	deadline := time.Now().Add(maxQueryTime)
	errno = errnoAINONAME
	for _, full := range conf.names(name) {
		if len(full) > maxDomain {
			continue
		}
		for _, q := range [...]struct {
			kind dnsmessage.Type
			ask  bool
		}{{dnsmessage.TypeAAAA, v6}, {dnsmessage.TypeA, v4}} {
			if !q.ask {
				continue
			}
			a, c, e := p.query(ctx, &conf, full, q.kind, deadline)
			switch {
			case e == ErrnoINTR:
				return nil, "", e
			case len(a) > 0:
				addrs, canonical = append(addrs, a...), c
			case e == errnoAIAGAIN, e == errnoAINODATA && errno == errnoAINONAME:
				errno = e
			}
		}
		if len(addrs) > 0 {
			return addrs[:min(len(addrs), maxAddresses)], strings.TrimSuffix(canonical, "."), 0
		}
		if errno == errnoAIAGAIN {
			break // as glibc: a later name might be somebody else's
		}
	}
	return nil, "", errno
}

// query asks the servers one question.
func (p *Process) query(ctx context.Context, conf *resolverConfig, name string, kind dnsmessage.Type, deadline time.Time) (addrs []netip.Addr, canonical string, errno Errno) {
	qname, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, "", errnoAINONAME
	}
	var id [2]byte
	if _, err := io.ReadFull(p.rand, id[:]); err != nil {
		return nil, "", errnoAIFAIL
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true})
	question := dnsmessage.Question{Name: qname, Type: kind, Class: dnsmessage.ClassINET}
	if b.StartQuestions() != nil || b.Question(question) != nil {
		return nil, "", errnoAINONAME
	}
	ask, err := b.Finish()
	if err != nil {
		return nil, "", errnoAINONAME
	}
	for range conf.attempts {
		for _, server := range conf.servers {
			timeout := min(conf.timeout, time.Until(deadline))
			if timeout <= 0 {
				return nil, "", errnoAIAGAIN
			}
			answer, errno := p.exchange(ctx, server, KindDatagram, ask, timeout)
			if errno == 0 && truncatedAnswer(answer) {
				answer, errno = p.exchange(ctx, server, KindStream, ask, min(conf.timeout, time.Until(deadline)))
			}
			switch errno {
			case 0:
				if addrs, canonical, errno = parseAnswer(answer, question); errno != errnoAIAGAIN {
					return addrs, canonical, errno
				}
			case ErrnoINTR:
				return nil, "", errno
			}
		}
	}
	return nil, "", errnoAIAGAIN
}

// exchange sends a question to a server and returns an answer to it, all within
// the timeout: a server may send its answer by the byte. The socket is gone when
// the call that is under way has ended, so that none of its sleeps is one from
// which that call is made again.
func (p *Process) exchange(ctx context.Context, server netip.AddrPort, kind SocketKind, ask []byte, timeout time.Duration) ([]byte, Errno) {
	until := time.Now().Add(timeout)
	family := FamilyIPv4
	if server.Addr().Is6() {
		family = FamilyIPv6
	}
	s, errno := p.newSocket(family, kind)
	if errno != 0 {
		return nil, errno
	}
	defer s.close()
	inTime := func() bool {
		left := time.Until(until)
		s.receiveTimeout, s.sendTimeout = left, left
		return left > 0 // none at all would be no limit
	}
	if !inTime() {
		return nil, ErrnoAGAIN
	}
	if errno := s.connect(ctx, server, false); errno != 0 {
		return nil, errno
	}
	if kind == KindStream {
		ask = append(binary.BigEndian.AppendUint16(nil, uint16(len(ask))), ask...)
	}
	if !inTime() {
		return nil, ErrnoAGAIN
	}
	if _, errno := s.send(ctx, [][]byte{ask}, netip.AddrPort{}, false, nil); errno != 0 {
		return nil, errno
	}
	receive := func(b []byte) (int, Errno) {
		if !inTime() {
			return 0, ErrnoAGAIN
		}
		return s.receive(ctx, [][]byte{b}, false, false, nil)
	}
	if kind == KindDatagram {
		answer := make([]byte, datagramBytes)
		for {
			n, errno := receive(answer)
			if errno != 0 {
				return nil, errno
			}
			if n >= 12 && bytes.Equal(answer[:2], ask[:2]) { // others are late, or forged
				return answer[:n], 0
			}
		}
	}
	fill := func(b []byte) Errno {
		for len(b) > 0 {
			n, errno := receive(b)
			switch {
			case errno != 0:
				return errno
			case n == 0:
				return ErrnoCONNRESET
			}
			b = b[n:]
		}
		return 0
	}
	var size [2]byte
	if errno := fill(size[:]); errno != 0 {
		return nil, errno
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	giveBack, ok := p.borrow(int64(len(answer)))
	if !ok {
		return nil, ErrnoNOMEM
	}
	defer giveBack()
	return answer, fill(answer)
}

func truncatedAnswer(answer []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	return err == nil && h.Truncated
}

// parseAnswer takes the addresses from an answer, which anybody may have made.
// It is EAI_AGAIN where another server may know more.
func parseAnswer(answer []byte, q dnsmessage.Question) (addrs []netip.Addr, canonical string, errno Errno) {
	var m dnsmessage.Parser
	h, err := m.Start(answer)
	if err != nil || !h.Response {
		return nil, "", errnoAIAGAIN
	}
	asked, err := m.Question()
	if err != nil || asked.Type != q.Type || asked.Class != q.Class || !strings.EqualFold(asked.Name.String(), q.Name.String()) {
		return nil, "", errnoAIAGAIN
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, "", errnoAINONAME
	default:
		return nil, "", errnoAIAGAIN
	}
	if m.SkipAllQuestions() != nil {
		return nil, "", errnoAIAGAIN
	}
	name := q.Name.String()
	aliases := 0
	for len(addrs) < maxAddresses {
		r, err := m.AnswerHeader()
		if err != nil {
			break
		}
		mine := r.Class == dnsmessage.ClassINET && strings.EqualFold(r.Name.String(), name)
		switch {
		case mine && r.Type == dnsmessage.TypeA && q.Type == r.Type:
			a, err := m.AResource()
			if err != nil {
				return nil, "", errnoAIAGAIN
			}
			addrs = append(addrs, netip.AddrFrom4(a.A))
		case mine && r.Type == dnsmessage.TypeAAAA && q.Type == r.Type:
			a, err := m.AAAAResource()
			if err != nil {
				return nil, "", errnoAIAGAIN
			}
			addrs = append(addrs, netip.AddrFrom16(a.AAAA))
		case mine && r.Type == dnsmessage.TypeCNAME && aliases < maxAliases:
			c, err := m.CNAMEResource()
			if err != nil {
				return nil, "", errnoAIAGAIN
			}
			name = c.CNAME.String()
			aliases++
		default:
			if m.SkipAnswer() != nil {
				return nil, "", errnoAIAGAIN
			}
		}
	}
	if len(addrs) == 0 {
		return nil, "", errnoAINODATA
	}
	return addrs, name, 0
}
