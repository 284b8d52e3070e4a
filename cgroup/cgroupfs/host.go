//go:build linux

package cgroupfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The controllers that are used.
const (
	CPU     = "cpu"
	CPUAcct = "cpuacct" // of v1 only: v2 accounts in every group
	Memory  = "memory"
)

var controllers = []string{CPU, CPUAcct, Memory}

// Mode is which hierarchies a host has.
type Mode string

// The modes.
const (
	None    Mode = "none"
	V1      Mode = "v1"
	V2      Mode = "v2"
	Hybrid  Mode = "hybrid" // both are mounted
	unified      = ""       // what the v2 hierarchy is called in tables of hierarchies
)

// ErrNotSupported says that the host has not got what is asked for.
var ErrNotSupported = errors.New("not supported")

// Host is what cgroup hierarchies a process sees. It is a value.
type Host struct {
	mounts map[string]mount  // by v1 controller; unified is v2
	own    map[string]string // the group of this process, in each
}

// mount of a hierarchy. Of a container's mount the root may be a group.
type mount struct{ point, root string }

// Detect looks at the mounts and groups of this process. It changes nothing.
func Detect() (Host, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Host{}, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Host{}, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return parseHost(string(mounts), string(own)), nil
}

// parseHost reads /proc/self/mountinfo and /proc/self/cgroup.
func parseHost(mountinfo, own string) Host {
	h := Host{mounts: make(map[string]mount), own: make(map[string]string)}
	for line := range strings.Lines(mountinfo) {
		// ID parent major:minor root point options [tags] - type source superoptions
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		m := mount{point: unescape(f[4]), root: unescape(f[3])}
		var names []string
		switch g[0] {
		case "cgroup2":
			names = []string{unified}
		case "cgroup":
			names = strings.Split(g[2], ",")
		}
		for _, name := range names {
			// Of several mounts the first is what everybody else uses too.
			if _, ok := h.mounts[name]; !ok && (name == unified || slices.Contains(controllers, name)) {
				h.mounts[name] = m
			}
		}
	}
	for line := range strings.Lines(own) {
		// ID:controller,controller:path
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 {
			for name := range strings.SplitSeq(parts[1], ",") {
				h.own[name] = parts[2]
			}
		}
	}
	return h
}

// unescape undoes what mountinfo does to blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Mode says which hierarchies there are.
func (h Host) Mode() Mode {
	_, v2 := h.mounts[unified]
	v1 := len(h.mounts) > 1 || len(h.mounts) == 1 && !v2
	switch {
	case v1 && v2:
		return Hybrid
	case v2:
		return V2
	case v1:
		return V1
	}
	return None
}

// dir is where a group lies in a hierarchy.
func (h Host) dir(hierarchy, group string) (string, error) {
	m, ok := h.mounts[hierarchy]
	if !ok {
		return "", fmt.Errorf("%w: hierarchy %q is not mounted", ErrNotSupported, hierarchy)
	}
	// Both are clean and absolute.
	rel, err := filepath.Rel(m.root, group)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("%w: group %s is outside of what is mounted at %s", ErrNotSupported, group, m.point)
	}
	return filepath.Join(m.point, rel), nil
}

// Unified is the directory of this process's group in the v2 hierarchy, where
// programs can be attached to it.
func (h Host) Unified() (string, error) { return h.Group(unified) }

// Group is the directory of this process's group in the hierarchy of a v1
// controller.
func (h Host) Group(controller string) (string, error) {
	own, ok := h.own[controller]
	if !ok && controller == unified {
		return "", fmt.Errorf("%w: no cgroup v2 hierarchy", ErrNotSupported)
	}
	return h.dir(controller, own)
}

// Controllers says by which hierarchy each controller can be had in children of a
// group, "v1" or "v2", and in absent why the others cannot. The parent is as in
// Config.
func (h Host) Controllers(parent string) (by map[string]Mode, absent map[string]string) {
	by, absent = make(map[string]Mode), make(map[string]string)
	for _, c := range controllers {
		if _, ok := h.mounts[c]; ok {
			dir, err := h.parent(c, parent)
			switch {
			case err != nil:
				absent[c] = err.Error()
			case !writable(dir):
				absent[c] = dir + " cannot be written"
			default:
				by[c] = V1
			}
			continue
		}
		if c == CPUAcct {
			continue
		}
		dir, err := h.parent(unified, parent)
		switch {
		case err != nil:
			absent[c] = "no controller: " + err.Error()
		case !slices.Contains(words(dir, "cgroup.controllers"), c):
			absent[c] = "not among the controllers of " + dir
		case !writable(dir):
			absent[c] = dir + " cannot be written: it is not delegated to this user"
		default:
			by[c] = V2
		}
	}
	return by, absent
}

// parent is the directory of the group that Config.Parent names.
func (h Host) parent(hierarchy, parent string) (string, error) {
	if parent == Auto {
		own, ok := h.own[hierarchy]
		if !ok {
			return "", fmt.Errorf("%w: this process has no group in hierarchy %q", ErrNotSupported, hierarchy)
		}
		parent = own
	}
	if !filepath.IsAbs(parent) || filepath.Clean(parent) != parent {
		return "", fmt.Errorf("cgroup parent %q is no clean absolute path", parent)
	}
	dir, err := h.dir(hierarchy, parent)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("cgroup parent: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("cgroup parent %s is no group", dir)
	}
	return dir, nil
}

// words are those of a file; none if it cannot be read.
func words(dir, file string) []string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}
