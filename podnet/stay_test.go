package podnet

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// WL-30: a flow of datagrams to a Service stays with its endpoint for as long as it is
// in use and the endpoint is one, and goes to another at once when the pod is gone.
func TestFlowStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vip := netip.MustParseAddrPort("127.192.0.1:53")
		var pods []*Namespace
		var turn atomic.Int64
		var mu sync.Mutex
		left := map[netip.AddrPort]bool{}
		endpoint := func(i int64) netip.AddrPort { return netip.AddrPortFrom(pods[1+i%2].IP(), 53) }
		cfg := Config{
			Reserved: []netip.Prefix{netip.MustParsePrefix("127.192.0.0/16")},
			Route: func(_ *Namespace, _ Proto, to netip.AddrPort) Verdict {
				mu.Lock()
				defer mu.Unlock()
				for to == vip {
					if e := endpoint(turn.Add(1)); !left[e] {
						return Verdict{To: e}
					}
				}
				return Verdict{}
			},
			Stay: func(_ *Namespace, _ Proto, to, was netip.AddrPort) bool {
				mu.Lock()
				defer mu.Unlock()
				return to == vip && !left[was]
			},
		}
		pods = newPods(t, cfg, 3)
		servers := map[netip.AddrPort]*Socket{}
		for i := range int64(2) {
			s, _ := pods[1+i].Socket(IPv4, Datagram, nil)
			if err := s.Bind(endpoint(i)); err != nil {
				t.Fatal(err)
			}
			servers[endpoint(i)] = s
		}
		client, _ := pods[0].Socket(IPv4, Datagram, nil)
		send := func() (at netip.AddrPort) {
			t.Helper()
			if _, err := client.SendTo([][]byte{[]byte("x")}, vip); err != nil {
				t.Fatal(err)
			}
			for e, s := range servers {
				if _, from, _, err := s.RecvFrom([][]byte{make([]byte, 1)}, 0); err == nil {
					at = e
					// The answer comes from the Service, as far as the client sees.
					s.SendTo([][]byte{[]byte("y")}, from)
					if _, from, _, err := client.RecvFrom([][]byte{make([]byte, 1)}, 0); err != nil || from != vip {
						t.Fatalf("an answer from %s, %v", from, err)
					}
				}
			}
			return at
		}
		first := send()
		for _, pause := range []time.Duration{time.Millisecond, routeTime, 10 * time.Second, stayTime, routeTime} {
			time.Sleep(pause)
			if at := send(); at != first {
				t.Fatalf("after %s the flow is at %s instead of %s", pause, at, first)
			}
		}
		mu.Lock()
		left[first] = true // it is not ready any more
		mu.Unlock()
		time.Sleep(routeTime)
		second := send()
		if second == first || !second.IsValid() {
			t.Fatalf("the flow is at %s, which has left", second)
		}
		mu.Lock()
		left[first] = false
		mu.Unlock()
		pods[1+boolInt(second == endpoint(1))].Close()
		if at := send(); at != first {
			t.Fatalf("the flow is at %s, want %s: the other pod has been removed", at, first)
		}
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
