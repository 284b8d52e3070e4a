package runtime

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// claimPodIPs takes a free part of a range. What says that it is taken is a
// socket with an abstract name: it belongs to the kernel's network namespace, as
// loopback does, whoever the user is, and is gone with the process.
func claimPodIPs(of netip.Prefix) (*claim, error) {
	for prefix := netip.PrefixFrom(of.Masked().Addr(), claimBits); of.Contains(prefix.Addr()); {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@wasmpod/pods/" + prefix.String(), Net: "unix"})
		if err == nil {
			return &claim{prefix: prefix, release: l.Close}, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		b := prefix.Addr().As4()
		b[1]++ // the next /16
		prefix = netip.PrefixFrom(netip.AddrFrom4(b), claimBits)
	}
	return nil, fmt.Errorf("every part of %s is in use by another run", of)
}
