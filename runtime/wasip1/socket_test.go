package wasip1

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Places in guest memory for the socket tests.
const (
	atIovec  = 0
	atResult = 64
	atPort   = 72
	atFlags  = 80
	atAddr   = 96 // an address and what it points to
	atBytes  = 128
	atBuf    = 8192
)

// address makes an address of n bytes in guest memory.
func (c *caller) address(b ...byte) int {
	c.mem.WriteUint32Le(atAddr, atBytes)
	c.mem.WriteUint32Le(atAddr+4, uint32(len(b)))
	c.mem.Write(atBytes, b)
	return atAddr
}

func (c *caller) iovec(n int) {
	c.mem.WriteUint32Le(atIovec, atBuf)
	c.mem.WriteUint32Le(atIovec+4, uint32(n))
}

// socket opens a socket; listen and connect make it one of these.
func (c *caller) socket(kind SocketKind) int {
	c.t.Helper()
	c.want(0, "sock_open", int(FamilyIPv4), int(kind), atResult)
	return int(c.u32(atResult))
}

func (c *caller) listen(port int) int {
	c.t.Helper()
	fd := c.socket(KindStream)
	c.want(0, "sock_bind", fd, c.address(0, 0, 0, 0), port)
	c.want(0, "sock_listen", fd, 16)
	return fd
}

func (c *caller) connect(port int) int {
	c.t.Helper()
	fd := c.socket(KindStream)
	c.want(0, "sock_connect", fd, c.address(127, 0, 0, 1), port)
	return fd
}

// pair is two ends of a connection.
func (c *caller) pair(port int) (client, server int) {
	c.t.Helper()
	l := c.listen(port)
	client = c.connect(port)
	c.want(0, "sock_accept", l, 0, atResult)
	server = int(c.u32(atResult))
	c.want(0, "fd_close", l)
	return client, server
}

func newSocketCaller(t testing.TB) (*caller, *fakeNet) {
	n := newFakeNet()
	return newCaller(t, ProcessConfig{Network: n, Hostname: "pod", UID: 7, GID: 8, Groups: []uint32{9}}), n
}

func TestSocketsInTheTable(t *testing.T) {
	c, _ := newSocketCaller(t)
	client, server := c.pair(80)
	if errno := c.write(client, "hello"); errno != 0 {
		t.Fatal(errno)
	}
	if text, errno := c.read(server); text != "hello" || errno != 0 {
		t.Errorf("%q, %v", text, errno)
	}
	c.want(0, "fd_fdstat_get", server, 1024)
	if b, _ := c.mem.Read(1024, 1); b[0] != filetypeSocketStream {
		t.Errorf("file type %d", b[0])
	}
	c.want(0, "fd_fdstat_set_flags", server, int(fdflagNonblock))
	if _, errno := c.read(server); errno != ErrnoAGAIN {
		t.Errorf("nothing to read: %v", errno)
	}
	c.want(0, "fd_dup", server, atResult)
	second := int(c.u32(atResult))
	c.want(0, "fd_close", server)
	c.write(client, "again")
	if text, errno := c.read(second); text != "again" || errno != 0 {
		t.Errorf("after the other descriptor was closed: %q, %v", text, errno)
	}
	c.want(0, "fd_renumber", second, client) // closes the client
	if text, errno := c.read(client); text != "" || errno != 0 {
		t.Errorf("after the peer was closed: %q, %v", text, errno)
	}
	c.want(ErrnoSPIPE, "fd_seek", client, uint64(0), 0, atResult)
	c.want(ErrnoNOTSOCK, "sock_shutdown", 3, 3)
	c.want(ErrnoBADF, "sock_recv", 99, 0, 0, 0, atResult, atFlags)
}

