package wasip1

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// Flags of an addrinfo.
const (
	aiPassive uint16 = 1 << iota
	aiCanonName
	aiNumericHost
	aiNumericService
	aiV4Mapped
	aiAll
	aiAddrConfig

	aiFlags = 1<<iota - 1
)

// Protocols of an addrinfo.
const (
	protocolAny uint8 = iota
	protocolTCP
	protocolUDP
)

const (
	addrinfoSize = 28
	sockaddrSize = 12
	data4Size    = 14
	data6Size    = 26
)

// hints are what a guest wants to know.
type hints struct {
	flags                  uint16
	family, kind, protocol uint8
}

// sock_getaddrinfo(node, node_len, service, service_len, hints, res, max, n *u32)
func sockGetAddrInfo(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	node, errno := addrinfoName(m, a[0], a[1])
	if errno != 0 {
		return errno
	}
	service, errno := addrinfoName(m, a[2], a[3])
	if errno != 0 {
		return errno
	}
	hb, errno := m.bytes(uint32(a[4]), addrinfoSize)
	if errno != 0 {
		return errno
	}
	resPtr, errno := m.bytes(uint32(a[5]), 4)
	if errno != 0 {
		return errno
	}
	count, errno := m.bytes(uint32(a[7]), 4)
	if errno != 0 {
		return errno
	}
	h := hints{binary.LittleEndian.Uint16(hb), hb[2], hb[3], hb[4]}
	if errno := h.check(node, service); errno != 0 {
		return errno
	}
	most := uint32(a[6])
	if most == 0 {
		return errnoAIMEMORY
	}
	ports, errno := h.services(service)
	if errno != 0 {
		return errno
	}
	addrs, canonical, errno := p.addresses(ctx, node, h)
	if errno != 0 {
		return errno
	}
	n := uint32(0)
	next := le32(resPtr)
	for _, addr := range addrs {
		for _, s := range ports {
			if n == most {
				break
			}
			if n > 0 {
				canonical = "" // only the first has it
			}
			if next, errno = putAddrinfo(m, next, h.flags, addr, s, canonical); errno != 0 {
				return errno
			}
			n++
		}
	}
	put32(count, n)
	return 0
}

// addrinfoName copies a name, without the NUL that callers may count.
func addrinfoName(m memory, ptr, n uint64) (string, Errno) {
	const longest = 1024
	b, errno := m.bytes(uint32(ptr), uint32(n))
	if errno != 0 {
		return "", errno
	}
	if len(b) > longest {
		return "", errnoAINONAME
	}
	name, _, _ := strings.Cut(string(b), "\x00")
	return name, 0
}

func (h *hints) check(node, service string) Errno {
	switch {
	case h.flags&^aiFlags != 0, h.flags&aiCanonName != 0 && node == "":
		return errnoAIBADFLAG
	case node == "" && service == "":
		return errnoAINONAME
	case h.family > uint8(FamilyIPv6):
		return errnoAIFAMILY
	case h.kind > uint8(KindStream), h.protocol > protocolUDP,
		h.kind == uint8(KindStream) && h.protocol == protocolUDP,
		h.kind == uint8(KindDatagram) && h.protocol == protocolTCP:
		return errnoAISOCKTYPE
	}
	return 0
}

// endpoint is a port of a kind of socket.
type endpoint struct {
	kind, protocol uint8
	port           uint16
}

// wellKnown are the services that are known without /etc/services.
var wellKnown = map[string]uint16{
	"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "pop3": 110, "ntp": 123,
	"imap": 143, "ldap": 389, "https": 443, "syslog": 514, "ldaps": 636, "imaps": 993, "pop3s": 995,
}

// services says which sockets are meant, streams first.
func (h *hints) services(service string) ([]endpoint, Errno) {
	port := uint16(0)
	if service != "" {
		n, err := strconv.ParseUint(service, 10, 16)
		known, ok := wellKnown[service]
		switch {
		case err == nil:
			port = uint16(n)
		case h.flags&aiNumericService != 0:
			return nil, errnoAINONAME
		case ok:
			port = known
		default:
			return nil, errnoAISERVICE
		}
	}
	var list []endpoint
	if h.kind != uint8(KindDatagram) && h.protocol != protocolUDP {
		list = append(list, endpoint{uint8(KindStream), protocolTCP, port})
	}
	if h.kind != uint8(KindStream) && h.protocol != protocolTCP {
		list = append(list, endpoint{uint8(KindDatagram), protocolUDP, port})
	}
	return list, 0
}

