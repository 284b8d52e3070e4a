//go:build linux && (amd64 || arm64)

package netwall

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// allows is what a policy means: the longest block decides.
func allows(policy []Destination, udp bool, at netip.AddrPort) bool {
	addr := at.Addr().Unmap()
	best := Destination{Block: netip.PrefixFrom(addr, 0)}
	for _, d := range policy {
		if d.Block.Contains(addr) && d.Block.Bits() >= best.Block.Bits() {
			best = d
		}
	}
	ports := best.TCP
	if udp {
		ports = best.UDP
	}
	return slices.ContainsFunc(ports, func(r [2]uint16) bool { return r[0] <= at.Port() && at.Port() <= r[1] })
}

func somePolicy(r *rand.Rand) []Destination {
	blocks := map[netip.Prefix]Destination{}
	ranges := func() (out [][2]uint16) {
		if r.IntN(4) == 0 {
			return [][2]uint16{{0, 65535}}
		}
		for low, n := 0, r.IntN(4); n > 0 && low < 65000; n-- {
			low += 1 + r.IntN(300)
			high := low + r.IntN(1<<r.IntN(15))
			out = append(out, [2]uint16{uint16(low), uint16(min(high, 65535))})
			low = high + 2
		}
		return out
	}
	for range r.IntN(20) {
		addr := someAddress(r)
		block := netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1)).Masked()
		if r.IntN(3) == 0 {
			block = netip.PrefixFrom(addr, addr.BitLen())
		}
		if !block.Addr().Is4In6() {
			blocks[block] = Destination{Block: block, TCP: ranges(), UDP: ranges()}
		}
	}
	var policy []Destination
	for _, d := range blocks {
		policy = append(policy, d)
	}
	return policy
}

// someAddress is one of few, so that policies have it.
func someAddress(r *rand.Rand) netip.Addr {
	first := [][]byte{{127}, {10}, {192, 168}, {0x20, 0x01}, {0xfd}, {0}}[r.IntN(6)]
	b := make([]byte, map[bool]int{true: 4, false: 16}[first[0] >= 10 && first[0] != 0x20 && first[0] != 0xfd])
	copy(b, first)
	b[len(b)-1] = byte(r.IntN(4))
	b[len(b)-2] = byte(r.IntN(2))
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func somePort(r *rand.Rand) uint16 {
	return uint16([]int{0, 1, r.IntN(1000), r.IntN(65536), 65535}[r.IntN(5)])
}

// The programs' verdicts are those of the policies, for any address: a datagram
// socket can be connected everywhere without a packet being sent.
func TestVerdictsOfSockets(t *testing.T) {
	w := open(t)
	p := newPod(t, w)
	r := rand.New(rand.NewPCG(5, 6))
	fds := map[int]int{unix.AF_INET: socket(t, p, unix.AF_INET, unix.SOCK_DGRAM), unix.AF_INET6: socket(t, p, unix.AF_INET6, unix.SOCK_DGRAM)}
	verdicts := [2]int{}
	for range 100 {
		policy := somePolicy(r)
		if err := p.SetPolicy(policy); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			at := netip.AddrPortFrom(someAddress(r), max(somePort(r), 1))
			want := allows(policy, true, at)
			verdicts[map[bool]int{true: 1}[want]]++
			for family, fd := range fds {
				if family == unix.AF_INET && !at.Addr().Is4() {
					continue
				}
				unconnect(fd)
				// Where there is no way to the address the error is another one.
				err := unix.Connect(fd, sockaddr(family, at))
				if got := !errors.Is(err, unix.EPERM); got != want {
					t.Fatalf("connect to %v (family %d): %v; the policy says %v\n%v", at, family, err, want, policy)
				}
				if !at.Addr().Is4() || !at.Addr().IsLoopback() {
					continue
				}
				unconnect(fd)
				err = unix.Sendto(fd, nil, 0, sockaddr(family, at))
				if got := !errors.Is(err, unix.EPERM); got != want {
					t.Fatalf("send to %v (family %d): %v; the policy says %v\n%v", at, family, err, want, policy)
				}
			}
		}
	}
	if verdicts[0] < 300 || verdicts[1] < 300 {
		t.Errorf("refused, allowed: %v", verdicts)
	}
}

// The same by running a program on questions, TCP included.
func TestVerdicts(t *testing.T) {
	w := open(t)
	spec, err := loadWall()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != wallProgVerdict {
			delete(spec.Programs, name)
		}
	}
	delete(spec.Maps, wallMapSockets)
	delete(spec.Maps, wallMapPods)
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{wallMapDestinations: w.destinations, wallMapPorts: w.ports},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(policy uint32, protocol byte, at netip.AddrPort) bool {
		q := make([]byte, 14, 64)
		q = append(q, byte(policy), byte(policy>>8), byte(policy>>16), byte(policy>>24), protocol, 0, 0, 0)
		addr := at.Addr().As16()
		q = append(append(q, addr[:]...), byte(at.Port()>>8), byte(at.Port()), 0, 0)
		got, err := c.Programs[wallProgVerdict].Run(&ebpf.RunOptions{Data: q})
		if err != nil || got > 1 {
			t.Fatal(got, err)
		}
		return got == 1
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 60 {
		policy := somePolicy(r)
		p, err := w.NewPod(policy)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			at := netip.AddrPortFrom(someAddress(r), somePort(r))
			for _, protocol := range []byte{protocolTCP, protocolUDP} {
				if got, want := ask(p.policy.id, protocol, at), allows(policy, protocol == protocolUDP, at); got != want {
					t.Fatalf("protocol %d to %v: the program says %v\n%v", protocol, at, got, policy)
				}
			}
			if ask(p.policy.id, 132, at) || ask(0, protocolTCP, at) {
				t.Fatal("allowed by no policy")
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
