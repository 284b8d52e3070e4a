//go:build linux

package cgroupfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MemoryGroup is a group of the hierarchy that has the memory controller.
type MemoryGroup struct {
	Dir string `json:"dir"`
	// Path is as /proc/self/cgroup writes it.
	Path string `json:"path"`
	// ID is what the kernel knows it by: nobody else has it as long as the machine
	// runs.
	ID uint64 `json:"id"`
}

// MemoryGroups are the group of this process and those around it, from the
// innermost on, as far as they are mounted.
func (h Host) MemoryGroups() ([]MemoryGroup, error) {
	hierarchy := unified
	if _, ok := h.mounts[Memory]; ok {
		hierarchy = Memory
	}
	dir, err := h.Group(hierarchy)
	if err != nil {
		return nil, err
	}
	var groups []MemoryGroup
	for m := h.mounts[hierarchy]; ; dir = filepath.Dir(dir) {
		id, err := idOf(dir)
		if err != nil {
			return nil, err
		}
		groups = append(groups, MemoryGroup{dir, filepath.Join(m.root, strings.TrimPrefix(dir, m.point)), id})
		if len(dir) <= len(m.point) {
			return groups, nil
		}
	}
}

func idOf(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return st.Ino, nil
}

// OOMKills is how many processes of the group itself the kernel has killed for want
// of memory, and never fewer than before. It fails if the group is gone, or if
// another one has its place.
func (g MemoryGroup) OOMKills() (uint64, error) {
	id, err := idOf(g.Dir)
	if err != nil {
		return 0, err
	}
	if id != g.ID {
		return 0, fmt.Errorf("%s is another group by now: %w", g.Dir, os.ErrNotExist)
	}
	for _, file := range []string{"memory.events.local", "memory.oom_control"} {
		f := words(g.Dir, file)
		for i := 0; i+1 < len(f); i += 2 {
			if f[i] == "oom_kill" {
				return strconv.ParseUint(f[i+1], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("OOM kills of %s: %w", g.Dir, ErrNotSupported)
}

// Limit is the group's own bound on memory in bytes; 0 is none, or not known.
func (g MemoryGroup) Limit() int64 {
	for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
		if w := words(g.Dir, file); len(w) == 1 {
			n, err := strconv.ParseInt(w[0], 10, 64)
			if err != nil || n >= 1<<62 { // "max", or v1's word for it
				return 0
			}
			return n
		}
	}
	return 0
}
