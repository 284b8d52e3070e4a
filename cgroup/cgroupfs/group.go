//go:build linux

package cgroupfs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"

	"github.com/wasmpod/wasmpod/cgroup"
)

// Limits of a group. Zero is not set: unlimited, or what a new group has.
type Limits struct {
	CPUMilli    int64 // thousandths of a core
	CPUShares   int64 // 2 to 262144
	MemoryBytes int64
}

// Stats of a group and all below it.
type Stats struct {
	CPU         time.Duration
	Throttle    cgroup.ThrottleStats
	MemoryBytes int64
	WorkingSet  int64 // of it, what the kernel cannot take back at once
	MemoryPeak  int64 // 0 where the kernel does not tell
	MemoryLimit int64 // 0 is none
	OOMKills    uint64
}

// Group is one group, in every hierarchy that is used.
type Group struct {
	dirs    map[string]string // by v1 controller; unified is v2
	removed func()
}

func (g *Group) join(name string) *Group {
	dirs := make(map[string]string, len(g.dirs))
	for hierarchy, dir := range g.dirs {
		dirs[hierarchy] = filepath.Join(dir, name)
	}
	return &Group{dirs: dirs}
}

func (g *Group) child(name string) (*Group, error) {
	c := g.join(name)
	return c, c.make()
}

// make makes the directories. None may exist: what does was not made here. What
// it has made it removes again if it fails.
func (g *Group) make() error {
	var made []string
	for _, dir := range g.each() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			for _, d := range made {
				err = errors.Join(err, os.Remove(d))
			}
			return fmt.Errorf("make cgroup: %w", err)
		}
		made = append(made, dir)
	}
	return nil
}

// each are the directories, without repetition: v1 controllers may be mounted
// together.
func (g *Group) each() []string {
	dirs := slices.Sorted(maps.Values(g.dirs))
	return slices.Compact(dirs)
}

// split says which v1 paths a group has, and which of the controllers are v2's.
func (g *Group) split() (v1 map[string]string, v2 string, at2 []string) {
	v1 = maps.Clone(g.dirs)
	v2 = v1[unified]
	delete(v1, unified)
	if v2 != "" {
		at2 = words(v2, "cgroup.controllers")
	}
	return v1, v2, at2
}

// Set writes limits as the kubelet does (RES-04..06). What is zero stays as it is.
func (g *Group) Set(l Limits) error {
	if l.CPUMilli < 0 || l.CPUShares < 0 || l.MemoryBytes < 0 {
		return fmt.Errorf("limits %+v: a negative one", l)
	}
	if l.CPUMilli > math.MaxInt64/cgroup.Period {
		l.CPUMilli = 0 // more than there can be
	}
	v1, v2, at2 := g.split()
	var r1, r2 cgroups.Resources
	// has says whose files the controller has, nil if it has none.
	has := func(controller string) *cgroups.Resources {
		if _, ok := v1[controller]; ok {
			return &r1
		}
		if slices.Contains(at2, controller) {
			return &r2
		}
		return nil
	}
	if l.CPUMilli > 0 || l.CPUShares > 0 {
		r := has(CPU)
		if r == nil {
			return fmt.Errorf("cpu limit: %w: no cpu controller", ErrNotSupported)
		}
		if l.CPUMilli > 0 {
			r.CpuQuota, r.CpuPeriod = cgroup.Quota(l.CPUMilli, cgroup.Period), cgroup.Period
		}
		if l.CPUShares > 0 {
			shares := min(max(l.CPUShares, cgroup.MinShares), cgroup.MaxShares)
			r.CpuShares, r.CpuWeight = uint64(shares), uint64(cgroup.Weight(shares))
		}
	}
	if l.MemoryBytes > 0 {
		r := has(Memory)
		if r == nil {
			return fmt.Errorf("memory limit: %w: no memory controller", ErrNotSupported)
		}
		r.Memory = l.MemoryBytes
	}
	if len(v1) > 0 {
		m, err := fs.NewManager(&cgroups.Cgroup{Resources: &r1}, v1)
		if err != nil {
			return err
		}
		if err := m.Set(&r1); err != nil {
			return err
		}
	}
	if v2 != "" {
		m, err := fs2.NewManager(&cgroups.Cgroup{Resources: &r2}, v2)
		if err != nil {
			return err
		}
		return m.Set(&r2)
	}
	return nil
}

// Add moves a process, with all its threads, into the group.
func (g *Group) Add(pid int) error {
	for _, dir := range g.each() {
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// Stats reads what the kernel has counted.
func (g *Group) Stats() (Stats, error) {
	v1, v2, at2 := g.split()
	var out Stats
	options := &cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory}
	take := func(s *cgroups.Stats, cpu, memory bool) {
		if cpu {
			t := s.CpuStats.ThrottlingData
			out.CPU = time.Duration(s.CpuStats.CpuUsage.TotalUsage)
			out.Throttle = cgroup.ThrottleStats{
				Periods: int64(t.Periods), Throttled: int64(t.ThrottledPeriods), Time: time.Duration(t.ThrottledTime),
			}
		}
		if memory {
			u := s.MemoryStats.Usage
			out.MemoryBytes, out.MemoryPeak = int64(u.Usage), int64(u.MaxUsage)
			inactive := s.MemoryStats.Stats["total_inactive_file"] // of v1, with all below
			if v1[Memory] == "" {
				inactive = s.MemoryStats.Stats["inactive_file"]
			}
			out.WorkingSet = max(0, out.MemoryBytes-int64(inactive))
			if u.Limit < 1<<62 { // v1 has no word for none
				out.MemoryLimit = int64(u.Limit)
			}
		}
	}
	if len(v1) > 0 {
		m, err := fs.NewManager(&cgroups.Cgroup{Resources: &cgroups.Resources{}}, v1)
		if err != nil {
			return Stats{}, err
		}
		s, err := m.Stats(options)
		if err != nil {
			return Stats{}, err
		}
		take(s, v1[CPU] != "" || v1[CPUAcct] != "", v1[Memory] != "")
		if dir := v1[Memory]; dir != "" {
			out.OOMKills, _ = fs.OOMKillCount(dir) // older kernels do not count
		}
	}
	if v2 != "" {
		m, err := fs2.NewManager(&cgroups.Cgroup{Resources: &cgroups.Resources{}}, v2)
		if err != nil {
			return Stats{}, err
		}
		memory := slices.Contains(at2, Memory)
		if !memory {
			options.Controllers = cgroups.CPU
		}
		s, err := m.Stats(options)
		if err != nil {
			return Stats{}, err
		}
		take(s, v1[CPU] == "" && v1[CPUAcct] == "", memory)
		if memory {
			out.OOMKills, _ = fs2.OOMKillCount(v2)
		}
	}
	return out, nil
}

// Remove removes the group of a pod. It fails while there are processes in it.
func (g *Group) Remove() error {
	if err := g.rmdir(); err != nil {
		return err
	}
	if g.removed != nil {
		g.removed()
	}
	return nil
}

// rmdir removes the group and all below it, if no process is in any.
func (g *Group) rmdir() error {
	var errs []error
	for _, dir := range g.each() {
		errs = append(errs, cgroups.RemovePath(dir))
	}
	return errors.Join(errs...)
}
