//go:build linux

package cgroupfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// rootless is what the test binary does as another user, in a group that is
// delegated to it.
func rootless() (err error) {
	m, err := Open(Config{Parent: Auto, State: os.Getenv("CGROUPFS_TEST_STATE"), PID: os.Getpid()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	limits := Limits{CPUMilli: 500, MemoryBytes: 256 << 20}
	if err := m.Limit(limits); err != nil {
		return err
	}
	g, err := m.Pod("1", corev1.PodQOSBurstable, Limits{CPUMilli: 100, MemoryBytes: 64 << 20})
	if err != nil {
		return err
	}
	s, err := g.Stats()
	if err == nil && s.MemoryLimit != 64<<20 {
		err = fmt.Errorf("the pod's limit is %d", s.MemoryLimit)
	}
	return errors.Join(err, g.Remove())
}

// A user to whom a group is delegated, as systemd does with Delegate=yes, has the
// whole wall in it, and leaves it as it was.
func TestDelegatedToAnotherUser(t *testing.T) {
	parent, h := own(t)
	if h.Mode() != V2 {
		t.Skipf("hierarchy: %s; a user is given groups of cgroup v2 only", h.Mode())
	}
	needs(t, h, parent, CPU, Memory)
	const user = 1000
	dir, err := h.dir(unified, parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(dir, name), user, user); err != nil {
			t.Fatal(err)
		}
	}
	state, err := os.MkdirTemp("", "delegated")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	if err := os.Chown(state, user, user); err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUPFS_TEST_DO=rootless", "CGROUPFS_TEST_STATE="+state)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Fatalf("%v: %s", err, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Error("left behind: ", e.Name())
		}
	}
	if on := words(dir, "cgroup.subtree_control"); len(on) != 0 {
		t.Errorf("controllers are still on: %v", on)
	}
}

// The same in a service of systemd's that has Delegate=yes and a user of its own.
func TestDelegatedBySystemd(t *testing.T) {
	if os.Getenv("WASMPOD_TEST_SYSTEMD") == "" {
		t.Skip("systemd has not started this: make test-vm has it do so")
	}
	if os.Geteuid() == 0 {
		t.Fatal("this is root")
	}
	h, err := Detect()
	if err != nil || h.Mode() != V2 {
		t.Fatal(h.Mode(), err)
	}
	before := groupsOf(t, os.Getpid())
	dir, err := h.Unified()
	if err != nil {
		t.Fatal(err)
	}
	by, absent := h.Controllers(Auto)
	if by[CPU] != V2 || by[Memory] != V2 {
		t.Fatalf("in %s: %v", dir, absent)
	}
	if by, absent := h.Controllers(filepath.Dir(h.own[unified])); len(by) != 0 {
		t.Errorf("%v are delegated around it, too", by)
	} else {
		t.Log(absent)
	}
	t.Setenv("CGROUPFS_TEST_STATE", t.TempDir())
	if err := rootless(); err != nil {
		t.Fatal(err)
	}

	m, err := Open(Config{Parent: Auto, State: t.TempDir(), PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if inside := groupsOf(t, os.Getpid()); !strings.HasPrefix(inside, strings.TrimSpace(before)+"/"+prefix) {
		t.Errorf("was in %s, is in %s", before, inside)
	}
	g, err := m.Pod("hungry", corev1.PodQOSBurstable, Limits{MemoryBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
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
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	start.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", err)
	}
	if s, err := g.Stats(); err != nil || s.OOMKills != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if err := errors.Join(g.Remove(), m.Close()); err != nil {
		t.Error(err)
	}
	if after := groupsOf(t, os.Getpid()); after != before {
		t.Errorf("was in %s, is in %s", before, after)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Error("left behind: ", e.Name())
		}
	}
	if on := words(dir, "cgroup.subtree_control"); len(on) != 0 {
		t.Errorf("controllers are still on: %v", on)
	}
}
