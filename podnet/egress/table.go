package egress

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Destination is a block of addresses and the ports that may be reached there. Of
// a table of them the longest block that contains an address decides.
type Destination struct {
	Block netip.Prefix // an IPv4 address is in no IPv6 block
	// TCP and UDP are ranges of ports, first and last, in order and apart.
	TCP, UDP [][2]uint16
}

// Table is what all of the policies together allow, as a table: whoever looks up
// addresses in it, such as the kernel, comes to what Policy.Allows says. There is
// no block more in it than is needed; an address in none may not be reached.
func Table(policies ...Policy) []Destination {
	blocks := make(map[netip.Prefix][]grant)
	at := func(block netip.Prefix) []grant {
		if blocks[block] == nil {
			blocks[block] = make([]grant, len(policies))
		}
		return blocks[block]
	}
	at(netip.MustParsePrefix("0.0.0.0/0"))
	at(netip.MustParsePrefix("::/0"))
	for _, block := range hostBlocks {
		at(block)
	}
	for i, p := range policies {
		for _, r := range p.rules {
			at(r.block)[i].add(r)
		}
	}
	// With a block before those within it, what covers a block is on a stack.
	order := slices.SortedFunc(maps.Keys(blocks), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	type frame struct {
		block netip.Prefix
		host  bool
		grant []grant
		said  Destination
	}
	var stack []frame
	var out []Destination
	for _, block := range order {
		for len(stack) > 0 && !(stack[len(stack)-1].block.Contains(block.Addr())) {
			stack = stack[:len(stack)-1]
		}
		f := frame{block: block, host: slices.Contains(hostBlocks, block), grant: blocks[block]}
		before := Destination{}
		if len(stack) > 0 {
			up := stack[len(stack)-1]
			f.host = f.host || up.host
			for i := range f.grant {
				f.grant[i].widen(up.grant[i])
			}
			before = up.said
		}
		f.said = Destination{Block: block, TCP: every, UDP: every}
		for i, p := range policies {
			allowed := f.grant[i].any
			switch {
			case f.host:
				allowed = f.grant[i].named
			case p.all:
				allowed = [2][][2]uint16{every, every}
			}
			f.said.TCP = intersect(f.said.TCP, allowed[0])
			f.said.UDP = intersect(f.said.UDP, allowed[1])
		}
		if !slices.Equal(f.said.TCP, before.TCP) || !slices.Equal(f.said.UDP, before.UDP) {
			out = append(out, f.said)
		}
		stack = append(stack, f)
	}
	return out
}

var every = [][2]uint16{{0, 65535}}

// grant is what one policy allows in a block: TCP and UDP ports, and of these the
// ones that rules allow which name the host.
type grant struct{ any, named [2][][2]uint16 }

func (g *grant) add(r rule) {
	ports := [][2]uint16{{r.low, r.high}}
	for i, network := range []string{"tcp", "udp"} {
		if r.network != "" && r.network != network {
			continue
		}
		g.any[i] = unite(g.any[i], ports)
		if namesHost(r.block) {
			g.named[i] = unite(g.named[i], ports)
		}
	}
}

func (g *grant) widen(by grant) {
	for i := range g.any {
		g.any[i] = unite(g.any[i], by.any[i])
		g.named[i] = unite(g.named[i], by.named[i])
	}
}

// unite merges two lists of ranges; neither is changed.
func unite(a, b [][2]uint16) (out [][2]uint16) {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	for len(a)+len(b) > 0 {
		if len(a) == 0 || len(b) > 0 && b[0][0] < a[0][0] {
			a, b = b, a
		}
		if n := len(out); n > 0 && int(a[0][0]) <= int(out[n-1][1])+1 {
			out[n-1][1] = max(out[n-1][1], a[0][1])
		} else {
			out = append(out, a[0])
		}
		a = a[1:]
	}
	return out
}

// intersect is what is in both; neither is changed.
func intersect(a, b [][2]uint16) (out [][2]uint16) {
	for len(a) > 0 && len(b) > 0 {
		if low, high := max(a[0][0], b[0][0]), min(a[0][1], b[0][1]); low <= high {
			out = append(out, [2]uint16{low, high})
		}
		if a[0][1] < b[0][1] {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

// hostBlocks are the addresses of which isHost is true, in blocks.
var hostBlocks = func() (blocks []netip.Prefix) {
	for _, text := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"} {
		block := netip.MustParsePrefix(text)
		blocks = append(blocks, block)
		four := block.Addr().As4()
		for _, outer := range embedding {
			b, at := outer.Addr().As16(), outer.Bits()/8
			copy(b[at:], four[:])
			blocks = append(blocks, netip.PrefixFrom(netip.AddrFrom16(b), outer.Bits()+block.Bits()))
		}
	}
	return append(blocks, netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"))
}()

// namesHost reports whether a block lies within a range of the host's.
func namesHost(block netip.Prefix) bool {
	return slices.ContainsFunc(hostBlocks, func(host netip.Prefix) bool {
		return host.Bits() <= block.Bits() && host.Contains(block.Addr())
	})
}
