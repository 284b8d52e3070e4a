// Package volume sets up the volumes of pods on the host: emptyDir, hostPath,
// configMap, secret, projected, downwardAPI, persistentVolumeClaim and ephemeral.
// A volume lies at
//
//	<Root>/pods/<pod uid>/volumes/<kind>/<name>
//
// except for hostPath, which lies where the Pod says, persistentVolumeClaim, which
// has a directory of its own (Config.Claims), and an emptyDir in memory. Guests write to these
// trees, so that every path in them is resolved by os.Root: a symlink that a
// guest has made leads nowhere outside. The rules are VOL-01 to VOL-30.
package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config of a Manager.
type Config struct {
	// Root is the directory below which volumes are kept. It is made if it does
	// not exist.
	Root string
	// NewMemory makes the emptyDirs of medium Memory (VOL-03), of a size in bytes,
	// open to everybody, and to a group with the setgid bit if there is one. If it
	// is nil they are kept under Root like the others, and cost disk space instead
	// of memory.
	NewMemory func(size int64, group *int64) Memory
	// MemoryBytes is what of the node's memory pods may have: no such volume is
	// larger. Zero: whatever they ask for.
	MemoryBytes int64

	// ConfigMap and Secret look an object up; nil finds nothing. They must be
	// safe for concurrent use.
	ConfigMap func(namespace, name string) (*corev1.ConfigMap, bool)
	Secret    func(namespace, name string) (*corev1.Secret, bool)
	// Claim looks a PersistentVolumeClaim up, as ConfigMap does. Claims is the
	// directory in which every claim has one that is kept.
	Claim  func(namespace, name string) (*corev1.PersistentVolumeClaim, bool)
	Claims string
	// NodeAllocatable is what a downwardAPI volume shows for an unset limit.
	NodeAllocatable corev1.ResourceList

	// Now is time.Now unless set; it names directories.
	Now func() time.Time
}

// Manager sets volumes up and removes them. It is safe for concurrent use:
// calls for one pod wait for one another, those for different pods do not.
type Manager struct {
	config Config

	mu      sync.Mutex
	pods    map[types.UID]*podVolumes
	holders map[types.NamespacedName]types.UID // of claims that only one pod may have
}

// podVolumes is what is mounted of one pod. The maps are guarded by Manager.mu;
// busy is held by whoever changes the pod's files.
type podVolumes struct {
	busy    sync.Mutex
	users   int // who holds or waits for busy
	mounted map[string]*mounted
}

type mounted struct {
	Volume
	// pins are the versions of a configMap-like volume that containers hold by
	// subPath: such a mount does not follow updates (VOL-15).
	pins map[pin]string
	// shown is what this process has written, so that an unchanged volume need
	// not be read to know that. Guarded by podVolumes.busy.
	shown [sha256.Size]byte
}

type pin struct{ container, subPath string }

// Volume is one volume that has been set up.
type Volume struct {
	Name     string
	Path     string // on the host
	ReadOnly bool   // guests may not write (VOL-14)
	Memory   Memory // where it lies instead, if not nil
	Image    string // the reference of the image that it shows instead, if not empty
}

// Memory is a volume that lies in no directory. It is safe for concurrent use.
type Memory interface {
	Used() int64 // bytes
	// ReadFile reads a file of at most that many bytes; links do not lead out.
	ReadFile(name string, most int64) ([]byte, error)
	// Close frees it when nothing uses it any more.
	Close()
}

// MountError says which volumes could not be set up.
type MountError struct {
	// Messages are the texts of the FailedMount events (VOL-04, VOL-20), one per
	// volume, in the order of the Pod.
	Messages []string
	causes   []error
}

func (e *MountError) Error() string   { return strings.Join(e.Messages, "; ") }
func (e *MountError) Unwrap() []error { return e.causes }