// addresses finds the addresses of a node.
func (p *Process) addresses(ctx context.Context, node string, h hints) (addrs []netip.Addr, canonical string, errno Errno) {
	v4, v6 := h.family != uint8(FamilyIPv6), h.family != uint8(FamilyIPv4)
	if node == "" {
		if v6 {
			addrs = append(addrs, netip.IPv6Loopback())
		}
		if v4 {
			addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		}
		if h.flags&aiPassive != 0 {
			for i, a := range addrs {
				if addrs[i] = netip.IPv6Unspecified(); a.Is4() {
					addrs[i] = netip.IPv4Unspecified()
				}
			}
		}
		return addrs, "", 0
	}
	mapped := h.flags&aiV4Mapped != 0 && h.family == uint8(FamilyIPv6)
	if ip, err := netip.ParseAddr(node); err == nil {
		ip = ip.WithZone("")
		switch {
		case ip.Is4() && mapped:
			ip = netip.AddrFrom16(ip.As16())
		case ip.Is4() && !v4, ip.Is6() && !v6:
			return nil, "", errnoAIADDRFAMILY
		}
		return []netip.Addr{ip}, node, 0
	}
	if h.flags&aiNumericHost != 0 {
		return nil, "", errnoAINONAME
	}
	if h.flags&aiAddrConfig != 0 && v4 && v6 && (p.network == nil || !p.network.HasIPv6()) {
		v6 = false
	}
	found, canonical, errno := p.resolve(ctx, node, v4 || mapped, v6)
	if errno != 0 {
		return nil, "", errno
	}
	six := false
	for _, a := range found {
		six = six || a.Is6()
	}
	for _, a := range found {
		switch {
		case !mapped || a.Is6():
			addrs = append(addrs, a)
		case !six || h.flags&aiAll != 0:
			addrs = append(addrs, netip.AddrFrom16(a.As16()))
		}
	}
	return addrs, canonical, 0
}

// putAddrinfo fills an element of the guest's list, and returns the next one's
// pointer:
//
//	| flags u16 | family u8 | socktype u8 | protocol u8 +3 | addrlen u32 | addr u32 | canonname u32 | canonname_len u32 | next u32 |
//	addr → | family u8 +3 | data_len u32 | data u32 |
func putAddrinfo(m memory, ptr uint32, flags uint16, addr netip.Addr, s endpoint, canonical string) (next uint32, errno Errno) {
	e, errno := m.bytes(ptr, addrinfoSize)
	if errno != 0 {
		return 0, errno
	}
	sa, errno := m.bytes(le32(e[12:]), sockaddrSize)
	if errno != 0 {
		return 0, errno
	}
	size, addrlen, family := uint32(data4Size), uint32(16), FamilyIPv4
	if addr.Is6() {
		size, addrlen, family = data6Size, 28, FamilyIPv6
	}
	// Callers of WasmEdge's say 14 where they have 26.
	if room := le32(sa[4:]); room < data4Size || room != data4Size && room < size {
		return 0, errnoAIMEMORY
	}
	data, errno := m.bytes(le32(sa[8:]), size)
	if errno != 0 {
		return 0, errno
	}
	name, errno := m.bytes(le32(e[16:]), le32(e[20:]))
	if errno != 0 {
		return 0, errno
	}
	clear(data)
	binary.BigEndian.PutUint16(data, s.port)
	if addr.Is4() {
		ip := addr.As4()
		copy(data[2:], ip[:])
	} else {
		ip := addr.As16()
		copy(data[6:], ip[:])
	}
	put32(sa, uint32(family))
	put32(sa[4:], size)
	put32(e[20:], 0)
	if canonical != "" && flags&aiCanonName != 0 && len(name) > len(canonical) {
		copy(name, canonical+"\x00")
		put32(e[20:], uint32(len(canonical)))
	}
	put16(e, flags)
	e[2], e[3] = uint8(family), s.kind
	put32(e[4:], uint32(s.protocol))
	put32(e[8:], addrlen)
	return le32(e[24:]), 0
}
