package netwall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// MaxPods is how many pods there can be at a time. The kernel keeps 64 bytes for
// each.
const MaxPods = 16384

// Errors of this package.
var (
	// ErrFull says that there is no room for another pod, or for its policy.
	ErrFull = errors.New("no room for another pod's sockets in the kernel's tables")
	// ErrNotSupported says that this host has no such thing.
	ErrNotSupported = errors.New("programs at control groups are not supported here")
)

// Destination is a block of addresses and the ports that may be reached there. Of
// a policy the longest block that contains an address decides; an address in none
// may not be reached.
type Destination struct {
	Block netip.Prefix // an IPv4 address is in no IPv6 block
	// TCP and UDP are ranges of ports, first and last, in order and apart.
	TCP, UDP [][2]uint16
}

// Stats is what the kernel has counted for a pod.
type Stats struct {
	// Checked connections, bindings and datagrams to an address of their own; and how
	// many of them were refused.
	Checked, Denied uint64
	// Packets of all its sockets, and their bytes with the headers of IP.
	RxBytes, RxPackets, TxBytes, TxPackets uint64
}

// What the kernel's tables hold: see wall.c.
type (
	mark struct {
		Slot, Generation, Kind, Port uint32
		Addr                         [16]byte
	}
	destinationKey struct {
		PrefixLen, Policy uint32
		Addr              [16]byte
	}
	portKey struct {
		PrefixLen, Policy uint32
		Set               uint16
		Protocol, Zero    uint8
		Port              [2]byte
		Unused            uint16
	}
)

const (
	dialer   = 1
	listener = 2

	nothing  = 0
	anything = 1
	firstSet = 2

	protocolTCP = 6
	protocolUDP = 17
)

// entries are a policy's part of the tables, in the order in which they are put
// there: an address gets no wider an answer meanwhile than in the end. In the
// other order they are removed.
type entries struct {
	ports        []portKey
	destinations []destinationKey
	sets         []uint32 // of destinations
}

// encode makes entries of a policy, for the policy of number 0.
func encode(policy []Destination) (e entries, err error) {
	numbers := map[string]uint32{} // by ports
	policy = slices.Clone(policy)
	// The longest first.
	slices.SortStableFunc(policy, func(a, b Destination) int { return length(b.Block) - length(a.Block) })
	for _, d := range policy {
		if !d.Block.IsValid() || d.Block.Addr().Is4In6() {
			return e, fmt.Errorf("%v is no block of addresses", d.Block)
		}
		tcp, udp := portPrefixes(d.TCP), portPrefixes(d.UDP)
		set := uint32(firstSet + len(numbers))
		switch all := []portPrefix{{}}; {
		case len(tcp)+len(udp) == 0:
			set = nothing
		case slices.Equal(tcp, all) && slices.Equal(udp, all):
			set = anything
		default:
			text := fmt.Sprint(tcp, udp)
			if had, ok := numbers[text]; ok {
				set = had
				break
			}
			if set > 0xffff {
				return e, ErrFull
			}
			numbers[text] = set
			for _, p := range tcp {
				e.ports = append(e.ports, p.key(set, protocolTCP))
			}
			for _, p := range udp {
				e.ports = append(e.ports, p.key(set, protocolUDP))
			}
		}
		e.destinations = append(e.destinations, destinationKey{PrefixLen: uint32(32 + length(d.Block)), Addr: d.Block.Masked().Addr().As16()})
		e.sets = append(e.sets, set)
	}
	// An IPv6 block may contain the mapped form of IPv4, of which it does not speak.
	mapped := destinationKey{PrefixLen: 32 + 96, Addr: netip.IPv4Unspecified().As16()}
	if !slices.Contains(e.destinations, mapped) {
		i := slices.IndexFunc(e.destinations, func(k destinationKey) bool { return k.PrefixLen < mapped.PrefixLen })
		if i >= 0 {
			e.destinations, e.sets = slices.Insert(e.destinations, i, mapped), slices.Insert(e.sets, i, nothing)
		}
	}
	return e, nil
}

// length is that of a block in the IPv6 form.
func length(block netip.Prefix) int {
	if block.Addr().Is4() {
		return 96 + block.Bits()
	}
	return block.Bits()
}

// portPrefix are the ports whose first bits are those of first.
type portPrefix struct {
	first uint16
	bits  int
}

func (p portPrefix) key(set uint32, protocol uint8) portKey {
	k := portKey{PrefixLen: uint32(64 + p.bits), Set: uint16(set), Protocol: protocol}
	binary.BigEndian.PutUint16(k.Port[:], p.first)
	return k
}

// portPrefixes are the fewest that make up ranges.
func portPrefixes(ranges [][2]uint16) (out []portPrefix) {
	for _, r := range ranges {
		for low, high := int(r[0]), int(r[1]); low <= high; {
			size := 1 << 16
			for size > high-low+1 || low%size != 0 {
				size >>= 1
			}
			bits := 16
			for s := size; s > 1; s >>= 1 {
				bits--
			}
			out = append(out, portPrefix{uint16(low), bits})
			low += size
		}
	}
	return out
}

// newMark is the mark of a socket that is to be bound at an address; the zero
// AddrPort: of one that is not.
func newMark(slot, generation uint32, at netip.AddrPort) mark {
	m := mark{Slot: slot, Generation: generation, Kind: dialer}
	if at.IsValid() {
		var port [2]byte
		binary.BigEndian.PutUint16(port[:], at.Port())
		m.Kind, m.Port, m.Addr = listener, uint32(binary.NativeEndian.Uint16(port[:])), at.Addr().As16()
	}
	return m
}
