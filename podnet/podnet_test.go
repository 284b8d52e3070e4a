package podnet

import (
	"errors"
	"net/netip"
	"testing"
)

func TestNetworkHandsOutEveryAddressOnce(t *testing.T) {
	r, err := NewNetwork(Config{Prefix: netip.MustParsePrefix("127.128.0.0/29")})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]*Namespace{}
	for range 6 {
		n, err := r.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		if seen[n.IP()] != nil {
			t.Fatalf("%s handed out twice", n.IP())
		}
		seen[n.IP()] = n
	}
	for _, never := range []string{"127.128.0.0", "127.128.0.7"} {
		if seen[netip.MustParseAddr(never)] != nil {
			t.Errorf("handed out %s, which names the network itself", never)
		}
	}
	if _, err := r.NewNamespace(); !errors.Is(err, ErrExhausted) {
		t.Fatalf("seventh address: err = %v, want ErrExhausted", err)
	}

	freed := netip.MustParseAddr("127.128.0.4")
	seen[freed].Close()
	seen[freed].Close()
	n, err := r.NewNamespace()
	if err != nil || n.IP() != freed {
		t.Fatalf("after releasing %s: got %v, %v", freed, n, err)
	}
}

func TestReleasedAddressComesLast(t *testing.T) {
	r, _ := NewNetwork(Config{Prefix: netip.MustParsePrefix("127.128.0.0/29")})
	first, _ := r.NewNamespace()
	first.Close()
	second, _ := r.NewNamespace()
	if first.IP() == second.IP() {
		t.Errorf("%s was handed out again at once", first.IP())
	}
}

func TestNetworkTooSmall(t *testing.T) {
	for _, p := range []string{"10.0.0.0/31", "10.0.0.1/32", "fd00::/127"} {
		if _, err := NewNetwork(Config{Prefix: netip.MustParsePrefix(p)}); err == nil {
			t.Errorf("NewNetwork(%s) gave no error", p)
		}
	}
	if _, err := NewNetwork(Config{Prefix: netip.MustParsePrefix("10.0.0.0/30")}); err != nil {
		t.Error(err)
	}
}
