package wasip1

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fakeDNS answers one question at a time at port 53.
func fakeDNS(t *testing.T, n *fakeNet, records map[string]string) {
	s, _ := n.Socket(FamilyIPv4, KindDatagram)
	server := s.(*fakeSocket)
	if err := s.Bind(netip.MustParseAddrPort("127.0.0.1:53")); err != nil {
		t.Fatal(err)
	}
	s.Watch(wakeFunc(func() {
		buf := make([]byte, 512)
		k, from, _, err := server.RecvFrom([][]byte{buf}, false)
		if err != nil {
			return
		}
		go func() { s.SendTo([][]byte{answerTo(t, buf[:k], records)}, from) }()
	}))
}

type wakeFunc func()

func (f wakeFunc) Wake() { f() }

func answerTo(t *testing.T, query []byte, records map[string]string) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		t.Error(err)
	}
	q, err := p.Question()
	if err != nil {
		t.Error(err)
	}
	h.Response = true
	name := strings.TrimSuffix(q.Name.String(), ".")
	value, ok := records[name]
	h.Truncated = value == "truncated"
	if !ok {
		h.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.StartQuestions()
	b.Question(q)
	b.StartAnswers()
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
	if target, alias := strings.CutPrefix(value, "="); alias {
		to := dnsmessage.MustNewName(target + ".")
		b.CNAMEResource(header, dnsmessage.CNAMEResource{CNAME: to})
		header.Name, value = to, records[target]
	}
	if ip, err := netip.ParseAddr(value); err == nil && ip.Is4() == (q.Type == dnsmessage.TypeA) {
		if ip.Is4() {
			b.AResource(header, dnsmessage.AResource{A: ip.As4()})
		} else {
			b.AAAAResource(header, dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	answer, err := b.Finish()
	if err != nil {
		t.Error(err)
	}
	return answer
}

// NET-03, NET-04: names come from the container's hosts file, then from the
// servers and by the search list of its resolv.conf.
func TestGetAddrInfo(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "etc"), 0o755)
	for name, text := range map[string]string{
		"hosts":       "127.0.0.1 localhost # home\n10.0.0.9 Pod.ns.svc pod\n::1 localhost\n",
		"resolv.conf": "nameserver 127.0.0.1\nsearch ns.svc svc\noptions ndots:2 timeout:1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		fakeDNS(t, n, map[string]string{"web.ns.svc": "10.1.2.3", "a.b.c": "=web.ns.svc", "six.svc": "fd00::6"})
		c := newCaller(t, ProcessConfig{Network: n, Root: rootFS(root)})
		for _, tt := range []struct {
			node, service string
			h             hints
			want          string
			errno         Errno
		}{
			{"localhost", "80", hints{kind: 2}, "127.0.0.1:80/2 [::1]:80/2", 0},
			{"localhost", "80", hints{kind: 2, family: 1}, "127.0.0.1:80/2", 0},
			{"pod", "http", hints{}, "10.0.0.9:80/2 10.0.0.9:80/1", 0},
			{"web", "1\x00", hints{kind: 1}, "10.1.2.3:1/1", 0},
			{"a.b.c", "", hints{kind: 2}, "10.1.2.3:0/2", 0},
			{"six", "", hints{kind: 2}, "[fd00::6]:0/2", 0},
			{"six", "", hints{kind: 2, family: 1}, "", errnoAINODATA},
			{"web", "", hints{kind: 2, family: 2, flags: aiV4Mapped}, "[::ffff:10.1.2.3]:0/2", 0},
			{"nowhere", "", hints{kind: 2}, "", errnoAINONAME},
			{"192.0.2.1", "5", hints{kind: 2}, "192.0.2.1:5/2", 0},
			{"name", "", hints{flags: aiNumericHost}, "", errnoAINONAME},
			{"", "7", hints{kind: 2, family: 1, flags: aiPassive}, "0.0.0.0:7/2", 0},
			{"", "", hints{}, "", errnoAINONAME},
			{"web", "nonsense", hints{}, "", errnoAISERVICE},
			{"web", "", hints{family: 9}, "", errnoAIFAMILY},
			{"web", "", hints{flags: 1 << 9}, "", errnoAIBADFLAG},
		} {
			got, errno := c.getAddrInfo(tt.node, tt.service, tt.h)
			if got != tt.want || errno != tt.errno {
				t.Errorf("%q %q %+v: %q, %v, want %q, %v", tt.node, tt.service, tt.h, got, errno, tt.want, tt.errno)
			}
		}
	})
}

