//go:build linux

package cgroupfs

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var touched [][]byte

// The test binary is also a process that opens a Manager and waits for its end.
func TestMain(m *testing.M) {
	if parent := os.Getenv("CGROUPFS_TEST_PARENT"); parent != "" {
		if _, err := Open(Config{Parent: parent, State: os.Getenv("CGROUPFS_TEST_STATE"), PID: os.Getpid()}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		select {}
	}
	switch os.Getenv("CGROUPFS_TEST_DO") {
	case "rootless":
		if err := rootless(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
		os.Exit(0)
	case "burn":
		for n := 0; ; n++ {
			if n%(1<<28) == 0 { // and once in a while memory that is new, up to 64 MiB
				touched = append(touched[:len(touched)%64], make([]byte, 1<<20))
				for i := 0; i < 1<<20; i += 4096 {
					touched[len(touched)-1][i] = 1
				}
			}
		}
	case "eat":
		bufio.NewReader(os.Stdin).ReadByte() // until we are in the group
		eaten := make([][]byte, 256)
		for i := range eaten {
			eaten[i] = make([]byte, 1<<20)
			for j := 0; j < len(eaten[i]); j += 4096 {
				eaten[i][j] = 1
			}
		}
		fmt.Println("nobody minds", len(eaten), "MiB")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// own makes a parent for a test, in every hierarchy that can be written.
func own(t testing.TB) (parent string, h Host) {
	t.Helper()
	h, err := Detect()
	if err != nil || h.Mode() == None {
		lacking(t, "no cgroup hierarchy is mounted")
	}
	if os.Geteuid() != 0 {
		lacking(t, "not root, and nothing is delegated to the tests")
	}
	parent = fmt.Sprintf("/wasmpod-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for hierarchy := range h.mounts {
		dir, err := h.dir(hierarchy, parent)
		if err != nil {
			lacking(t, "groups can be made in a container's only: ", err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			lacking(t, "groups cannot be made: ", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error("left behind: ", err)
			}
		})
	}
	if m, ok := h.mounts[unified]; ok { // for our parent, which a test may do and the package may not
		for _, c := range words(m.point, "cgroup.controllers") {
			if slices.Contains(controllers, c) {
				// A container's topmost group has processes, and takes none then: whoever needs
				// the controller is told.
				if err := os.WriteFile(filepath.Join(m.point, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
					t.Log(err)
				}
			}
		}
	}
	return parent, h
}

func open(t testing.TB, c Config) *Manager {
	t.Helper()
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// lacking skips a test, but not in the virtual machine, which has everything.
func lacking(t testing.TB, why ...any) {
	t.Helper()
	if os.Getenv("WASMPOD_TEST_VM") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// needs skips where the machine lacks controllers, which the virtual one has.
func needs(t *testing.T, h Host, parent string, controllers ...string) {
	t.Helper()
	by, absent := h.Controllers(parent)
	for _, c := range controllers {
		if by[c] == "" {
			lacking(t, absent[c])
		}
	}
}

// noSwap has a group's limit of memory be all that there is for it.
func noSwap(g *Group, limit int64) {
	for _, dir := range g.each() {
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(dir, "memory.swappiness"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), []byte(strconv.FormatInt(limit, 10)), 0)
	}
}

// burn uses a processor for as long as it lives.
func burn(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUPFS_TEST_DO=burn")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func end(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func TestPodGroups(t *testing.T) {
	parent, h := own(t)
	needs(t, h, parent, CPU, Memory)
	m := open(t, Config{Parent: parent, State: t.TempDir()})
	if err := m.Limit(Limits{CPUMilli: 4000, CPUShares: 2048, MemoryBytes: 4 << 30}); err != nil {
		t.Fatal(err)
	}
	if err := m.Requests(512); err != nil {
		t.Fatal(err)
	}
	for class, path := range map[corev1.PodQOSClass]string{
		corev1.PodQOSGuaranteed: "kubepods/podu-1", corev1.PodQOSBurstable: "kubepods/burstable/podu-2", corev1.PodQOSBestEffort: "kubepods/besteffort/podu-3",
	} {
		uid := path[len(path)-3:]
		g, err := m.Pod(uid, class, Limits{CPUMilli: 200, CPUShares: 204, MemoryBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range g.dirs {
			if !strings.HasSuffix(dir, path) {
				t.Errorf("%s pod lies at %s", class, dir)
			}
		}
		s, err := g.Stats()
		if err != nil || s.MemoryLimit != 64<<20 {
			t.Errorf("%+v %v", s, err)
		}
		if _, err := m.Pod(uid, class, Limits{}); !errors.Is(err, os.ErrExist) {
			t.Errorf("the same pod twice: %v", err)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	t.Run("UIDs that are paths", func(t *testing.T) {
		for _, uid := range []string{"", "..", "a/b", "../../x", "a\x00", strings.Repeat("a", 64), ".", "-a"} {
			if g, err := m.Pod(uid, corev1.PodQOSGuaranteed, Limits{}); err == nil {
				t.Errorf("%q became %v", uid, g.dirs)
			}
		}
	})
	t.Run("RES-05 a process is held to its quota", func(t *testing.T) {
		g, err := m.Pod("busy", corev1.PodQOSBurstable, Limits{CPUMilli: 200})
		if err != nil {
			t.Fatal(err)
		}
		cmd := burn(t)
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		before, _ := g.Stats()
		began := time.Now()
		// Until the kernel has refilled the quota some times, however slow the machine.
		after := before
		for deadline := time.Now().Add(5 * time.Minute); after.Throttle.Throttled < before.Throttle.Throttled+5; {
			if time.Now().After(deadline) {
				t.Fatalf("never throttled: %+v", after)
			}
			if after, err = g.Stats(); err != nil {
				t.Fatal(err)
			}
		}
		share := (after.CPU - before.CPU).Seconds() / time.Since(began).Seconds()
		t.Logf("%.3f cores of 0.2; %+v", share, after)
		if err := g.Remove(); err == nil {
			t.Error("a group with a process in it was removed")
		}
		end(cmd)
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	t.Run("OOM-01 the kernel ends what exceeds memory", func(t *testing.T) {
		g, err := m.Pod("hungry", corev1.PodQOSBurstable, Limits{MemoryBytes: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		noSwap(g, 16<<20)
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
		err = cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v", err)
		}
		if s, err := g.Stats(); err != nil || s.OOMKills == 0 {
			t.Errorf("%+v %v", s, err)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func groupsOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProcessIsMovedThereAndBack(t *testing.T) {
	parent, h := own(t)
	cmd := burn(t)
	pid := cmd.Process.Pid
	before := groupsOf(t, pid)
	state := t.TempDir()
	m, err := Open(Config{Parent: parent, State: state, PID: pid})
	if err != nil {
		t.Fatal(err)
	}
	for hierarchy, dir := range m.shared.dirs {
		if !slices.Contains(words(dir, "cgroup.procs"), strconv.Itoa(pid)) {
			t.Errorf("not in %s of %q", dir, hierarchy)
		}
	}
	if by, _ := h.Controllers(parent); by[Memory] != "" {
		if err := m.Limit(Limits{MemoryBytes: 1 << 30}); err != nil {
			t.Error(err)
		}
		s, err := m.Wall()
		// What it has from before may be charged where it was then.
		for deadline := time.Now().Add(5 * time.Minute); err == nil && s.MemoryBytes == 0 && time.Now().Before(deadline); {
			s, err = m.Wall()
		}
		if err != nil || s.MemoryLimit != 1<<30 || s.MemoryBytes == 0 {
			t.Errorf("%+v %v", s, err)
		}
	}
	if !strings.HasPrefix(m.Path(), parent+"/"+prefix) {
		t.Errorf("path %s", m.Path())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if after := groupsOf(t, pid); after != before {
		t.Errorf("was in\n%s, is in\n%s", before, after)
	}
	if left, _ := os.ReadDir(state); len(left) != 0 {
		t.Errorf("records left: %v", left)
	}
	end(cmd)
}

func TestSweep(t *testing.T) {
	parent, h := own(t)
	state := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CGROUPFS_TEST_PARENT="+parent, "CGROUPFS_TEST_STATE="+state)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatal(line)
	}
	count := func() (n int) {
		for hierarchy := range h.mounts {
			dir, err := h.dir(hierarchy, parent)
			if err != nil {
				t.Fatal(err)
			}
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if e.IsDir() {
					n++
				}
			}
		}
		return n
	}
	want := count()
	if want == 0 {
		t.Fatal("no groups")
	}
	log := slog.New(slog.DiscardHandler)
	Sweep(state, log)
	if n := count(); n != want {
		t.Fatalf("groups of a living process were removed: %d, were %d", n, want)
	}
	// Somebody else's groups, with names like ours, and a record that lies.
	var others []string
	for hierarchy := range h.mounts {
		dir, _ := h.dir(hierarchy, parent)
		other := filepath.Join(dir, prefix+"0123456789abcdef")
		if err := os.Mkdir(other, 0o755); err != nil {
			t.Fatal(err)
		}
		others = append(others, other)
		defer os.Remove(other)
	}
	liar := filepath.Join(state, prefix+"ffffffffffffffff"+recordSuffix)
	if err := os.WriteFile(liar, fmt.Appendf(nil, `{"dirs": [%q, "/", "/tmp/../etc", %q]}`, others[0], state), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, prefix+"eeeeeeeeeeeeeeee"+recordSuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	end(cmd)
	Sweep(state, log)
	if n := count(); n != len(others) {
		t.Errorf("%d groups left after kill -9, want the %d of others", n, len(others))
	}
	for _, dir := range others {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a group that is not ours was removed: %v", err)
		}
	}
	if left, _ := os.ReadDir(state); len(left) != 0 {
		t.Errorf("records left: %v", left)
	}
}

// Thousands of groups made and removed leave neither groups nor descriptors.
func TestNoLeaks(t *testing.T) {
	parent, _ := own(t)
	m := open(t, Config{Parent: parent, State: t.TempDir()})
	fds := func() int {
		list, _ := os.ReadDir("/proc/self/fd")
		return len(list)
	}
	make := func(n int) {
		for i := range n {
			g, err := m.Pod(fmt.Sprint("u", i), corev1.PodQOSBurstable, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.Stats(); err != nil {
				t.Fatal(err)
			}
			if err := g.Remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	make(1)
	before := fds()
	rounds := 2000
	if testing.Short() || os.Getenv("WASMPOD_TEST_VM") != "" {
		rounds = 50 // emulated
	}
	make(rounds)
	if after := fds(); after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
	if len(m.groups) != 0 {
		t.Errorf("%d groups are remembered", len(m.groups))
	}
	for _, dir := range m.pods.join("burstable").each() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	_, h := own(t)
	for _, parent := range []string{"", "relative", "/a/../b", "/there-is-no-such-group", "/../../etc"} {
		state := t.TempDir()
		if m, err := Open(Config{Parent: parent, State: state, Host: &h}); err == nil {
			t.Errorf("%q: %v", parent, errors.Join(errors.New("opened"), m.Close()))
		} else {
			t.Log(err)
		}
		if left, _ := os.ReadDir(state); len(left) != 0 {
			t.Errorf("%q left %v", parent, left)
		}
	}
}

func TestPathsThatVanish(t *testing.T) {
	parent, _ := own(t)
	m := open(t, Config{Parent: parent, State: t.TempDir()})
	g, err := m.Pod("gone", corev1.PodQOSGuaranteed, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.each() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Add(os.Getpid()); err == nil {
		t.Error("a process is in a group that is gone")
	}
	if _, err := g.Stats(); err != nil {
		t.Log(err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestBareGroup(t *testing.T) {
	parent, h := own(t)
	if _, ok := h.mounts[unified]; !ok {
		t.Skip("no cgroup v2 hierarchy")
	}
	cmd := burn(t)
	before := groupsOf(t, cmd.Process.Pid)
	m := open(t, Config{Parent: parent, State: t.TempDir(), PID: cmd.Process.Pid, Bare: true})
	if got, err := os.ReadFile(filepath.Join(m.Unified(), "cgroup.procs")); err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(cmd.Process.Pid) {
		t.Errorf("in the group are %q, %v", got, err)
	}
	if on := words(m.Unified(), "cgroup.subtree_control"); len(on) > 0 {
		t.Errorf("controllers are enabled: %v", on)
	}
	for hierarchy, group := range h.mounts {
		if found, _ := filepath.Glob(filepath.Join(group.point, filepath.Base(m.Unified()))); hierarchy != unified && len(found) > 0 {
			t.Errorf("there is a group of v1, too: %v", found)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if after := groupsOf(t, cmd.Process.Pid); after != before {
		t.Errorf("the process was in\n%sand is in\n%s", before, after)
	}
	if _, err := os.Stat(m.Unified()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
}