func (e *MountError) add(volume string, cause error) {
	e.Messages = append(e.Messages, fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", volume, cause))
	e.causes = append(e.causes, cause)
}

func (e *MountError) orNil() error {
	if len(e.Messages) == 0 {
		return nil
	}
	return e
}

// NewManager makes a Manager. It does not touch the disk yet.
func NewManager(config Config) *Manager {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Manager{config: config, pods: map[types.UID]*podVolumes{}, holders: map[types.NamespacedName]types.UID{}}
}

// lock waits until nobody else works on the pod's files.
func (m *Manager) lock(uid types.UID) (*podVolumes, func()) {
	m.mu.Lock()
	p := m.pods[uid]
	if p == nil {
		p = &podVolumes{mounted: map[string]*mounted{}}
		m.pods[uid] = p
	}
	p.users++
	m.mu.Unlock()
	p.busy.Lock()
	return p, func() {
		p.busy.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		if p.users--; p.users == 0 && len(p.mounted) == 0 {
			delete(m.pods, uid)
		}
	}
}

// Mount sets every volume of the pod up that is not set up yet, so that it may
// be repeated until it succeeds. One volume that fails does not keep the others
// from being tried. The error is a *MountError, or ctx's.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod) error {
	if err := checkName(string(pod.UID)); err != nil {
		return fmt.Errorf("pod uid: %w", err)
	}
	p, unlock := m.lock(pod.UID)
	defer unlock()
	failed := &MountError{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if m.get(p, v.Name) != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		done, err := m.setUp(ctx, pod, v)
		if err != nil {
			failed.add(v.Name, err)
			continue
		}
		m.mu.Lock()
		p.mounted[v.Name] = done
		m.mu.Unlock()
	}
	return failed.orNil()
}

func (m *Manager) get(p *podVolumes, volume string) *mounted {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.mounted[volume]
}

// Refresh brings the content of the pod's configMap, secret, projected and
// downwardAPI volumes up to date with the objects they show (VOL-10, VOL-11).
// Readers see the old content or the new, never a mixture. Where nothing has
// changed nothing is written. A volume whose new content cannot be had keeps
// the old one, and the error, a *MountError, says why.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod) error {
	p, unlock := m.lock(pod.UID)
	defer unlock()
	failed := &MountError{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		have := m.get(p, v.Name)
		if have == nil || !projects(v) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		payload, err := m.payload(pod, v)
		if err == nil {
			err = m.writePayload(ctx, pod, have, payload)
		}
		if err != nil {
			failed.add(v.Name, err)
		}
	}
	return failed.orNil()
}

// Path is where a volume that has been set up lies on the host.
func (m *Manager) Path(podUID types.UID, volume string) (hostPath string, ok bool) {
	v, ok := m.Volume(podUID, volume)
	return v.Path, ok
}

// Volume describes a volume that has been set up.
func (m *Manager) Volume(podUID types.UID, volume string) (Volume, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pods[podUID]; p != nil {
		if v := p.mounted[volume]; v != nil {
			return v.Volume, true
		}
	}
	return Volume{}, false
}

// Usage is what an emptyDir holds, in bytes, and whether in memory.
func (m *Manager) Usage(ctx context.Context, podUID types.UID, volume string) (bytes int64, memory bool, err error) {
	v, ok := m.Volume(podUID, volume)
	switch {
	case !ok:
		return 0, false, nil
	case v.Memory != nil:
		return v.Memory.Used(), true, nil
	}
	bytes, _, err = DiskUsage(ctx, v.Path)
	return bytes, false, err
}

// Unmount removes every volume of the pod with its content; what a hostPath
// volume shows is left alone, and what a claim does. No guest of the pod may run. It may be repeated,
// also for a pod that was never mounted.
func (m *Manager) Unmount(podUID types.UID) error {
	if err := checkName(string(podUID)); err != nil {
		return fmt.Errorf("pod uid: %w", err)
	}
	p, unlock := m.lock(podUID)
	defer unlock()
	m.mu.Lock()
	for _, v := range p.mounted {
		if v.Memory != nil {
			v.Memory.Close()
		}
	}
	clear(p.mounted)
	maps.DeleteFunc(m.holders, func(_ types.NamespacedName, pod types.UID) bool { return pod == podUID })
	m.mu.Unlock()
	if err := removePod(m.config.Root, string(podUID)); err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", podUID, err)
	}
	return nil
}

// Pods lists the pods that have volumes on disk, those of an earlier process
// included, so that a runtime that was killed can Unmount what it left behind.
func (m *Manager) Pods() ([]types.UID, error) {
	var uids []types.UID
	entries, err := os.ReadDir(filepath.Join(m.config.Root, podsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list pods with volumes: %w", err)
	}
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(m.config.Root, podsDir, e.Name(), volumesDir)); err == nil {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	return uids, nil
}

// checkName makes sure that a name from a manifest is one path element.
func checkName(name string) error {
	if name == "" || name == "." || !filepath.IsLocal(name) || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("%q cannot be the name of a directory", name)
	}
	return nil
}
