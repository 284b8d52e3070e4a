package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/cgroup/cgroupfs"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// The test binary is also a process that the kernel lets have little memory.
func init() {
	if what := os.Getenv("RUNTIME_TEST_DO"); what != "" {
		if err := runShort(what); err != nil {
			fmt.Println(err)
		}
		os.Exit(1)
	}
}

// runShort opens a Runtime, in a wall of its own where it is told of a parent,
// and then compiles what takes more memory than there is, or takes it itself.
func runShort(what string) error {
	group := os.Getenv("RUNTIME_TEST_GROUP")
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if !strings.Contains(what, "watched") {
		oomWatch = func() *bpf.OOMWatch { return bpf.WatchOOM(bpf.OOMConfig{Mechanism: bpf.OOMNone}) }
	}
	watching := make(chan struct{})
	failed := make(chan string, 100)
	r, err := Open(context.Background(), Config{
		DataDir: os.Getenv("RUNTIME_TEST_DATA"), CgroupParent: os.Getenv("RUNTIME_TEST_PARENT"), EvictBelow: 0,
		Log: slog.New(tellTale{slog.DiscardHandler, watching, new(sync.Once)}),
		OnProgress: func(_ *corev1.Pod, f lifecycle.Fact) {
			switch f := f.(type) {
			case lifecycle.ContainerStartFailed:
				failed <- f.Reason + ": " + f.Message
			case lifecycle.ContainerExited:
				failed <- fmt.Sprintf("ended with %d", f.ExitCode)
			}
		},
	})
	if err != nil {
		return err
	}
	if strings.Contains(what, "watched") {
		<-watching
	}
	if strings.HasPrefix(what, "eat") {
		for eaten := [][]byte{}; len(eaten) < 1024; {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			eaten = append(eaten, b)
		}
		return errors.New("nobody minds")
	}
	objects, err := manifest.Parse("", manifest.Source{Name: "test", Data: []byte(strings.ReplaceAll(
		`{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never, containers: [{name: c, image: BOMB}]}}`,
		"BOMB", os.Getenv("RUNTIME_TEST_MODULE")))})
	if err != nil {
		return err
	}
	if err := r.Apply(objects); err != nil {
		return err
	}
	fmt.Println(<-failed)
	if c, err := confinement(); err == nil && c.Denied() != 0 {
		fmt.Println("the compiler was refused", c.Denied(), "things that it needs")
	}
	adj, err := os.ReadFile(oomScoreFile)
	fmt.Printf("oom_score_adj %s", adj)
	return errors.Join(err, r.Close())
}

// tellTale closes a channel when it is told that kills are attributed.
type tellTale struct {
	slog.Handler
	watching chan struct{}
	once     *sync.Once // more can become known later
}

func (h tellTale) Enabled(context.Context, slog.Level) bool { return true }

func (h tellTale) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.String() == oomCheckName {
			h.once.Do(func() { close(h.watching) })
		}
		return true
	})
	return nil
}