func (c *caller) getAddrInfo(node, service string, h hints) (string, Errno) {
	const list, addrs, data, hint, res, count, most = 20000, 21000, 22000, 19000, 19100, 19104, 8
	c.mem.Write(hint, make([]byte, addrinfoSize))
	c.mem.Write(hint, []byte{byte(h.flags), byte(h.flags >> 8), h.family, h.kind, h.protocol})
	for i := range uint32(most) {
		c.mem.WriteUint32Le(list+i*addrinfoSize+12, addrs+i*sockaddrSize)
		c.mem.WriteUint32Le(list+i*addrinfoSize+16, 0)
		c.mem.WriteUint32Le(list+i*addrinfoSize+20, 0)
		c.mem.WriteUint32Le(list+i*addrinfoSize+24, list+(i+1)*addrinfoSize)
		c.mem.WriteUint32Le(addrs+i*sockaddrSize+4, data4Size)
		c.mem.WriteUint32Le(addrs+i*sockaddrSize+8, data+i*data6Size)
	}
	c.mem.WriteUint32Le(res, list)
	errno, _ := c.call("sock_getaddrinfo", node, service, hint, res, most, count)
	if errno != 0 {
		return "", errno
	}
	var got []string
	for i := range c.u32(count) {
		e, _ := c.mem.Read(list+i*addrinfoSize, addrinfoSize)
		d, _ := c.mem.Read(data+i*data6Size, data6Size)
		ip := netip.AddrFrom4([4]byte(d[2:6]))
		if e[2] == byte(FamilyIPv6) {
			ip = netip.AddrFrom16([16]byte(d[6:22]))
		}
		got = append(got, fmt.Sprintf("%v/%d", netip.AddrPortFrom(ip, uint16(d[0])<<8|uint16(d[1])), e[3]))
	}
	return strings.Join(got, " "), 0
}

// A server that never answers is EAI_AGAIN, after all attempts; a kill ends it.
func TestSilentNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(t, ProcessConfig{Network: newFakeNet()})
		if _, errno := c.getAddrInfo("web", "", hints{kind: 2, family: 1}); errno != errnoAIAGAIN {
			t.Errorf("%v, want EAI_AGAIN", errno)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.ctx = WithProcess(ctx, c.p)
		defer func() { recover() }()
		c.getAddrInfo("web", "", hints{kind: 2})
	})
}

// patientContext has a guest park and put aside as an engine's context does, but
// that who would be put aside stays.
type patientContext struct {
	context.Context
	woken chan struct{}
	aside int // times
}

func (c *patientContext) Park() {
	select {
	case <-c.woken:
	case <-c.Done():
		panic(killed)
	}
}

func (c *patientContext) Unpark() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *patientContext) ParkAside(func(context.Context, *uint64)) {
	c.aside++
	c.Park()
}

