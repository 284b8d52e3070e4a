//go:build linux

package cgroupfs

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
)

// Auto stands for the group in which this process is.
const Auto = "auto"

// Config of a Manager.
type Config struct {
	// Parent is the group, as /proc/self/cgroup writes it, in which ours is made;
	// Auto is the one of this process. It must exist. Where systemd rules it must be
	// delegated (Delegate=yes), as it would be cleaned away else.
	Parent string
	// State is a directory of records of what was made. It is made if need be.
	State string
	// PID is the process that the wall is built around; 0 is none.
	PID int
	// Bare makes one group in the v2 hierarchy and nothing else: no controller is
	// enabled and no pod has a group. Programs of BPF can be attached to it.
	Bare bool
	// Host is what Detect returns, if nil.
	Host *Host
	Log  *slog.Logger
}

// Manager has the groups of one process. It is safe for concurrent use.
type Manager struct {
	host   Host
	parent string
	pid    int
	record *record
	top    *Group
	pods   *Group // kubepods
	shared *Group

	mu      sync.Mutex
	before  map[string]string   // the groups that pid was in, directories
	enabled map[string][]string // controllers, by the v2 directory in which they were enabled
	groups  map[string]*Group   // of pods, by UID
	closed  bool
}

// Open removes what owners that are gone have left, makes the groups, and puts the
// process into its own. The error says what a host lacks, in words for its
// operator.
func Open(cfg Config) (_ *Manager, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Host == nil {
		h, err := Detect()
		if err != nil {
			return nil, err
		}
		cfg.Host = &h
	}
	if cfg.Host.Mode() == None {
		return nil, fmt.Errorf("%w: no cgroup hierarchy is mounted", ErrNotSupported)
	}
	Sweep(cfg.State, cfg.Log)
	m := &Manager{
		host: *cfg.Host, parent: cfg.Parent, pid: cfg.PID,
		before: make(map[string]string), enabled: make(map[string][]string), groups: make(map[string]*Group),
	}
	var id [8]byte
	rand.Read(id[:])
	name := prefix + hex.EncodeToString(id[:])
	dirs := make(map[string]string)
	parents := make(map[string]string)
	var absent []error
	for hierarchy := range m.host.mounts {
		if cfg.Bare && hierarchy != unified {
			continue
		}
		dir, err := m.host.parent(hierarchy, cfg.Parent)
		if err != nil {
			absent = append(absent, err)
			continue
		}
		parents[hierarchy], dirs[hierarchy] = dir, filepath.Join(dir, name)
	}
	if len(dirs) == 0 {
		if len(absent) == 0 {
			absent = append(absent, fmt.Errorf("%w: no cgroup v2 hierarchy is mounted", ErrNotSupported))
		}
		return nil, errors.Join(absent...)
	}
	if m.record, err = newRecord(cfg.State, name, slices.Collect(maps.Values(dirs))); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(explain(err, cfg.Parent), m.Close())
		}
	}()
	m.top = &Group{dirs: dirs}
	if err := m.top.make(); err != nil {
		return nil, err
	}
	if cfg.Bare {
		m.pods, m.shared = m.top, m.top
		return m, m.enter(cfg.PID)
	}
	if m.pods, err = m.top.child("kubepods"); err != nil {
		return nil, err
	}
	if m.shared, err = m.pods.child("shared"); err != nil {
		return nil, err
	}
	// A group with processes cannot have controllers for its children, and the
	// parent may be the one we are in: so first the process, then the controllers.
	if err := m.enter(cfg.PID); err != nil {
		return nil, err
	}
	if parent, ok := parents[unified]; ok {
		for _, dir := range []string{parent, m.top.dirs[unified], m.pods.dirs[unified]} {
			if err := m.enable(dir); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// prefix of the names of our groups.
const prefix = "wasmpod-"

// explain adds what an operator can do about it.
func explain(err error, parent string) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w (the cgroup parent %s must be delegated to this user: systemd-run --user --scope -p Delegate=yes wasmpod ..., with --cgroup-parent auto)", err, parent)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (other processes are in the cgroup parent %s: name an empty one)", err, parent)
	}
	return err
}

// Enter moves a process into the group of one that was opened with [Config.Bare] and
// without a process. The kernel waits for all processors before it does that: some
// 10 ms, in which the process starts no thread.
func (m *Manager) Enter(pid int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	m.pid = pid
	return explain(m.enter(pid), m.parent)
}

