//go:build !linux

package runtime

import (
	"errors"
	"net/netip"
)

// claimPodIPs fails: only on Linux is all of 127.0.0.0/8 an address of the host
// without further ado.
func claimPodIPs(netip.Prefix) (*claim, error) {
	return nil, errors.New("addresses of 127.0.0.0/8 other than 127.0.0.1 need to be configured on this system")
}