// lacking skips a test, but not in the virtual machine, which has everything.
func lacking(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("WASMPOD_TEST_VM") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// memoryGroup makes a group that may have so much memory.
func memoryGroup(t *testing.T, limit int) (dir, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "not root")
	}
	path = fmt.Sprintf("/wasmpod-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	file := "memory.limit_in_bytes"
	root := "/sys/fs/cgroup/memory"
	if _, err := os.Stat(root); err != nil {
		root, file = "/sys/fs/cgroup", "memory.max"
		if os.Getenv("WASMPOD_TEST_VM") != "" { // where that group is nobody else's
			_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory +cpu"), 0)
		}
	}
	dir = filepath.Join(root, path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		lacking(t, "groups cannot be made: ", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error("left behind: ", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0); err != nil {
		lacking(t, "no memory controller: ", err)
	}
	// Swap is none of it.
	_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "memory.swappiness"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0)
	return dir, path
}

// oomKills is how many of a group's processes the kernel has killed.
func oomKills(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	n, err := cgroupfs.MemoryGroup{Dir: dir, ID: st.Ino}.OOMKills()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOOMKills(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("starts processes with little memory, which the race detector takes for itself")
	}
	const limit = 192 << 20
	section := func(id byte, body string) string { return string(id) + string(uleb(len(body))) + body }
	modules := t.TempDir()
	// Signatures as wide as the second one are compiled by a process of their own.
	const types = "\x02\x60\x00\x00\x60\x40"
	write := func(name string, n int) string {
		code := "\x00" + strings.Repeat("\x41\x00\x41\x00\x28\x02\x00\x36\x02\x00", n) + "\x0b"
		path := filepath.Join(modules, name)
		if err := os.WriteFile(path, []byte("\x00asm\x01\x00\x00\x00"+
			section(1, types+strings.Repeat("\x7f", 64)+"\x00")+section(3, "\x01\x00")+section(5, "\x01\x00\x01")+
			section(7, "\x01\x06_start\x00\x00")+section(10, "\x01"+string(uleb(len(code)))+code)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// More than 4 MiB have more time: it is to run out of memory, however slow the machine.
	// And the other is small, to be compiled in time.
	bomb, small := write("bomb.wasm", 440_000), write("small.wasm", 100)
	watched := bpf.WatchOOM(bpf.OOMConfig{})
	attributed, exact := watched.Mechanism() != bpf.OOMNone, watched.Mechanism() == bpf.OOMLimit
	_ = watched.Close()
	run := func(t *testing.T, what, data, group, parent, module string) (string, *exec.ExitError) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "RUNTIME_TEST_DO="+what, "RUNTIME_TEST_DATA="+data, "RUNTIME_TEST_GROUP="+group,
			"RUNTIME_TEST_PARENT="+parent, "RUNTIME_TEST_MODULE="+module)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("%v: %s%s", exit, out, exit.Stderr)
		return string(out), exit
	}
	// compile tries again where the kernel has killed this process with its compiler: once
	// the last thread of a victim is on its way out the kernel passes over it, although that
	// thread has yet to give its memory back, and kills whoever asks for memory then.
	compile := func(t *testing.T, what, module string, limit int) (out, group string) {
		t.Helper()
		for range 5 {
			dir, path := memoryGroup(t, limit)
			out, exit := run(t, what, t.TempDir(), dir, "", module)
			if !exit.Sys().(syscall.WaitStatus).Signaled() {
				return out, path
			}
			n := oomKills(t, dir)
			if t.Logf("the kernel has killed %d in %s", n, path); n == 0 {
				t.Fatal("it was somebody else")
			}
		}
		t.Fatal("the kernel kills wasmpod with its compiler, each time")
		return "", ""
	}
	for _, what := range []string{"compile", "compile watched"} {
		t.Run("the compiler's process, "+what, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(what, "watched") && !attributed {
				lacking(t, "no BPF: ", errors.Join(watched.Missing()...))
			}
			out, path := compile(t, what, bomb, limit)
			want := "the kernel has killed it for want of memory: it counts one more OOM kill in cgroup " + path
			if strings.Contains(what, "watched") {
				want = "of memory: Killed process "
			}
			if !strings.Contains(out, "the compiler was ended: the kernel has killed it for want of memory") || !strings.Contains(out, want) {
				t.Errorf("want %q", want)
			}
			if strings.Contains(out, "was refused") {
				t.Error("the compiler is not given what it needs")
			}
			if exact && strings.Contains(what, "watched") && !strings.Contains(out, ", by the limit of cgroup "+path+" (192Mi): Memory cgroup out of memory: Killed process") {
				t.Error("whose limit it was is not told")
			}
		})
	}
	t.Run("a compiler that is confined and watched compiles", func(t *testing.T) {
		t.Parallel()
		if out, _ := compile(t, "compile", small, 4*limit); !strings.HasPrefix(out, "ended with 0\n") || strings.Contains(out, "refused") {
			t.Error(out)
		}
	})
	for _, c := range []struct {
		what string
		wall bool
	}{{"eat", false}, {"eat", true}, {"eat watched", true}} {
		t.Run(fmt.Sprintf("this process, %s, wall %v", c.what, c.wall), func(t *testing.T) {
			t.Parallel()
			group, path := memoryGroup(t, limit)
			data, parent := t.TempDir(), ""
			if c.wall {
				parent = path
				if other, err := unifiedToo(t, path); err != nil {
					lacking(t, err)
				} else if other != "" {
					t.Cleanup(func() { os.Remove(other) })
				}
			}
			if _, exit := run(t, c.what, data, group, parent, bomb); exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatal(exit)
			}
			var events []string
			r, err := Open(t.Context(), Config{DataDir: data, OnEvent: func(e *corev1.Event) { events = append(events, e.Reason+" "+e.Message) }})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			t.Log(events)
			want := "OOMKilling the kernel may have killed an earlier wasmpod"
			var fs unix.Statfs_t
			switch pinned := unix.Statfs(bpffs, &fs) == nil && fs.Type == unix.BPF_FS_MAGIC; {
			case pinned && attributed && strings.Contains(c.what, "watched"):
				want = "OOMKilling the kernel has killed an earlier wasmpod for want of memory"
			case c.wall:
				want = "OOMKilling the kernel has killed an earlier wasmpod (process "
			}
			if len(events) != 1 || !strings.HasPrefix(events[0], want) {
				t.Errorf("want %q", want)
			}
			cgroupfs.Sweep(filepath.Join(data, "cgroups"), slog.New(slog.DiscardHandler))
		})
	}
	t.Run("kill -9 by somebody else", func(t *testing.T) {
		t.Parallel()
		var data string
		for attempts := 0; ; attempts++ {
			group, _ := memoryGroup(t, limit)
			data = t.TempDir()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "RUNTIME_TEST_DO=compile", "RUNTIME_TEST_DATA="+data, "RUNTIME_TEST_GROUP="+group, "RUNTIME_TEST_MODULE="+bomb)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Its compiler was killed by the kernel, it was not, or see compile.
			line, err := bufio.NewReader(out).ReadString('\n')
			cmd.Process.Kill()
			_ = cmd.Wait()
			if err == nil {
				break
			}
			n := oomKills(t, group)
			if t.Logf("%s%v, and the kernel has killed %d", line, err, n); n == 0 || attempts == 4 {
				t.FailNow()
			}
		}
		r, err := Open(t.Context(), Config{DataDir: data, OnEvent: func(e *corev1.Event) { t.Errorf("%s: %s", e.Reason, e.Message) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// unifiedToo makes the group in the other hierarchies, as a parent has to be in
// those that are used.
func unifiedToo(t *testing.T, path string) (string, error) {
	t.Helper()
	const hybrid = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(hybrid); err != nil {
		return "", nil
	}
	dir := filepath.Join(hybrid, path)
	return dir, os.Mkdir(dir, 0o755)
}

func uleb(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func TestOOM04ProcessIsWorthItsPods(t *testing.T) {
	began, err := os.ReadFile(oomScoreFile)
	if err != nil {
		t.Fatal(err)
	}
	now := func() string {
		b, err := os.ReadFile(oomScoreFile)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	defer os.WriteFile(oomScoreFile, began, 0)
	// Whoever may not go below where it began can go there from above.
	if err := os.WriteFile(oomScoreFile, []byte("900"), 0); err != nil {
		t.Fatal(err)
	}
	s := newOOMScore(slog.New(slog.DiscardHandler), 1<<30)
	objects, err := manifest.Parse("", manifest.Source{Name: "test", Data: []byte(`
{apiVersion: v1, kind: Pod, metadata: {name: best-effort}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: burstable}, spec: {containers: [{name: c, image: i, resources: {requests: {memory: 512Mi}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: again}, spec: {containers: [{name: c, image: i, resources: {requests: {memory: 512Mi}}}]}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	step := func(want string, do func()) {
		t.Helper()
		if do(); now() != want {
			t.Errorf("oom_score_adj is %s, want %s", now(), want)
		}
	}
	for _, p := range objects.Pods {
		p.UID = types.UID("uid-" + p.Name)
	}
	p := objects.Pods
	step("900", func() { s.runs(p[0]) }) // never above where it began
	step("500", func() { s.runs(p[1]) })
	step("500", func() { s.runs(p[2]); s.runs(p[2]) })
	step("500", func() { s.gone(p[1].UID) })
	step("900", func() { s.gone(p[2].UID); s.gone(p[2].UID) })
	step("500", func() { s.runs(p[1]) })
	step("900", s.close)
	var none *oomScore
	none.runs(p[0])
	none.gone(p[0].UID)
	none.close()
}
