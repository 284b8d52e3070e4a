package egress

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// lookup is how a table is meant: the longest block that contains an address
// decides.
func lookup(table []Destination, network string, to netip.AddrPort) bool {
	addr := to.Addr().Unmap().WithZone("")
	best := -1
	for i, d := range table {
		if d.Block.Contains(addr) && (best < 0 || d.Block.Bits() > table[best].Block.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	ports := table[best].TCP
	if network == "udp" {
		ports = table[best].UDP
	}
	return slices.ContainsFunc(ports, func(r [2]uint16) bool { return r[0] <= to.Port() && to.Port() <= r[1] })
}

func allAllow(policies []Policy, network string, to netip.AddrPort) bool {
	return !slices.ContainsFunc(policies, func(p Policy) bool { return !p.Allows(network, to) })
}

// words are what policies and addresses are made of, so that they meet.
var someBlocks = []string{
	"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "127.0.0.0/8", "127.0.0.1", "126.0.0.0/7", "169.254.0.0/15",
	"169.254.169.254", "192.0.2.0/25", "224.0.0.0/3", "224.0.0.0/4", "255.255.255.255", "0.0.0.0/8",
	"::/0", "::/96", "::1", "::/10", "2001:db8::/32", "2001:db8::/64", "2001:db8::1", "fe80::/9", "fe80::/64", "ff00::/8", "fc00::/6",
	"64:ff9b::/96", "64:ff9b::7f00:0/104", "64:ff9b::a9fe:a9fe", "2002::/16", "2002:7f00::/24", "2002:a9fe:a9fe::/48",
}

func somePolicy(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return "allow"
	case 1:
		return "deny"
	}
	var items []string
	for range 1 + r.IntN(12) {
		item := someBlocks[r.IntN(len(someBlocks))]
		if r.IntN(3) > 0 {
			if strings.Contains(item, ":") {
				item = "[" + item + "]"
			}
			low := 1 + r.IntN(40)
			item += fmt.Sprintf(":%d", low)
			if r.IntN(2) == 0 {
				item += fmt.Sprintf("-%d", low+r.IntN(30))
			}
		}
		items = append(items, item+[]string{"", "/tcp", "/udp"}[r.IntN(3)])
	}
	return strings.Join(items, ",")
}

// someAddress is one in or next to a block that policies have.
func someAddress(r *rand.Rand) netip.AddrPort {
	text := someBlocks[r.IntN(len(someBlocks))]
	if !strings.Contains(text, "/") {
		text += map[bool]string{true: "/128", false: "/32"}[strings.Contains(text, ":")]
	}
	block := netip.MustParsePrefix(text)
	b := block.Addr().AsSlice()
	for i := block.Bits() / 8; i < len(b); i++ {
		if r.IntN(2) == 0 {
			b[i] = byte(r.Uint32())
		}
	}
	if r.IntN(4) == 0 {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	}
	addr, _ := netip.AddrFromSlice(b)
	if addr.Is4() && r.IntN(2) == 0 {
		addr = netip.AddrFrom16(addr.As16())
	}
	return netip.AddrPortFrom(addr, uint16([]int{0, 1, r.IntN(80), r.IntN(65536), 65535}[r.IntN(5)]))
}

func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var texts []string
		var policies []Policy
		for range 1 + r.IntN(3) {
			text := somePolicy(r)
			p, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			texts, policies = append(texts, text), append(policies, p)
		}
		table := Table(policies...)
		for range 50 {
			network, to := []string{"tcp", "udp"}[r.IntN(2)], someAddress(r)
			if got, want := lookup(table, network, to), allAllow(policies, network, to); got != want {
				t.Fatalf("%q: %s to %v: the table says %v, the policies %v\n%v", texts, network, to, got, want, table)
			}
		}
	}
	if table := Table(Policy{}); len(table) != 0 {
		t.Errorf("nothing is allowed in %d blocks", len(table))
	}
}

// A block is of the host if all of it is: namesHost and isHost are written
// independently.
func TestHostBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		addr := someAddress(r).Addr().Unmap()
		if one := netip.PrefixFrom(addr, addr.BitLen()); namesHost(one) != isHost(addr) {
			t.Fatalf("%v: in a block of the host's: %v, of the host: %v", addr, namesHost(one), isHost(addr))
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add("10.0.0.0/8:80, 10.1.0.0/16/udp, 127.0.0.1:1-2", "allow", []byte{10, 1, 2, 3, 0, 80})
	f.Add("::/0 64:ff9b::/96", "2002::/16:443/tcp", binary.BigEndian.AppendUint16(netip.MustParseAddr("64:ff9b::7f00:1").AsSlice(), 443))
	f.Fuzz(func(t *testing.T, a, b string, to []byte) {
		p, err := Parse(a)
		q, err2 := Parse(b)
		if err != nil || err2 != nil || len(to) < 2 {
			return
		}
		addr, ok := netip.AddrFromSlice(to[:len(to)-2])
		if !ok {
			return
		}
		at := netip.AddrPortFrom(addr, binary.BigEndian.Uint16(to[len(to)-2:]))
		table := Table(p, q)
		for _, network := range []string{"tcp", "udp"} {
			if got, want := lookup(table, network, at), p.Allows(network, at) && q.Allows(network, at); got != want {
				t.Errorf("%q and %q: %s to %v: the table says %v", a, b, network, at, got)
			}
		}
	})
}