func TestWasmEdgeAddresses(t *testing.T) {
	c, _ := newSocketCaller(t)
	client, server := c.pair(80)
	c.address(make([]byte, 128)...)
	c.want(0, "sock_getpeeraddr", client, atAddr, atPort)
	if b, _ := c.mem.Read(atBytes, 6); string(b) != "\x01\x00\x7f\x00\x00\x01" || c.u32(atPort) != 80 {
		t.Errorf("version 2: %x, port %d", b, c.u32(atPort))
	}
	c.address(make([]byte, 16)...)
	c.want(0, "sock_getlocaladdr.v1", server, atAddr, atFlags, atPort)
	if b, _ := c.mem.Read(atBytes, 4); string(b) != "\x7f\x00\x00\x01" || c.u32(atFlags) != 4 || c.u32(atPort) != 80 {
		t.Errorf("version 1: %x, type %d, port %d", b, c.u32(atFlags), c.u32(atPort))
	}
	c.want(ErrnoINVAL, "sock_getpeeraddr", client, c.address(1, 2, 3), atPort)
	c.want(ErrnoINVAL, "sock_bind", c.socket(KindStream), c.address(0, 0, 0, 0), 65536)
	c.want(ErrnoAFNOSUPPORT, "sock_bind", c.socket(KindStream), c.address(make([]byte, 16)...), 1)
	c.want(ErrnoNOTCONN, "sock_getpeeraddr", c.socket(KindStream), c.address(make([]byte, 128)...), atPort)
	c.want(ErrnoAFNOSUPPORT, "sock_open", 3, 2, atResult)
	c.want(ErrnoINVAL, "sock_open", 1, 0, atResult)
	c.want(ErrnoCONNREFUSED, "sock_connect", c.socket(KindStream), c.address(127, 0, 0, 1), 81)
}

func TestDatagrams(t *testing.T) {
	c, _ := newSocketCaller(t)
	a, b := c.socket(KindDatagram), c.socket(KindDatagram)
	c.want(0, "sock_bind", a, c.address(0, 0, 0, 0), 53)
	c.want(0, "sock_bind", b, c.address(127, 0, 0, 1), 54)
	c.mem.Write(atBuf, []byte("datagram"))
	c.iovec(8)
	c.want(0, "sock_send_to", b, atIovec, 1, c.address(127, 0, 0, 1), 53, 0, atResult)
	c.address(make([]byte, 128)...)
	c.iovec(4)
	c.want(0, "sock_recv_from", a, atIovec, 1, atAddr, receivePeek, atPort, atResult, atFlags)
	c.want(0, "sock_recv_from", a, atIovec, 1, atAddr, 0, atPort, atResult, atFlags)
	if b, _ := c.mem.Read(atBytes, 6); string(b) != "\x01\x00\x7f\x00\x00\x01" || c.u32(atPort) != 54 || c.u32(atResult) != 4 || c.u32(atFlags)&0xffff != receivedTruncated {
		t.Errorf("from %x:%d, %d bytes, flags %d", b, c.u32(atPort), c.u32(atResult), c.u32(atFlags))
	}
	c.want(0, "fd_fdstat_set_flags", a, int(fdflagNonblock))
	c.want(ErrnoAGAIN, "sock_recv_from.v1", a, atIovec, 1, atAddr, 0, atResult, atFlags)
}

