// Package egress reaches what is no pod: it dials real sockets for pods, as far
// as a policy lets it. It knows neither WebAssembly nor Kubernetes.
package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Policy says which destinations outside may be reached. The zero value denies
// everything. It is immutable.
type Policy struct {
	all   bool
	dns   bool
	rules []rule
}

// rule allows a block of addresses, at a range of ports, by one protocol or all.
type rule struct {
	block     netip.Prefix
	low, high uint16
	network   string // tcp, udp or empty
}

// Allow lets everything pass that is not the host itself: see Policy.Allows.
var Allow = Policy{all: true, dns: true}

// maxRules bounds a policy, which may come from a stranger's manifest.
const maxRules = 256

// Parse reads a policy: "deny", "allow", or a list, separated by commas or
// blanks, of
//
//	CIDR-or-address[:port[-port]][/tcp|/udp]    an IPv6 one in brackets if a port follows
//	dns                                         names are resolved for the pod by the host's resolver
//
// With a list only what it names may be reached.
func Parse(text string) (Policy, error) {
	switch strings.TrimSpace(text) {
	case "deny":
		return Policy{}, nil
	case "allow":
		return Allow, nil
	}
	items := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	if len(items) == 0 {
		return Policy{}, fmt.Errorf("egress policy is empty: write deny, allow, or a list such as 10.0.0.0/8:443")
	}
	if len(items) > maxRules {
		return Policy{}, fmt.Errorf("egress policy has %d items, more than %d", len(items), maxRules)
	}
	var p Policy
	for _, item := range items {
		if item == "dns" {
			p.dns = true
			continue
		}
		r, err := parseRule(item)
		if err != nil {
			return Policy{}, fmt.Errorf("egress policy: %q: %w", item, err)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

func parseRule(item string) (rule, error) {
	r := rule{high: 65535}
	for _, network := range []string{"tcp", "udp"} {
		if rest, ok := strings.CutSuffix(item, "/"+network); ok {
			item, r.network = rest, network
		}
	}
	ports := ""
	if inner, ok := strings.CutPrefix(item, "["); ok {
		addr, rest, ok := strings.Cut(inner, "]")
		if !ok {
			return r, fmt.Errorf("there is no ] after [")
		}
		if rest != "" {
			if ports, ok = strings.CutPrefix(rest, ":"); !ok || ports == "" {
				return r, fmt.Errorf("want :port after ]")
			}
		}
		item = addr
	} else if strings.Count(item, ":") == 1 {
		item, ports, _ = strings.Cut(item, ":")
		if ports == "" {
			return r, fmt.Errorf("the port after the colon is missing")
		}
	}
	if ports != "" {
		low, high, isRange := strings.Cut(ports, "-")
		if !isRange {
			high = low
		}
		var err error
		if r.low, err = parsePort(low); err != nil {
			return r, err
		}
		if r.high, err = parsePort(high); err != nil {
			return r, err
		}
		if r.low > r.high {
			return r, fmt.Errorf("the range of ports ends before it begins")
		}
	}
	if addr, err := netip.ParseAddr(item); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		r.block = netip.PrefixFrom(addr, addr.BitLen())
		return r, nil
	}
	block, err := netip.ParsePrefix(item)
	if err != nil || block.Addr().Is4In6() {
		return r, fmt.Errorf("want deny, allow, dns, or CIDR[:port[-port]][/tcp|/udp]")
	}
	r.block = block.Masked()
	return r, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port", text)
	}
	return uint16(n), nil
}

// Allows says whether a destination may be reached; network is tcp or udp.
// Addresses of the host itself (loopback, link-local and with it the metadata
// services of clouds, unspecified) and groups need a rule that lies within that
// range: "allow" does not mean them, and neither does 0.0.0.0/0.
func (p Policy) Allows(network string, to netip.AddrPort) bool {
	addr := to.Addr().Unmap().WithZone("")
	for _, r := range p.rules {
		if r.block.Contains(addr) && to.Port() >= r.low && to.Port() <= r.high &&
			(r.network == "" || r.network == network) && (!isHost(addr) || namesHost(r.block)) {
			return true
		}
	}
	return p.all && !isHost(addr)
}

// AllowsDNS says whether the host's resolver may be asked for names outside.
func (p Policy) AllowsDNS() bool { return p.dns }

// isHost reports whether an address means the host, or a group of hosts, instead
// of one elsewhere. An IPv6 address that embeds an IPv4 one is judged as that.
func isHost(addr netip.Addr) bool {
	if addr.Is6() {
		b := addr.As16()
		for _, prefix := range embedding {
			if prefix.Contains(addr) {
				four := netip.AddrFrom4([4]byte(b[12:]))
				if prefix.Bits() == 16 { // 6to4
					four = netip.AddrFrom4([4]byte(b[2:6]))
				}
				return isHost(four)
			}
		}
	}
	return addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() ||
		addr == broadcast || addr.Is4() && addr.As4()[0] == 0
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	// embedding are IPv4-compatible, NAT64 and 6to4 addresses; the IPv4 address follows.
	embedding = []netip.Prefix{netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16")}
)