// enter moves the process, if there is one, and remembers where it was.
func (m *Manager) enter(pid int) error {
	if pid == 0 {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	was := parseHost("", string(b)).own
	for hierarchy, dir := range m.shared.dirs {
		before, err := m.host.dir(hierarchy, was[hierarchy])
		if err != nil {
			return err
		}
		m.before[hierarchy] = before
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// enable makes the v2 controllers that the host has there available to children of
// a group.
func (m *Manager) enable(dir string) error {
	have, on := words(dir, "cgroup.controllers"), words(dir, "cgroup.subtree_control")
	var missing []string
	for _, c := range controllers {
		if _, v1 := m.host.mounts[c]; !v1 && slices.Contains(have, c) && !slices.Contains(on, c) {
			missing = append(missing, c)
		}
	}
	for _, c := range missing {
		if err := cgroups.WriteFile(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return fmt.Errorf("enable controller %s in %s: %w", c, dir, err)
		}
		m.enabled[dir] = append(m.enabled[dir], c)
	}
	return nil
}

// Limit sets the wall around everything (RES-04..06). Zero is no limit.
func (m *Manager) Limit(l Limits) error { return m.pods.Set(l) }

// Wall is what the kernel says of everything together.
func (m *Manager) Wall() (Stats, error) { return m.pods.Stats() }

// Path is our group, as /proc/self/cgroup writes it, in the hierarchy of the
// memory controller or else in any.
func (m *Manager) Path() string {
	for _, hierarchy := range []string{Memory, unified, CPU, CPUAcct} {
		if dir, ok := m.pods.dirs[hierarchy]; ok {
			mount := m.host.mounts[hierarchy]
			return filepath.Join(mount.root, strings.TrimPrefix(dir, mount.point))
		}
	}
	return ""
}

// Unified is the directory of the process's group in the v2 hierarchy; empty if
// there is none.
func (m *Manager) Unified() string { return m.shared.dirs[unified] }

// validUID is what may be part of a path. Manifests can bring UIDs of their own.
var validUID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$`)

// Pod makes the group of a pod. Remove it.
func (m *Manager) Pod(uid string, class corev1.PodQOSClass, l Limits) (*Group, error) {
	if !validUID.MatchString(uid) {
		return nil, fmt.Errorf("pod UID %q cannot be the name of a group", uid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, os.ErrClosed
	}
	if m.groups[uid] != nil {
		return nil, fmt.Errorf("pod %s: %w", uid, os.ErrExist)
	}
	parent, err := m.class(class)
	if err != nil {
		return nil, err
	}
	g, err := parent.child("pod" + uid)
	if err != nil {
		return nil, err
	}
	g.removed = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.groups, uid)
	}
	if err := g.Set(l); err != nil {
		return nil, errors.Join(err, g.rmdir())
	}
	m.groups[uid] = g
	return g, nil
}

// class is the group of a QoS class. m.mu is held.
func (m *Manager) class(class corev1.PodQOSClass) (*Group, error) {
	name := ""
	switch class {
	case corev1.PodQOSGuaranteed:
		return m.pods, nil
	case corev1.PodQOSBurstable:
		name = "burstable"
	case corev1.PodQOSBestEffort:
		name = "besteffort"
	default:
		return nil, fmt.Errorf("%q is no QoS class", class)
	}
	g := m.pods.join(name)
	for _, dir := range g.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	if dir, ok := g.dirs[unified]; ok {
		if err := m.enable(dir); err != nil {
			return nil, err
		}
	}
	if class == corev1.PodQOSBestEffort { // as the kubelet: the least there is
		if err := g.Set(Limits{CPUShares: 2}); err != nil && !errors.Is(err, ErrNotSupported) {
			return nil, err
		}
	}
	return g, nil
}

// Requests sets what all Burstable pods together have requested, as the kubelet
// does.
func (m *Manager) Requests(cpuShares int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, err := m.class(corev1.PodQOSBurstable)
	if err != nil {
		return err
	}
	return g.Set(Limits{CPUShares: max(cpuShares, 2)})
}

// Close moves the process back to where it was and removes every group. What other
// processes are still in stays, for a later Sweep.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	// From below: a controller that children use cannot be disabled, and a group
	// with controllers for its children takes no process.
	var errs []error
	dirs := slices.SortedFunc(maps.Keys(m.enabled), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, dir := range dirs {
		for _, c := range m.enabled[dir] {
			// A group that somebody has removed has none enabled any more.
			if err := cgroups.WriteFile(dir, "cgroup.subtree_control", "-"+c); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("disable controller %s in %s: %w", c, dir, err))
			}
		}
	}
	for _, dir := range m.before {
		if err := cgroups.WriteCgroupProc(dir, m.pid); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	removed := true
	if m.top != nil {
		if err := m.top.rmdir(); err != nil {
			errs = append(errs, err)
			removed = false
		}
	}
	if m.record != nil {
		errs = append(errs, m.record.close(removed))
	}
	return errors.Join(errs...)
}
