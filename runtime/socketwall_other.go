//go:build !linux

package runtime

import "github.com/wasmpod/wasmpod/cgroup/netwall"

func socketGroup(Config, *wall, int) (dir string, leave func() error, err error) {
	return "", nil, netwall.ErrNotSupported
}
