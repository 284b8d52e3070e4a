//go:build !linux

package runtime

import "github.com/wasmpod/wasmpod/cgroup/netwall"

func newSocketGroup(Config, *wall) (socketGroup, error) {
	return socketGroup{}, netwall.ErrNotSupported
}