func TestSocketOptions(t *testing.T) {
	c, _ := newSocketCaller(t)
	fd := c.socket(KindStream)
	get := func(level, name, size int) (Errno, uint32) {
		c.mem.WriteUint32Le(atPort, uint32(size))
		errno, _ := c.call("sock_getsockopt", fd, level, name, atBuf, atPort)
		return errno, c.u32(atPort)
	}
	if errno, _ := get(0, int(soType), 4); errno != 0 || c.u32(atBuf) != uint32(KindStream) {
		t.Errorf("SO_TYPE: %v, %d", errno, c.u32(atBuf))
	}
	c.want(0, "sock_getsockopt", fd, 0, int(soType), atBuf, 4) // the size by value
	for _, o := range [][2]int{{0, int(soReuseAddr)}, {0, int(soDontRoute)}, {6, tcpNoDelay}, {6, tcpKeepIdle}, {41, ipv6Only}, {0, int(soReusePort)}} {
		c.mem.WriteUint32Le(atBuf, 1)
		c.want(0, "sock_setsockopt", fd, o[0], o[1], atBuf, 4)
		c.want(ErrnoINVAL, "sock_setsockopt", fd, o[0], o[1], atBuf, 3)
		c.mem.WriteUint32Le(atBuf, 0)
		if errno, _ := get(o[0], o[1], 4); errno != 0 || c.u32(atBuf) != 1 {
			t.Errorf("option %v: %v, %d", o, errno, c.u32(atBuf))
		}
	}
	c.mem.Write(atBuf, append(binary.LittleEndian.AppendUint64(nil, 2), binary.LittleEndian.AppendUint64(nil, 500_000)...))
	c.want(0, "sock_setsockopt", fd, 0, int(soReceiveTimeout), atBuf, 16)
	if errno, n := get(0, int(soReceiveTimeout), 8); errno != 0 || n != 8 || c.u32(atBuf) != 2 || c.u32(atBuf+4) != 500_000 {
		t.Errorf("SO_RCVTIMEO: %v, %d bytes", errno, n)
	}
	c.mem.WriteUint32Le(atBuf+4, 1_000_000)
	c.want(ErrnoDOM, "sock_setsockopt", fd, 0, int(soSendTimeout), atBuf, 8)
	c.want(ErrnoNOPROTOOPT, "sock_setsockopt", fd, 0, int(soBindToDevice), atBuf, 4)
	c.want(ErrnoNOPROTOOPT, "sock_setsockopt", fd, 99, 0, atBuf, 4)
	if errno, _ := get(0, int(soError), 2); errno != ErrnoINVAL {
		t.Errorf("SO_ERROR without room: %v", errno)
	}
}

// Blocking calls end in time.
func TestSocketTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newSocketCaller(t)
		client, _ := c.pair(80)
		c.mem.Write(atBuf, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 3), 0))
		c.want(0, "sock_setsockopt", client, 0, int(soReceiveTimeout), atBuf, 16)
		began := time.Now()
		if _, errno := c.read(client); errno != ErrnoAGAIN || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", errno, time.Since(began))
		}
	})
}

// blockedCalls are socket calls that wait for ever.
func blockedCalls() map[string]func(c *caller) (Errno, int) {
	poll := func(c *caller, kind uint8, fd int) (Errno, int) {
		c.mem.Write(0, fdSub(1, kind, uint32(fd)))
		return c.call("poll_oneoff", 0, 1024, 1, 2048)
	}
	full := func(c *caller) int {
		client, _ := c.pair(80)
		c.iovec(fakeBuffer)
		c.want(0, "fd_write", client, atIovec, 1, atResult)
		return client
	}
	calls := map[string]func(c *caller) (Errno, int){
		"accept":    func(c *caller) (Errno, int) { return c.call("sock_accept", c.listen(80), 0, atResult) },
		"accept v1": func(c *caller) (Errno, int) { return c.call("sock_accept.v1", c.listen(80), atResult) },
		"recv": func(c *caller) (Errno, int) {
			client, _ := c.pair(80)
			c.iovec(10)
			return c.call("sock_recv", client, atIovec, 1, 0, atResult, atFlags)
		},
		"send": func(c *caller) (Errno, int) { return c.call("sock_send", full(c), atIovec, 1, 0, atResult) },
		"recv_from": func(c *caller) (Errno, int) {
			c.iovec(10)
			return c.call("sock_recv_from", c.socket(KindDatagram), atIovec, 1, c.address(make([]byte, 128)...), 0, atPort, atResult, atFlags)
		},
		"poll read":     func(c *caller) (Errno, int) { client, _ := c.pair(80); return poll(c, eventRead, client) },
		"poll write":    func(c *caller) (Errno, int) { return poll(c, eventWrite, full(c)) },
		"poll listener": func(c *caller) (Errno, int) { return poll(c, eventRead, c.listen(80)) },
		"signals": func(c *caller) (Errno, int) {
			c.want(0, "signal_open", uint64(1<<14), atResult)
			c.iovec(4)
			return c.call("fd_read", int(c.u32(atResult)), atIovec, 1, atResult)
		},
		"connect": func(c *caller) (Errno, int) {
			c.p.network.(*fakeNet).slow = true
			c.listen(80)
			return c.call("sock_connect", c.socket(KindStream), c.address(127, 0, 0, 1), 80)
		},
	}
	return calls
}

