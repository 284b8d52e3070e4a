package runtime

import (
	"cmp"
	"os"
	goruntime "runtime"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/wasmpod/wasmpod/runtime/podworker"
)

// thisNode describes the host to its pods.
func thisNode(name string) podworker.Node {
	host, _ := os.Hostname() // a host without a name has pods on "localhost"
	return podworker.Node{
		Name:   cmp.Or(name, host, "localhost"),
		HostIP: "127.0.0.1",
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(totalMemory(), resource.BinarySI),
		},
	}
}
