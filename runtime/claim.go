package runtime

import (
	"net/netip"
)

// claim is a part of the range of pod IPs that this Runtime alone uses on this
// host, so that the addresses of two runs do not meet where they are bound.
type claim struct {
	prefix  netip.Prefix
	release func() error
}

// Close gives the part back.
func (c *claim) Close() error { return c.release() }

// claimBits is the size of a part: 65,534 pods.
const claimBits = 16
