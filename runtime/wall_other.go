//go:build !linux

package runtime

import (
	"errors"
	goruntime "runtime"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/metrics"
)

type wall struct{}

func openWall(cfg Config, _ corev1.ResourceList) (*wall, error) {
	if cfg.CgroupParent == "" {
		return nil, nil
	}
	return nil, errors.New("--cgroup-parent: there are no cgroups on " + goruntime.GOOS)
}

func (*wall) stats() *metrics.Wall { return nil }
func (*wall) close() error         { return nil }
func (*wall) checks() []Check      { return checkGroups("") }

func checkGroups(string) []Check {
	return []Check{{Name: "kernel cgroups", Status: "absent", Mechanism: "not on " + goruntime.GOOS}}
}
