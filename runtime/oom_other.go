//go:build !linux

package runtime

import (
	"context"
	"os"
	goruntime "runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// oomGuard knows of no kills: this is not Linux.
type oomGuard struct{}

func (*Runtime) newOOMGuard() *oomGuard { return nil }

func oomEnd(*os.File) string { return "" }

func (*oomGuard) start(context.Context) bool           { return true }
func (*oomGuard) killed(int, time.Time) (string, bool) { return "", false }
func (*oomGuard) runs(*corev1.Pod)                     {}
func (*oomGuard) gone(types.UID)                       {}
func (*oomGuard) close() error                         { return nil }

func (*oomGuard) checks() []Check { return checkOOM("") }

func checkOOM(string) []Check {
	return []Check{{Name: "kernel OOM kills", Status: "absent", Mechanism: "not on " + goruntime.GOOS}}
}
