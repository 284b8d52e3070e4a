//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const oomLimit = 24 << 20

var watched *OOMWatch // or the collector closes it

// The test binary is also a process that uses more memory than it may have.
func init() {
	if os.Getenv("BPF_TEST_DO") != "eat" {
		return
	}
	if pin := os.Getenv("BPF_TEST_PIN"); pin != "" {
		watched = WatchOOM(OOMConfig{})
		if _, err := watched.Keep(pin); err != nil {
			fmt.Println(err, watched.Missing())
			os.Exit(2)
		}
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("BPF_TEST_GROUP"), "cgroup.procs"), []byte("0"), 0); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	for eaten := [][]byte{}; len(eaten) < 256; {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
	os.Exit(1)
}

// lacking skips a test, but not in the virtual machine, which has everything.
func lacking(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("WASMPOD_TEST_VM") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// limited makes a group whose processes may have oomLimit of memory, in whatever
// hierarchy the controller is. It returns the group's directory.
func limited(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "not root")
	}
	name := fmt.Sprintf("wasmpod-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	dir, file := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if err := os.Mkdir(dir, 0o755); err != nil {
		dir, file = filepath.Join("/sys/fs/cgroup", name), "memory.max"
		if os.Getenv("WASMPOD_TEST_VM") != "" { // where that group is nobody else's
			_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			lacking(t, "groups cannot be made: ", err)
		}
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error("left behind: ", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(oomLimit)), 0); err != nil {
		lacking(t, "no memory controller: ", err)
	}
	// Swap is none of it.
	_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "memory.swappiness"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), []byte(strconv.Itoa(oomLimit)), 0)
	return dir
}

// eat runs the process until the kernel ends it.
func eat(t *testing.T, group string, env ...string) (pid int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "BPF_TEST_DO=eat", "BPF_TEST_GROUP="+group), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v: %s", err, out)
	}
	return cmd.Process.Pid
}

func inode(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestOOMKillIsAttributed(t *testing.T) {
	group := limited(t)
	for _, m := range []OOMMechanism{OOMLimit, OOMBTF, OOMRaw} {
		t.Run(m.String(), func(t *testing.T) {
			w := WatchOOM(OOMConfig{Mechanism: m})
			defer w.Close()
			if w.Mechanism() != m {
				why := errors.Join(w.Missing()...)
				if m == OOMLimit && (os.Getenv("WASMPOD_TEST_VM") == "" || errors.Is(why, errTrampolines)) {
					t.Skip("fentry is refused by some kernels: ", w.Missing()[0])
				}
				missing(t, why)
			}
			began := Now()
			pid := eat(t, group)
			k, killed := w.Killed(pid, began)
			t.Log(k.String())
			if !killed || k.PID != pid || k.Self {
				t.Fatalf("%v %+v", killed, k)
			}
			if !k.Detailed || k.Group != inode(t, group) || !strings.HasPrefix(k.Command, "exe") && !strings.HasPrefix(k.Command, "test") {
				t.Errorf("%+v, want group %d", k, inode(t, group))
			}
			// Within what the kernel's counters are off by, per processor.
			if rss := k.AnonRSS + k.FileRSS + k.ShmemRSS; k.AnonRSS < oomLimit/2 || rss > 4*oomLimit || k.TotalVM < rss {
				t.Errorf("%d bytes resident of a limit of %d: %+v", rss, oomLimit, k)
			}
			if k.LimitKnown != (m == OOMLimit) || k.LimitKnown && k.Limit != inode(t, group) {
				t.Errorf("limit of %d, want %d: %+v", k.Limit, inode(t, group), k)
			}
			if since := time.Since(k.At); since < 0 || since > time.Hour {
				t.Errorf("killed %v ago", since)
			}
			if _, again := w.Killed(pid, began); again {
				t.Error("told twice")
			}
		})
	}
	t.Run("a kill by someone else", func(t *testing.T) {
		w := WatchOOM(OOMConfig{})
		defer w.Close()
		cmd := exec.Command("/bin/false")
		cmd.Path = "/proc/self/exe"
		cmd.Env = append(os.Environ(), "BPF_TEST_DO=eat", "BPF_TEST_GROUP=/nowhere")
		_ = cmd.Run()
		if k, killed := w.Killed(cmd.Process.Pid, 0); killed {
			t.Errorf("%+v", k)
		}
	})
	t.Run("an earlier process with the same number", func(t *testing.T) {
		w := WatchOOM(OOMConfig{})
		defer w.Close()
		if w.Mechanism() == OOMNone {
			missing(t, errors.Join(w.Missing()...))
		}
		pid := eat(t, group)
		if k, killed := w.Killed(pid, Now()); killed {
			t.Errorf("%+v", k)
		}
	})
}

// What happened to a process that nobody waits for is found by the next one.
func TestOwnOOMKillIsKept(t *testing.T) {
	group := limited(t)
	bpffs := "/sys/fs/bpf"
	var st unix.Statfs_t
	if unix.Statfs(bpffs, &st) != nil || st.Type != unix.BPF_FS_MAGIC {
		bpffs = t.TempDir()
		if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
			lacking(t, "no BPF filesystem: ", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(bpffs, 0); err != nil {
				t.Error(err)
			}
		})
	}
	pin := filepath.Join(bpffs, filepath.Base(group))
	w := WatchOOM(OOMConfig{})
	if w.Mechanism() == OOMNone {
		missing(t, errors.Join(w.Missing()...))
	}
	remove, err := w.Keep(pin)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		lacking(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pin); err != nil {
		t.Error(err)
	}
	if err := errors.Join(remove(), w.Close()); err != nil {
		t.Error(err)
	}
	if _, _, err := LastOOMKill(pin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}

	pid := eat(t, group, "BPF_TEST_PIN="+pin)
	k, killed, err := LastOOMKill(pin)
	if err != nil || !killed || !k.Self || k.PID != pid || k.Group != inode(t, group) {
		t.Errorf("%v %v %+v", killed, err, k)
	}
	t.Log(k.String())
	if _, _, err := LastOOMKill(pin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pin is left: %v", err)
	}
	if _, _, err := LastOOMKill(os.DevNull); err == nil {
		t.Error("a device was taken for a pin")
	}
}
