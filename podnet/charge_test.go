package podnet

import (
	"net/netip"
	"runtime"
	"testing"
)

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// OOM-06: what is charged for sockets, connections and flows is not less than they
// take.
func TestChargesAreWhatSocketsTake(t *testing.T) {
	if testing.Short() || testing.CoverMode() != "" {
		t.Skip("skipped: objects are larger there, or takes long")
	}
	const n = 1000
	pods := newPods(t, Config{}, 2)
	at := netip.AddrPortFrom(pods[0].IP(), 80)
	m := &meter{limit: 1 << 40}
	socket := func(k Kind) *Socket {
		s, err := pods[1].Socket(IPv4, k, m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	listener, err := pods[0].Socket(IPv4, Stream, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Bind(at); err != nil {
		t.Fatal(err)
	}
	if err := listener.Listen(4096); err != nil {
		t.Fatal(err)
	}
	one := socket(Datagram)
	target, _ := pods[0].Socket(IPv4, Datagram, nil)
	if err := target.Bind(at); err != nil {
		t.Fatal(err)
	}
	data := [][]byte{[]byte("x")}
	for _, test := range []struct {
		name string
		each func(i int) *Socket
	}{
		{"sockets", func(int) *Socket { return socket(Stream) }},
		{"bound sockets", func(i int) *Socket {
			s := socket(Stream)
			s.Bind(netip.AddrPortFrom(pods[1].IP(), uint16(1000+i)))
			return s
		}},
		{"datagram sockets", func(i int) *Socket {
			s := socket(Datagram)
			s.Bind(netip.AddrPortFrom(pods[1].IP(), uint16(1000+i)))
			return s
		}},
		{"listeners", func(i int) *Socket {
			s := socket(Stream)
			s.Bind(netip.AddrPortFrom(pods[1].IP(), uint16(3000+i)))
			s.Listen(1)
			return s
		}},
		{"connections that wait", func(int) *Socket {
			s := socket(Stream)
			s.Connect(at)
			return s
		}},
		{"connections with a byte", func(int) *Socket {
			s := socket(Stream)
			s.Connect(at)
			s.Send(data)
			return s
		}},
		{"flows", func(i int) *Socket {
			one.SendTo(data, netip.AddrPortFrom(pods[0].IP(), uint16(1000+i)))
			return nil
		}},
	} {
		t.Run("OOM-06 "+test.name, func(t *testing.T) {
			kept := make([]*Socket, 0, n)
			took, paid := heapBytes(), m.used.Load()
			for i := range n {
				if s := test.each(i); s != nil {
					kept = append(kept, s)
				}
			}
			took, paid = heapBytes()-took, m.used.Load()-paid
			t.Logf("%d bytes each, charged %d", took/n, paid/n)
			if took > paid+4<<10 {
				t.Errorf("%d take %d bytes, charged are %d", n, took, paid)
			}
			for _, s := range kept {
				s.Close()
			}
		})
	}
}
