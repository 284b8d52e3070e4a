package hostile

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

const secret = "the host's secret"

// withVolume mounts a host directory at /v.
func withVolume(pod *corev1.Pod, host string) *corev1.Pod {
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	pod.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	return pod
}

// outside makes a directory beside the shared volume, which no guest has.
func (n *node) outside(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(n.dir, "outside")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestEscape has one guest change a volume's tree while another tries to leave
// the volume through it.
func TestEscape(t *testing.T) {
	image := wasmtest.BuildGo(t, "testdata/bomb")
	n := newNode(t)
	outside := n.outside(t)
	before, err := os.Stat(filepath.Join(outside, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	mutator, err := n.start(t.Context(), withVolume(newPod("mutator", image, "mutate", outside, outside+"/secret"), n.shared))
	if err != nil {
		t.Fatal(err)
	}
	rounds := 3000
	if testing.Short() || raceEnabled {
		rounds = 100
	}
	attacker, err := n.start(t.Context(), withVolume(newPod("attacker", image, "attack", strconv.Itoa(rounds)), n.shared))
	if err != nil {
		t.Fatal(err)
	}
	<-attacker.container.Done()
	if s := attacker.container.Status(); s.Code != 0 {
		t.Errorf("the attacker: %+v", s)
	}
	mutator.container.Kill()
	<-mutator.container.Done()
	if s := mutator.container.Status(); s.Code != 137 {
		t.Errorf("the mutator: %+v", s)
	}
	for _, r := range []*running{mutator, attacker} {
		if err := r.remove(); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside there are now %v (%v)", entries, err)
	}
	after, err := os.Stat(filepath.Join(outside, "secret"))
	if err != nil || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		t.Errorf("the secret was changed: %v, %v", after, err)
	}
}

// TestEscapeThroughProc mounts the host's /proc, whose links lead anywhere
// without saying so.
func TestEscapeThroughProc(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: only Linux has /proc")
	}
	n := newNode(t)
	outside := n.outside(t)
	pod := withVolume(newPod("proc", wasmtest.BuildGo(t, "testdata/bomb"), "proc", outside+"/secret", "/etc/passwd"), "/proc")
	r, err := n.start(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	<-r.container.Done()
	if s := r.container.Status(); s.Code != 0 {
		t.Errorf("%+v", s)
	}
	if err := r.remove(); err != nil {
		t.Error(err)
	}
}