func TestKillInSocketCalls(t *testing.T) {
	for name, block := range blockedCalls() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newSocketCaller(t)
				ctx, cancel := context.WithCancel(c.ctx)
				c.ctx = WithProcess(ctx, c.p)
				time.AfterFunc(time.Second, cancel)
				if errno, exit := block(c); exit != 137 {
					t.Errorf("%v, exit %d", errno, exit)
				}
			})
		})
	}
}

func TestInterruptSocketCalls(t *testing.T) {
	for name, block := range blockedCalls() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newSocketCaller(t)
				signal := make(chan struct{})
				handled := false
				c.ctx = &engineContext{Context: c.ctx, t: t, signal: signal, handled: func() { handled = true }}
				time.AfterFunc(time.Second, func() { close(signal) })
				if errno, exit := block(c); errno != ErrnoINTR || exit >= 0 || !handled {
					t.Errorf("%v, exit %d, handled %v", errno, exit, handled)
				}
			})
		})
	}
}

// What poll_oneoff says of sockets, in all their states and in company.
func TestPollSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newSocketCaller(t)
		l := c.listen(80)
		check := func(what, want string, subs ...[]byte) {
			t.Helper()
			events, errno := c.poll(append(subs, clockSub(9, clockMonotonic, uint64(time.Second), 0))...)
			got := ""
			for _, e := range events {
				got += fmt.Sprintf("%d:%v:%d:%d ", e.userdata, e.errno, e.nbytes, e.flags)
			}
			if errno != 0 || got != want {
				t.Errorf("%s: %v, events %q, want %q", what, errno, got, want)
			}
		}
		read := func(id uint64, fd int) []byte { return fdSub(id, eventRead, uint32(fd)) }
		write := func(id uint64, fd int) []byte { return fdSub(id, eventWrite, uint32(fd)) }
		check("idle listener", "9:ESUCCESS:0:0 ", read(1, l))
		client := c.connect(80)
		check("a connection waits", "1:ESUCCESS:0:0 ", read(1, l))
		c.want(0, "sock_accept", l, 0, atResult)
		server := int(c.u32(atResult))
		check("accepted", "9:ESUCCESS:0:0 ", read(1, l))
		check("idle connection", "2:ESUCCESS:1:0 ", read(1, client), write(2, client))
		c.write(server, "12345")
		check("data, twice", "1:ESUCCESS:5:0 2:ESUCCESS:1:0 3:ESUCCESS:5:0 ", read(1, client), write(2, client), read(3, client))
		c.read(client)
		check("read", "9:ESUCCESS:0:0 ", read(1, client), read(2, client))
		time.AfterFunc(time.Millisecond, func() { n.wakeWith(c.p, server, "x") })
		check("data while asleep", "1:ESUCCESS:1:0 ", read(1, client))
		c.read(client)
		check("a bad descriptor", "1:EBADF:0:0 ", read(1, 77), read(2, client))
		c.want(0, "sock_shutdown", server, 2)
		check("end of the stream", "1:ESUCCESS:0:0 ", read(1, client))
		c.want(0, "fd_close", server)
		c.want(0, "fd_close", client)
		n.slow = true
		slow := c.socket(KindStream)
		c.want(0, "fd_fdstat_set_flags", slow, int(fdflagNonblock))
		c.want(ErrnoINPROGRESS, "sock_connect", slow, c.address(127, 0, 0, 1), 80)
		check("connect under way", "9:ESUCCESS:0:0 ", write(1, slow))
		c.want(0, "sock_accept", l, 0, atResult)
		check("connected", "1:ESUCCESS:1:0 ", write(1, slow))
		check("clock in the past", "3:ESUCCESS:0:0 ", read(1, slow), clockSub(3, clockMonotonic, 1, 1))
		c.want(ErrnoINVAL, "poll_oneoff", 0, 1024, 0, 2048)
	})
}

