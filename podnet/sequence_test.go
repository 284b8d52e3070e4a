package podnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// meter is an Account with a limit.
type meter struct {
	used  atomic.Int64
	limit int64
}

func (m *meter) Charge(n int64) bool {
	if m.used.Add(n) > m.limit {
		m.used.Add(-n)
		return false
	}
	return true
}

func (m *meter) Release(n int64) {
	if m.used.Add(-n) < 0 {
		panic("released more than was charged")
	}
}

// pipes is an outside in memory: ports below 10 refuse, others echo.
type pipes struct{}

func (pipes) DialContext(_ context.Context, _ *Namespace, network, address string) (net.Conn, error) {
	if netip.MustParseAddrPort(address).Port() < 10 {
		return nil, syscall.ECONNREFUSED
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		b := make([]byte, 4096)
		for {
			n, err := far.Read(b)
			if err != nil {
				return
			}
			if _, err := far.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// emptied reports what a namespace has left behind.
func (ns *Namespace) emptied() error {
	for _, p := range []*ports{&ns.tcp, &ns.udp} {
		if len(p.buckets)+len(p.tuples)+len(p.foreign) > 0 {
			return fmt.Errorf("%d ports, %d tuples and %d foreigners are left", len(p.buckets), len(p.tuples), len(p.foreign))
		}
		if p.used != nil && *p.used != [len(p.used)]uint64{} {
			return fmt.Errorf("ephemeral ports are marked: %x", *p.used)
		}
	}
	if n := ns.Stats().Sockets; n != 0 {
		return fmt.Errorf("%d sockets are left", n)
	}
	return nil
}

// sequence runs calls that a stream of numbers chooses. Nothing may panic, hang
// or cost more than it may; and once everything is closed nothing is left.
func sequence(t *testing.T, draw func(n int) int) {
	vip := netip.MustParseAddr("127.192.0.1")
	var pods []*Namespace
	network, err := NewNetwork(Config{
		Reserved: []netip.Prefix{netip.MustParsePrefix("127.192.0.0/16")}, MaxSockets: 24, Outside: pipes{},
		Route: func(from *Namespace, _ Proto, to netip.AddrPort) Verdict {
			if to.Addr() == vip && len(pods) > 0 {
				return Verdict{To: netip.AddrPortFrom(pods[to.Port()%2].IP(), 80), Action: Action(to.Port() / 2 % 5)}
			}
			return Verdict{}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	meters := []*meter{{limit: int64(8+draw(256)) << 10}, {limit: int64(8+draw(4096)) << 10}}
	for range meters {
		ns, err := network.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, ns)
	}
	addrs := []netip.Addr{loopback4, loopback4, loopback6, any4, any6, pods[0].IP(), pods[1].IP(), vip, netip.MustParseAddr("192.0.2.1"),
		netip.AddrFrom16(loopback4.As16()), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("fe80::1%eth0")}
	addr := func() netip.AddrPort {
		if draw(20) == 0 {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(addrs[draw(len(addrs))], []uint16{0, 7, 80, 80, 80, 81, 82}[draw(7)])
	}
	buf := make([]byte, 70_000)
	var socks []*Socket
	for range 10 + draw(150) {
		op := draw(20)
		if len(socks) == 0 || op == 0 && len(socks) < 40 {
			i := draw(2)
			if s, err := pods[i].Socket([]Family{IPv4, IPv6}[draw(2)], []Kind{Stream, Stream, Datagram}[draw(3)], meters[i]); err == nil {
				socks = append(socks, s)
			}
			continue
		}
		s := socks[draw(len(socks))]
		n := []int{0, 1, 100, 5000, 65_508, 70_000}[draw(6)]
		switch op {
		case 1, 2:
			s.Bind(addr())
		case 3, 4:
			s.Listen(draw(4) - 1)
		case 5, 6, 7:
			s.Connect(addr())
		case 8, 9:
			if kid, err := s.Accept(); err == nil {
				socks = append(socks, kid)
			}
		case 10, 11:
			s.Send([][]byte{buf[:n/2], nil, buf[n/2 : n]})
		case 12:
			s.SendTo([][]byte{buf[:n]}, addr())
		case 13, 14:
			s.RecvFrom([][]byte{nil, buf[:n]}, Flags(draw(4)))
		case 15:
			s.Shutdown(How(draw(5)))
		case 16:
			s.Close()
		case 17:
			s.SetOption(Option(draw(15)), []int{-1, 0, 1, 5000, 1 << 30}[draw(5)])
			s.Option(Option(draw(15)))
		case 18:
			s.Ready()
			s.Err()
			s.LocalAddr()
			s.RemoteAddr()
		case 19:
			switch draw(12) {
			case 0: // what waits for an answer, a timeout or the outside
				synctest.Wait()
			case 1:
				time.Sleep(connectTimeout)
			case 2:
				pods[draw(2)].Close()
			case 3:
				pods[draw(2)].Listening()
			}
		}
		for i, m := range meters {
			if used := m.used.Load(); used < 0 || used > m.limit {
				t.Fatalf("container %d is charged %d of %d", i, used, m.limit)
			}
		}
	}
	// Half are closed one by one, as guests do, the others with their pod.
	for i, s := range socks {
		if i%2 == 0 {
			s.Close()
		}
	}
	for _, ns := range pods {
		ns.Close()
	}
	synctest.Wait()
	for i, m := range meters {
		if used := m.used.Load(); used != 0 {
			t.Errorf("container %d is still charged %d bytes", i, used)
		}
		if err := pods[i].emptied(); err != nil {
			t.Errorf("pod %d: %v", i, err)
		}
	}
}

func FuzzSequence(f *testing.F) {
	f.Add([]byte("any sequence of numbers is one of calls"))
	f.Fuzz(func(t *testing.T, data []byte) {
		i := 0
		synctest.Test(t, func(t *testing.T) {
			sequence(t, func(n int) int {
				if i >= len(data) {
					return 0
				}
				i++
				return int(data[i-1]) % n
			})
		})
	})
}

func TestSequence(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		numbers := rapid.SliceOfN(rapid.Byte(), 600, 600).Draw(rt, "numbers")
		failed := !t.Run("", func(t *testing.T) {
			i := 0
			synctest.Test(t, func(t *testing.T) {
				sequence(t, func(n int) int {
					i++
					return int(numbers[i%len(numbers)]) % n
				})
			})
		})
		if failed {
			rt.FailNow()
		}
	})
}
