package applet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// nc connects, or with -l takes one connection, and copies both ways.
func nc(p *proc.Proc) int {
	const synopsis = "[-l [-p PORT]] [-u] [-n] [-z] [-v] [-w SEC] [HOST] [PORT]"
	f, rest, ok := parse(p, "lunzvp:w:", nil)
	if !ok {
		return p.Usage(synopsis)
	}
	network := "tcp"
	if f.has('u') {
		network = "udp"
	}
	wait := time.Duration(0)
	if v, ok := f.value('w'); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
		wait = time.Duration(n) * time.Second
	}
	if f.has('l') {
		port, _ := f.value('p')
		host := ""
		switch {
		case port == "" && len(rest) == 1:
			port = rest[0]
		case port == "" && len(rest) == 2:
			host, port = rest[0], rest[1]
		case port != "" && len(rest) == 1:
			host = rest[0]
		case port == "" || len(rest) > 0:
			return p.Usage(synopsis)
		}
		conn, err := takeOne(p, network, net.JoinHostPort(host, port), wait)
		if err != nil {
			p.Errorf("%s", netReason(err))
			return 1
		}
		return both(p, conn)
	}
	if len(rest) != 2 {
		return p.Usage(synopsis)
	}
	dialer := net.Dialer{Timeout: wait}
	conn, err := dialer.DialContext(p.Ctx, network, net.JoinHostPort(rest[0], rest[1]))
	if err != nil {
		p.Errorf("can't connect to remote host (%s): %s", rest[0], netReason(err))
		return 1
	}
	if f.has('v') {
		io.WriteString(p.Stderr, rest[0]+" ("+conn.RemoteAddr().String()+") open\n")
	}
	if f.has('z') {
		conn.Close()
		return 0
	}
	return both(p, conn)
}

// takeOne waits for one peer.
func takeOne(p *proc.Proc, network, address string, wait time.Duration) (net.Conn, error) {
	if network == "udp" {
		pc, err := net.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}
		return &packetPeer{PacketConn: pc}, nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer context.AfterFunc(p.Ctx, func() { l.Close() })()
	if wait > 0 {
		l.(*net.TCPListener).SetDeadline(time.Now().Add(wait))
	}
	return l.Accept()
}

// packetPeer is the peer that the first datagram came from.
type packetPeer struct {
	net.PacketConn
	peer net.Addr
}

func (c *packetPeer) Read(b []byte) (int, error) {
	n, from, err := c.ReadFrom(b)
	if c.peer == nil {
		c.peer = from
	}
	return n, err
}

func (c *packetPeer) Write(b []byte) (int, error) {
	if c.peer == nil {
		return len(b), nil // there is nobody yet
	}
	return c.WriteTo(b, c.peer)
}

func (c *packetPeer) RemoteAddr() net.Addr { return c.peer }

// both copies standard input to the peer and what the peer sends to standard
// output, until the peer has ended.
func both(p *proc.Proc, conn net.Conn) int {
	defer conn.Close()
	defer context.AfterFunc(p.Ctx, func() { conn.Close() })()
	go func() {
		_, err := io.Copy(conn, p.Stdin)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			half.CloseWrite()
		}
	}()
	if _, err := io.Copy(p.Stdout, conn); err != nil {
		p.Errorf("%s", netReason(err))
		return 1
	}
	return 0
}

// netReason is an error of package net in busybox's words.
func netReason(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "bad address '" + dns.Name + "'"
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return "Connection timed out"
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return proc.Reason(sys.Err)
	}
	return proc.Reason(err)
}

// nslookup asks for a name's addresses, or for an address's names.
func nslookup(p *proc.Proc) int {
	_, rest, ok := parse(p, "", nil)
	if !ok || len(rest) < 1 || len(rest) > 2 {
		return p.Usage("HOST [DNS_SERVER]")
	}
	resolver := &net.Resolver{PreferGo: true}
	server := firstNameserver(p)
	if len(rest) == 2 {
		server = rest[1]
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(server, "53"))
		}
	}
	if server != "" {
		fmt.Fprintf(p.Stdout, "Server:\t\t%s\nAddress:\t%s\n\n", server, net.JoinHostPort(server, "53"))
	}
	name := rest[0]
	if ip, err := netip.ParseAddr(name); err == nil {
		names, err := resolver.LookupAddr(p.Ctx, ip.String())
		if err != nil {
			return notResolved(p, name)
		}
		for _, n := range names {
			fmt.Fprintf(p.Stdout, "%s\tname = %s\n", ip, strings.TrimSuffix(n, "."))
		}
		return 0
	}
	addrs, err := resolver.LookupNetIP(p.Ctx, "ip", name)
	if err != nil {
		return notResolved(p, name)
	}
	for _, a := range addrs {
		fmt.Fprintf(p.Stdout, "Name:\t%s\nAddress: %s\n", name, a.Unmap())
	}
	return 0
}

func notResolved(p *proc.Proc, name string) int {
	p.Errorf("can't resolve '%s'", name)
	return 1
}

// firstNameserver is the one that is asked first.
func firstNameserver(p *proc.Proc) string {
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "nameserver" {
			return words[1]
		}
	}
	return ""
}
