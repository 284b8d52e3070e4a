//go:build linux

package cgroupfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAbsurdLimits(t *testing.T) {
	parent, h := own(t)
	needs(t, h, parent, CPU, Memory)
	m := open(t, Config{Parent: parent, State: t.TempDir()})
	for _, c := range []struct {
		limits Limits
		memory int64 // what the kernel has then
		ok     bool
	}{
		{Limits{}, 0, true},
		{Limits{CPUMilli: -1}, 0, false},
		{Limits{CPUShares: -1}, 0, false},
		{Limits{MemoryBytes: -1}, 0, false},
		{Limits{CPUMilli: math.MinInt64, CPUShares: math.MinInt64, MemoryBytes: math.MinInt64}, 0, false},
		{Limits{CPUMilli: 1}, 0, true},
		{Limits{CPUMilli: 1_000_000_000}, 0, true},
		{Limits{CPUMilli: 100_000_000_000_000}, 0, true},
		{Limits{CPUMilli: math.MaxInt64}, 0, true},
		{Limits{CPUShares: 1}, 0, true},
		{Limits{CPUShares: math.MaxInt64}, 0, true},
		{Limits{MemoryBytes: math.MaxInt64}, 0, true},
		{Limits{MemoryBytes: math.MaxInt64 - 4096}, 0, true},
		{Limits{MemoryBytes: 4097}, 4096, true},
	} {
		t.Run(fmt.Sprintf("%+v", c.limits), func(t *testing.T) {
			g, err := m.Pod("absurd", corev1.PodQOSBurstable, c.limits)
			if (err == nil) != c.ok {
				t.Fatalf("%v", err)
			}
			if err != nil {
				if len(m.groups) != 0 {
					t.Error("it is remembered")
				}
				return
			}
			if s, err := g.Stats(); err != nil || s.MemoryLimit != c.memory {
				t.Errorf("%+v %v", s, err)
			}
			if err := g.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("less than is in use, then less than the pods within have", func(t *testing.T) {
		g, err := m.Pod("big", corev1.PodQOSBurstable, Limits{MemoryBytes: 1 << 40, CPUMilli: 1000})
		if err != nil {
			t.Fatal(err)
		}
		// Whole smaller than its parts: the kernel takes the least.
		if err := m.Limit(Limits{MemoryBytes: 16 << 20, CPUMilli: 100}); err != nil {
			t.Log("the kernel refuses it: ", err) // v1 does for cpu, and nothing has changed then
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "CGROUPFS_TEST_DO=eat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if err := m.Limit(Limits{MemoryBytes: 16 << 20}); err != nil {
			t.Error(err)
		}
		noSwap(m.pods, 16<<20)
		noSwap(g, 1<<40)
		in.Close()
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v", err)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
}

// Somebody removes groups of ours while we use them.
func TestTreeThatVanishes(t *testing.T) {
	parent, _ := own(t)
	state := t.TempDir()
	m, err := Open(Config{Parent: parent, State: state})
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.Pod("one", corev1.PodQOSBurstable, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.top.rmdir(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Pod("two", corev1.PodQOSBurstable, Limits{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a pod in groups that are gone: %v", err)
	}
	if _, err := m.Pod("three", corev1.PodQOSGuaranteed, Limits{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a pod in groups that are gone: %v", err)
	}
	if err := g.Set(Limits{CPUMilli: 100, MemoryBytes: 1 << 30}); err == nil {
		t.Error("a group that is gone has limits")
	}
	if _, err := m.Wall(); err != nil {
		t.Log(err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	// The controllers that were enabled in it are gone with it.
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(state); len(left) != 0 {
		t.Errorf("records left: %v", left)
	}
}

// Pods come and go from everywhere while the end comes.
func TestPodsWhileClosing(t *testing.T) {
	parent, h := own(t)
	m, err := Open(Config{Parent: parent, State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	started := make(chan struct{}, 8)
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				g, err := m.Pod(fmt.Sprintf("p%d-%d", i, n), corev1.PodQOSBestEffort, Limits{})
				if err != nil {
					if !errors.Is(err, os.ErrClosed) && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
					return
				}
				if n == 5 {
					started <- struct{}{}
				}
				if err := g.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for hierarchy := range h.mounts {
		dir, err := h.dir(hierarchy, parent)
		if err != nil {
			t.Fatal(err)
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}