// An answer that does not fit into a datagram is asked for again by TCP. A server
// that says nothing there, or the next byte only when the last one is old, gets no
// more time than one that is silent. The guest is never put aside meanwhile: the
// call would begin anew each time, with another connection, and never end.
func TestSlowNameServer(t *testing.T) {
	for name, send := range map[string]func(s Socket){
		"silent": func(Socket) {},
		"by the byte": func(s Socket) {
			for s.(*fakeSocket).net.open(s) {
				s.Send([][]byte{{1}})
				time.Sleep(4 * time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet()
				fakeDNS(t, n, map[string]string{"web": "truncated"})
				l, _ := n.Socket(FamilyIPv4, KindStream)
				if err := l.Bind(netip.MustParseAddrPort("127.0.0.1:1053")); err != nil {
					t.Fatal(err)
				}
				l.Listen(1)
				n.listeners[53] = l.(*fakeSocket) // beside the datagrams, as in other networks
				var sending sync.WaitGroup
				defer sending.Wait()
				l.Watch(wakeFunc(func() {
					if c, err := l.Accept(); err == nil {
						sending.Go(func() { send(c) })
					}
				}))
				account := &purse{limit: resolvingBytes + 1<<16}
				c := newCaller(t, ProcessConfig{Network: n, Memory: account})
				ctx := &patientContext{Context: WithProcess(t.Context(), c.p), woken: make(chan struct{}, 1)}
				c.ctx = ctx
				began := time.Now()
				if _, errno := c.getAddrInfo("web", "", hints{kind: 2, family: 1}); errno != errnoAIAGAIN {
					t.Errorf("%v, want EAI_AGAIN", errno)
				}
				// Two attempts of five seconds.
				if took := time.Since(began); took != 10*time.Second || ctx.aside != 0 {
					t.Errorf("it took %v, put aside %d times", took, ctx.aside)
				}
				if account.used != 0 {
					t.Errorf("%d bytes stay charged", account.used)
				}
				account.limit = 1000
				if _, errno := c.getAddrInfo("web", "", hints{kind: 2, family: 1}); errno != errnoAIMEMORY {
					t.Errorf("%v, want EAI_MEMORY", errno)
				}
			})
		})
	}
}

// What is kept of a resolv.conf while servers are asked does not grow with it, nor
// does what a line of hosts takes.
func TestResolverFilesOfAGuest(t *testing.T) {
	c := parseResolvConf("search " + strings.Repeat(strings.Repeat("d", 2000)+" ", 10) + "good\ndomain a b\n")
	if len(c.search) != 2 || c.search[0] != "a" {
		t.Errorf("%q", c.search)
	}
	c = parseResolvConf("search " + strings.Repeat(strings.Repeat("d", 2000)+" ", 10) + "good\n")
	if len(c.search) != 1 || c.search[0] != "good" {
		t.Errorf("%q", c.search)
	}
	text := "10.0.0.1" + strings.Repeat(" a", 1<<18) + " Web\n10.0.0.2 web\n"
	var addrs []netip.Addr
	allocs := testing.AllocsPerRun(1, func() { addrs, _ = lookupHosts(text, "web") })
	if len(addrs) != 2 || allocs > 10 {
		t.Errorf("%v, %v allocations", addrs, allocs)
	}
}

func FuzzParseAnswer(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("a."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
	b.StartQuestions()
	b.Question(q)
	b.StartAnswers()
	b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}})
	good, err := b.Finish()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, answer []byte) {
		addrs, _, errno := parseAnswer(answer, q)
		if (errno == 0) != (len(addrs) > 0) || len(addrs) > maxAddresses {
			t.Errorf("%d addresses, %v", len(addrs), errno)
		}
	})
}

func FuzzResolverFiles(f *testing.F) {
	f.Add("nameserver 1.2.3.4\nsearch a b\noptions ndots:5 timeout:0 attempts:99 rotate\n", "name")
	f.Fuzz(func(t *testing.T, text, name string) {
		c := parseResolvConf(text)
		if len(c.servers) == 0 || len(c.servers) > maxServers || len(c.names(name)) > maxSearch+1 || c.attempts < 1 || c.timeout <= 0 {
			t.Errorf("%+v", c)
		}
		if a, _ := lookupHosts(text, name); len(a) > maxAddresses {
			t.Errorf("%d addresses", len(a))
		}
	})
}
