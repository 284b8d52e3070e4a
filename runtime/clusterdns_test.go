package runtime

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/wasmpod/wasmpod/podnet/dns"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// outsideNames are what the test's resolver on the host knows.
var outsideNames = map[string]string{
	"example.org.":    "192.0.2.80",
	"loopback.test.":  "127.0.0.1", // rebinding: names that lead back to the host
	"metadata.test.":  "169.254.169.254",
	"nowhere.test.":   "0.0.0.0",
	"mapped.test.":    "::ffff:169.254.169.254",
	"linklocal.test.": "fe80::1",
}

// hostResolver serves outsideNames at port 53 of an address of the host.
func hostResolver(t *testing.T) (resolvConf []byte) {
	t.Helper()
	const ip = "127.77.53.53"
	pc, err := net.ListenPacket("udp", ip+":53")
	if errors.Is(err, syscall.EACCES) && os.Getuid() != 0 || errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Skipf("this user may not serve at port 53: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	server := dns.New(dns.Config{Zones: []string{"org.", "test."}, Lookup: func(name string) ([]dns.Record, bool) {
		ip, ok := outsideNames[name]
		if !ok {
			return nil, false
		}
		return []dns.Record{{Name: name, Kind: dns.Address, Addr: netip.MustParseAddr(ip)}}, true
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServePacket(pc)
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
		server.Close()
	})
	return []byte("nameserver " + ip + "\n")
}

func TestNamesOutside(t *testing.T) {
	resolvConf := hostResolver(t)
	for _, c := range []struct {
		egress string
		asks   bool
	}{{"allow", true}, {"deny", false}, {"192.0.2.0/24", false}, {"192.0.2.0/24 dns", true}} {
		n, err := newNetwork(t.Context(), Config{Egress: c.egress, Log: slog.New(slog.DiscardHandler)}, store.New(), resolvConf, nil)
		if err != nil {
			t.Fatal(err)
		}
		tn := newTestPods(t, n, twoReplicas)
		dial := tn.pods["client"].DialContext
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, clusterDNSIP.String()+":53")
		}}
		for name, ip := range outsideNames {
			ips, err := resolver.LookupNetIP(t.Context(), "ip", name)
			if !c.asks {
				if err == nil {
					t.Errorf("NET-04 egress %q: %s is %v", c.egress, name, ips)
				}
				continue
			}
			if want := netip.MustParseAddr(ip); err != nil || !slices.ContainsFunc(ips, func(a netip.Addr) bool { return a.Unmap() == want.Unmap() }) {
				t.Errorf("NET-04 egress %q: %s is %v, %v; want %s", c.egress, name, ips, err, ip)
				continue
			}
			if name == "example.org." {
				continue
			}
			// What a name says does not matter: the address is what is judged.
			for _, ip := range ips {
				if c, err := dial(t.Context(), "tcp", netip.AddrPortFrom(ip, 22).String()); err == nil {
					t.Errorf("%s leads to %s", name, c.RemoteAddr())
				}
			}
		}
	}
}
