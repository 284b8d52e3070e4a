//go:build linux

package cgroupfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestMemoryGroups(t *testing.T) {
	parent, h := own(t)
	needs(t, h, parent, Memory)
	m := open(t, Config{Parent: parent, State: t.TempDir()})
	pod, err := m.Pod("hungry", corev1.PodQOSBurstable, Limits{MemoryBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	noSwap(pod, 16<<20)
	hierarchy := unified
	if pod.dirs[Memory] != "" {
		hierarchy = Memory
	}
	dir := pod.dirs[hierarchy]
	inside := h
	inside.own = map[string]string{hierarchy: filepath.Join(h.mounts[hierarchy].root, dir[len(h.mounts[hierarchy].point):])}
	groups, err := inside.MemoryGroups()
	if err != nil {
		t.Fatal(err)
	}
	// pod, burstable, kubepods, ours, its parent, the root
	if len(groups) != 6 || groups[0].Dir != dir || groups[3].Dir != m.top.dirs[hierarchy] || groups[5].Dir != h.mounts[hierarchy].point || groups[4].Path != parent {
		t.Fatalf("%v", groups)
	}
	g := groups[0]
	if g.Limit() != 16<<20 || groups[1].Limit() != 0 {
		t.Errorf("limits %d, %d", g.Limit(), groups[1].Limit())
	}
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Errorf("%d kills, %v", n, err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUPFS_TEST_DO=eat")
	start, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := pod.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	start.Close()
	_ = cmd.Wait()
	if n, err := g.OOMKills(); err != nil || n != 1 {
		t.Errorf("%d kills, %v", n, err)
	}
	if n, err := groups[1].OOMKills(); err != nil || n != 0 {
		t.Errorf("%d kills in the group around it, %v", n, err)
	}
	if err := pod.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.OOMKills(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a group that is gone: %v", err)
	}
	again, err := m.Pod("hungry", corev1.PodQOSBurstable, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.OOMKills(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of another group in its place: %d, %v", n, err)
	}
	if err := again.Remove(); err != nil {
		t.Error(err)
	}
}
