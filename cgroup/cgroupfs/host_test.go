//go:build linux

package cgroupfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"

	"github.com/wasmpod/wasmpod/cgroup"
)

const (
	mountsV2 = `24 1 0:22 / /proc rw - proc proc rw
30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
`
	mountsV1 = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
`
	mountHybrid    = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	mountContainer = `35 31 0:32 /docker/abc /sys/fs/cgroup/with\040blank rw - cgroup cgroup rw,memory` + "\n"
)

func TestParseHost(t *testing.T) {
	for _, tt := range []struct {
		name, mounts, own string
		mode              Mode
		hierarchy, dir    string
	}{
		{"v2", mountsV2, "0::/user.slice/x.scope\n", V2, unified, "/sys/fs/cgroup/user.slice/x.scope"},
		{"v1, controllers mounted together", mountsV1, "4:cpu,cpuacct:/a\n3:memory:/b\n1:name=systemd:/\n", V1, CPUAcct, "/sys/fs/cgroup/cpu,cpuacct/a"},
		{"hybrid", mountsV1 + mountHybrid, "3:memory:/b:c\n0::/\n", Hybrid, Memory, "/sys/fs/cgroup/memory/b:c"},
		{"hybrid, the v2 part", mountsV1 + mountHybrid, "3:memory:/b\n0::/\n", Hybrid, unified, "/sys/fs/cgroup/unified"},
		{"a container's mount", mountContainer, "3:memory:/docker/abc/d\n", V1, Memory, "/sys/fs/cgroup/with blank/d"},
		{"a group outside of the mount", mountContainer, "3:memory:/docker/abcd\n", V1, Memory, ""},
		{"nothing", "", "", None, unified, ""},
		{"damaged", "1 2\n - cgroup2\nx - cgroup2 a b\n", "::::\nx\n", None, unified, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := parseHost(tt.mounts, tt.own)
			if h.Mode() != tt.mode {
				t.Errorf("%s, want %s", h.Mode(), tt.mode)
			}
			dir, err := h.dir(tt.hierarchy, h.own[tt.hierarchy])
			if tt.dir == "" {
				if !errors.Is(err, ErrNotSupported) {
					t.Errorf("%s, %v", dir, err)
				}
			} else if dir != tt.dir || err != nil {
				t.Errorf("%s, %v, want %s", dir, err, tt.dir)
			}
		})
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add(mountsV1+mountHybrid, "4:cpu,cpuacct:/a\n0::/\n")
	f.Add(mountContainer, "3:memory:/docker/abc/../x\n")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		h := parseHost(mounts, own)
		h.Mode()
		for hierarchy, group := range h.own {
			dir, err := h.dir(hierarchy, group)
			m := h.mounts[hierarchy]
			if err == nil && filepath.IsAbs(m.point) && dir != filepath.Clean(m.point) && !strings.HasPrefix(dir, strings.TrimSuffix(filepath.Clean(m.point), "/")+"/") {
				t.Errorf("group %q of %q lies at %q", group, m, dir)
			}
		}
	})
}

// fake makes directories stand for hierarchies.
func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	cgroups.TestMode = true
	t.Cleanup(func() { cgroups.TestMode = false })
	root := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func expectFiles(t *testing.T, root string, want map[string]string) {
	t.Helper()
	for name, text := range want {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || strings.TrimSpace(string(b)) != text {
			t.Errorf("%s has %q (%v), want %q", name, b, err, text)
		}
	}
}

func TestLimitsAreWrittenAsTheKubeletDoes(t *testing.T) {
	limits := Limits{CPUMilli: 250, CPUShares: 256, MemoryBytes: 64 << 20}
	t.Run("RES-04 RES-05 RES-06 v2", func(t *testing.T) {
		root := fake(t, map[string]string{"g/cgroup.controllers": "cpu memory pids"})
		g := &Group{dirs: map[string]string{unified: filepath.Join(root, "g")}}
		if err := g.Set(limits); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, root, map[string]string{"g/cpu.max": "25000 100000", "g/cpu.weight": "10", "g/memory.max": "67108864"})
		if got := cgroup.Weight(256); got != 10 {
			t.Errorf("weight %d", got)
		}
	})
	t.Run("RES-04 RES-05 v1", func(t *testing.T) {
		root := fake(t, map[string]string{"cpu/cpu.shares": "1024", "memory/memory.usage_in_bytes": "0"})
		g := &Group{dirs: map[string]string{CPU: filepath.Join(root, "cpu"), CPUAcct: filepath.Join(root, "cpu"), Memory: filepath.Join(root, "memory")}}
		if err := g.Set(limits); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, root, map[string]string{
			"cpu/cpu.shares": "256", "cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000",
			"memory/memory.limit_in_bytes": "67108864",
		})
	})
	t.Run("cpu by v1, memory by v2", func(t *testing.T) {
		root := fake(t, map[string]string{"cpu/cpu.shares": "1024", "two/cgroup.controllers": "memory"})
		g := &Group{dirs: map[string]string{CPU: filepath.Join(root, "cpu"), unified: filepath.Join(root, "two")}}
		if err := g.Set(limits); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, root, map[string]string{"cpu/cpu.shares": "256", "two/memory.max": "67108864"})
		if _, err := os.Stat(filepath.Join(root, "two/cpu.max")); err == nil {
			t.Error("the quota is in both")
		}
	})
	t.Run("what the host has not got", func(t *testing.T) {
		root := fake(t, map[string]string{"g/cgroup.controllers": "hugetlb"})
		g := &Group{dirs: map[string]string{unified: filepath.Join(root, "g")}}
		for _, l := range []Limits{{CPUMilli: 1}, {CPUShares: 2}, {MemoryBytes: 1}} {
			if err := g.Set(l); !errors.Is(err, ErrNotSupported) {
				t.Errorf("%+v: %v", l, err)
			}
		}
		if err := g.Set(Limits{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("absurd limits", func(t *testing.T) {
		root := fake(t, map[string]string{"g/cgroup.controllers": "cpu memory"})
		g := &Group{dirs: map[string]string{unified: filepath.Join(root, "g")}}
		for _, l := range []Limits{{CPUMilli: -1}, {MemoryBytes: -1}, {CPUShares: -5}} {
			if err := g.Set(l); err == nil {
				t.Errorf("%+v was accepted", l)
			}
		}
		if err := g.Set(Limits{CPUMilli: 1 << 62, CPUShares: 1 << 62}); err != nil {
			t.Error(err)
		}
		expectFiles(t, root, map[string]string{"g/cpu.weight": "10000"})
	})
}