// wakeWith sends as if the process owning fd did, from another goroutine.
func (n *fakeNet) wakeWith(p *Process, fd int, text string) {
	d, _ := p.fds.get(uint32(fd))
	d.file.(*socket).s.Send([][]byte{[]byte(text)})
}

func TestSignalDescriptors(t *testing.T) {
	c, _ := newSocketCaller(t)
	var lost []int
	c.p.OnSignalLost(func(n int) { lost = append(lost, n) })
	if c.p.Signal(15) || c.p.Signal(0) || c.p.Signal(65) {
		t.Error("a signal was taken by nobody")
	}
	c.want(0, "signal_open", uint64(1<<14|1<<8|1), atResult)
	fd := int(c.u32(atResult))
	for _, s := range []int{15, 15, 1, 9, 2} {
		if taken := c.p.Signal(s); taken != (s == 15 || s == 1) {
			t.Errorf("signal %d taken: %v", s, taken)
		}
	}
	events, errno := c.poll(fdSub(1, eventRead, uint32(fd)))
	if errno != 0 || len(events) != 1 || events[0].nbytes != 8 {
		t.Errorf("poll: %v, %v", events, errno)
	}
	if text, errno := c.read(fd); text != "\x01\x00\x00\x00\x0f\x00\x00\x00" || errno != 0 {
		t.Errorf("read %q, %v", text, errno)
	}
	c.want(0, "fd_fdstat_set_flags", fd, int(fdflagNonblock))
	if _, errno := c.read(fd); errno != ErrnoAGAIN {
		t.Errorf("none pending: %v", errno)
	}
	c.iovec(3)
	c.want(ErrnoINVAL, "fd_read", fd, atIovec, 1, atResult)
	c.p.Signal(1)
	c.p.Signal(15)
	c.want(0, "signal_mask", fd, uint64(1))
	c.want(0, "fd_close", fd)
	if fmt.Sprint(lost) != "[15 1]" || c.p.Signal(1) {
		t.Errorf("lost %v, want [15 1]", lost)
	}
	c.want(ErrnoINVAL, "signal_mask", 3, uint64(1))
}

func TestIdentity(t *testing.T) {
	c, _ := newSocketCaller(t)
	c.want(ErrnoNAMETOOLONG, "hostname_get", atBuf, 2, atResult)
	c.want(0, "hostname_get", atBuf, 10, atResult)
	if b, _ := c.mem.Read(atBuf, 3); string(b) != "pod" || c.u32(atResult) != 3 {
		t.Errorf("%q, %d", b, c.u32(atResult))
	}
	c.want(0, "ids_get", atBuf)
	if c.u32(atBuf) != 7 || c.u32(atBuf+4) != 8 || c.u32(atBuf+8) != 7 || c.u32(atBuf+12) != 8 {
		t.Error("ids")
	}
	c.want(0, "groups_get", atBuf, 0, atResult)
	c.want(0, "groups_get", atBuf, 1, atResult)
	if c.u32(atBuf) != 9 || c.u32(atResult) != 1 {
		t.Error("groups")
	}
}

// Pre-opened listeners come first and do not end the search for directories.
func TestPreopenedListeners(t *testing.T) {
	for last, fds := range map[bool][2]int{false: {3, 4}, true: {4, 3}} {
		n := newFakeNet()
		l, _ := n.Socket(FamilyIPv6, KindStream)
		c := newCaller(t, ProcessConfig{Network: n, Listeners: []Socket{l}, ListenersLast: last})
		listener, root := fds[0], fds[1]
		c.want(0, "fd_prestat_get", listener, atResult)
		if tag := c.u32(atResult); tag != 1 {
			t.Errorf("tag %d", tag)
		}
		c.want(0, "fd_prestat_get", root, atResult)
		c.want(ErrnoBADF, "fd_prestat_get", 5, atResult)
		c.want(0, "fd_fdstat_get", listener, 1024)
		if env := fmt.Sprint(c.p.env); env != "[LISTEN_FDS=1 LISTEN_PID=1]" {
			t.Errorf("environment %s", env)
		}
	}
}
