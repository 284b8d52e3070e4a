package egress

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		policy, network, to string
		want                bool
	}{
		{"allow", "tcp", "192.0.2.1:80", true},
		{"allow", "tcp", "127.0.0.1:80", false},
		{"allow", "tcp", "127.200.3.4:80", false},
		{"allow", "tcp", "[::1]:80", false},
		{"allow", "tcp", "[::ffff:127.0.0.1]:80", false},
		{"allow", "tcp", "[64:ff9b::7f00:1]:80", false},
		{"allow", "tcp", "[2002:7f00:1::]:80", false},
		{"allow", "tcp", "[2001:db8::1]:80", true},
		{"allow", "tcp", "169.254.169.254:80", false},
		{"allow", "tcp", "[fe80::1%eth0]:80", false},
		{"allow", "tcp", "0.0.0.0:80", false},
		{"allow", "udp", "255.255.255.255:67", false},
		{"allow", "udp", "224.0.0.251:5353", false},
		{"deny", "tcp", "192.0.2.1:80", false},
		{"10.0.0.0/8:443", "tcp", "10.1.2.3:443", true},
		{"10.0.0.0/8:443", "tcp", "10.1.2.3:80", false},
		{"10.0.0.0/8:443", "tcp", "11.1.2.3:443", false},
		{"10.0.0.0/8:8000-8999/tcp, 192.0.2.1", "tcp", "10.0.0.1:8500", true},
		{"10.0.0.0/8:8000-8999/tcp, 192.0.2.1", "udp", "10.0.0.1:8500", false},
		{"10.0.0.0/8:8000-8999/tcp, 192.0.2.1", "udp", "192.0.2.1:53", true},
		{"[2001:db8::/32]:443", "tcp", "[2001:db8::1]:443", true},
		{"2001:db8::/32", "tcp", "[2001:db8::1]:1", true},
		{"127.0.0.1:5432", "tcp", "127.0.0.1:5432", true},
		{"127.0.0.1:5432", "tcp", "127.0.0.1:5433", false},
		{"127.0.0.0/8", "tcp", "127.3.0.1:1", true},
		{"0.0.0.0/0", "tcp", "127.0.0.1:80", false},
		{"0.0.0.0/0", "tcp", "169.254.169.254:80", false},
		{"::/0", "tcp", "[::1]:80", false},
		{"[::1]:80", "tcp", "[::1]:80", true},
		{"::/10", "tcp", "[::1]:80", false},
		{"64:ff9b::/96", "tcp", "[64:ff9b::a9fe:a9fe]:80", false},
		{"64:ff9b::/96", "tcp", "[64:ff9b::c000:201]:80", true},
		{"64:ff9b::a9fe:0/112", "tcp", "[64:ff9b::a9fe:a9fe]:80", true},
		{"2002::/16", "tcp", "[2002:7f00:1::1]:80", false},
		{"2002:7f00::/24", "tcp", "[2002:7f00:1::1]:80", true},
		{"224.0.0.0/4", "udp", "224.0.0.251:5353", true},
		{"ff00::/8", "udp", "[ff02::fb]:5353", true},
	} {
		p, err := Parse(c.policy)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Allows(c.network, netip.MustParseAddrPort(c.to)); got != c.want {
			t.Errorf("%q allows %s to %s: %v, want %v", c.policy, c.network, c.to, got, c.want)
		}
	}
	for _, bad := range []string{"", " ", "maybe", "10.0.0.0/33", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:2-1", "[::1", "[::1]x", "10.0.0.1:99999", "::ffff:1.2.3.0/120"} {
		if p, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"allow", "deny", "10.0.0.0/8:1-2/udp dns", "[::1]:80", "::/0"} {
		f.Add(s)
	}
	hosts := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("169.254.169.254:80"), netip.MustParseAddrPort("[::1]:80")}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		for _, to := range hosts {
			if !p.Allows("tcp", to) {
				continue
			}
			named := false
			for _, r := range p.rules {
				named = named || namesHost(r.block)
			}
			if !named {
				t.Errorf("%q reaches %s", text, to)
			}
		}
	})
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	dialer := func(policy string, ceiling *Policy) *Dialer {
		p, err := Parse(policy)
		if err != nil {
			t.Fatal(err)
		}
		d := New(Config{Policy: p, Ceiling: ceiling, MaxConns: 1})
		t.Cleanup(func() { d.Close() })
		return d
	}
	address := l.Addr().String()
	t.Run("the host's loopback is not what allow means", func(t *testing.T) {
		d := dialer("allow", nil)
		if _, err := d.DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.EACCES) || d.Denied() != 1 {
			t.Errorf("err = %v, denied %d", err, d.Denied())
		}
	})
	t.Run("a ceiling is not got past", func(t *testing.T) {
		if _, err := dialer(address, &Policy{}).DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.EACCES) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("half-close, the limit, and the end", func(t *testing.T) {
		d := dialer(address, nil)
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.ENOBUFS) {
			t.Errorf("a second connection: err = %v", err)
		}
		c.Write([]byte("hello"))
		c.(interface{ CloseWrite() error }).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		c, err = d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatalf("the place was not given back: %v", err)
		}
		d.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := d.DialContext(t.Context(), "tcp", address); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial after Close: %v", err)
		}
	})
	t.Run("only addresses", func(t *testing.T) {
		if _, err := dialer("allow", nil).DialContext(t.Context(), "tcp", "localhost:80"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestMark(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := Parse("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what       string
		mark, want error
		marked     int
		to         string
	}{
		{"a socket is marked before it is connected", nil, nil, 1, l.Addr().String()},
		{"one that cannot be marked is not connected", syscall.ENOMEM, syscall.ENOMEM, 1, l.Addr().String()},
		{"what the kernel refuses is not allowed", syscall.EPERM, syscall.EACCES, 1, l.Addr().String()},
		{"what the policy refuses has no socket", nil, syscall.EACCES, 0, "127.0.0.2:1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			marked := 0
			d := New(Config{Policy: p, Mark: func(fd uintptr) error {
				if _, err := syscall.Getpeername(int(fd)); err != syscall.ENOTCONN {
					t.Errorf("connected: %v", err)
				}
				marked++
				return c.mark
			}})
			defer d.Close()
			conn, err := d.DialContext(t.Context(), "tcp", c.to)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || marked != c.marked {
				t.Errorf("err = %v, marked %d times", err, marked)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}
