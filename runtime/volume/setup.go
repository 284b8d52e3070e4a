package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	podsDir    = "pods"
	volumesDir = "volumes"
)

// Modes of the directories we make. What lies above a volume is closed to other
// users of the host, because the volume itself is open to every uid that a
// guest may have.
const (
	parentMode = 0o750
	volumeMode = 0o777
)

// setUp sets one volume up.
func (m *Manager) setUp(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (*mounted, error) {
	if err := checkName(v.Name); err != nil {
		return nil, err
	}
	switch {
	case v.HostPath != nil:
		if err := setUpHostPath(v.HostPath); err != nil {
			return nil, err
		}
		return &mounted{Volume: Volume{Name: v.Name, Path: filepath.Clean(v.HostPath.Path)}}, nil
	case v.EmptyDir != nil:
		return m.setUpEmptyDir(pod, v)
	case v.Image != nil: // its files are where images lie
		return &mounted{Volume: Volume{Name: v.Name, Image: v.Image.Reference, ReadOnly: true}}, nil
	case v.PersistentVolumeClaim != nil:
		return m.setUpClaim(ctx, pod, v)
	case v.Ephemeral != nil:
		return m.setUpEphemeral(pod, v)
	case projects(v):
		// The content is looked up first: a volume whose object is missing leaves
		// no directory behind.
		payload, err := m.payload(pod, v)
		if err != nil {
			return nil, err
		}
		done := &mounted{Volume: Volume{Name: v.Name, Path: m.path(pod, kind(v), v.Name), ReadOnly: true}, pins: map[pin]string{}}
		fresh, err := m.makeDir(pod, v)
		if err != nil {
			return nil, err
		}
		if err := m.writePayload(ctx, pod, done, payload); err != nil {
			if fresh {
				err = errors.Join(err, m.removeDir(pod, v))
			}
			return nil, err
		}
		return done, nil
	default:
		return nil, fmt.Errorf("volume source %s is not supported", sourceName(v))
	}
}

// setUpEmptyDir implements VOL-02. What is there already, from an earlier
// process, stays.
func (m *Manager) setUpEmptyDir(pod *corev1.Pod, v *corev1.Volume) (*mounted, error) {
	switch v.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		if m.config.NewMemory != nil {
			return &mounted{Volume: Volume{Name: v.Name, Memory: m.config.NewMemory(m.memorySize(pod, v), fsGroup(pod))}}, nil
		}
	default:
		return nil, fmt.Errorf("unknown storage medium %q", v.EmptyDir.Medium)
	}
	if _, err := m.makeDir(pod, v); err != nil {
		return nil, err
	}
	return &mounted{Volume: Volume{Name: v.Name, Path: m.path(pod, kind(v), v.Name)}}, nil
}

// memorySize is how large an emptyDir in memory may become: the least of what the
// node has for pods, what the pod may use if all of its containers have a limit,
// and what it asks for (VOL-03). Zero is unlimited.
func (m *Manager) memorySize(pod *corev1.Pod, v *corev1.Volume) int64 {
	size := m.config.MemoryBytes
	least := func(n int64) {
		if n > 0 && (size <= 0 || n < size) {
			size = n
		}
	}
	sum := int64(0)
	for i := range pod.Spec.Containers {
		q, ok := pod.Spec.Containers[i].Resources.Limits[corev1.ResourceMemory]
		if !ok || q.Sign() <= 0 {
			sum = 0
			break
		}
		sum += q.Value()
	}
	least(sum)
	if q := v.EmptyDir.SizeLimit; q != nil {
		least(q.Value())
	}
	return size
}

func relative(uid, kind, volume string) string {
	return filepath.Join(podsDir, uid, volumesDir, kind, volume)
}

func (m *Manager) path(pod *corev1.Pod, kind, volume string) string {
	return filepath.Join(m.config.Root, relative(string(pod.UID), kind, volume))
}

// openBase opens the directory that all volumes are in, making it if need be.
func openBase(dir string) (*os.Root, error) {
	if dir == "" {
		return nil, errors.New("no directory for volumes is configured")
	}
	if err := os.MkdirAll(dir, parentMode); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// makeDir makes the directory of one volume, open to everybody whatever the
// umask. fresh says that it did not exist.
func (m *Manager) makeDir(pod *corev1.Pod, v *corev1.Volume) (fresh bool, err error) {
	base := m.config.Root
	root, err := openBase(base)
	if err != nil {
		return false, err
	}
	defer root.Close()
	dir := relative(string(pod.UID), kind(v), v.Name)
	if err := root.MkdirAll(filepath.Dir(dir), parentMode); err != nil {
		return false, err
	}
	switch err := root.Mkdir(dir, volumeMode); {
	case err == nil:
		fresh = true
	case !errors.Is(err, fs.ErrExist):
		return false, err
	}
	info, err := root.Lstat(dir)
	if err != nil {
		return fresh, err
	}
	if !info.IsDir() {
		return fresh, fmt.Errorf("%s is not a directory", filepath.Join(base, dir))
	}
	mode := os.FileMode(volumeMode)
	if group := fsGroup(pod); group != nil {
		if err := chown(root, dir, *group); err != nil {
			return fresh, err
		}
		mode |= os.ModeSetgid // VOL-02
	}
	if info.Mode()&(os.ModePerm|os.ModeSetgid) != mode {
		if err := root.Chmod(dir, mode); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// removeDir takes back what makeDir did for a volume that is not set up.
func (m *Manager) removeDir(pod *corev1.Pod, v *corev1.Volume) error {
	root, err := os.OpenRoot(m.config.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	return removeTree(root, relative(string(pod.UID), kind(v), v.Name))
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// chown gives a file to a group. A runtime without privileges cannot do that; it
// notes the group where guests are told of owners (SEC-05), if the file system can.
func chown(root *os.Root, name string, group int64) error {
	err := root.Lchown(name, -1, int(group))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || isInvalid(err) {
		noteGroup(root, name, group)
		return nil
	}
	return err
}

// setUpHostPath implements VOL-04. The path is the node administrator's and
// symlinks in it are followed; nothing below it is ever removed.
func setUpHostPath(source *corev1.HostPathVolumeSource) error {
	path := source.Path
	if slices.Contains(strings.Split(filepath.ToSlash(path), "/"), "..") {
		return fmt.Errorf("invalid HostPath `%s`: must not contain '..'", path)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("invalid HostPath `%s`: must be an absolute path", path)
	}
	want := corev1.HostPathUnset
	if source.Type != nil {
		want = *source.Type
	}
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	is := func(accept func(os.FileMode) bool) bool { return err == nil && accept(info.Mode()) }

	var ok bool
	var what string
	switch want {
	case corev1.HostPathUnset:
		// No check; what a container runtime does with a path that is missing.
		if missing {
			return os.MkdirAll(path, 0o755)
		}
		return err
	case corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory:
		if missing && want == corev1.HostPathDirectoryOrCreate {
			return os.MkdirAll(path, 0o755)
		}
		what, ok = "a directory", is(os.FileMode.IsDir)
	case corev1.HostPathFileOrCreate, corev1.HostPathFile:
		if missing && want == corev1.HostPathFileOrCreate {
			f, err := os.OpenFile(path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		what, ok = "a file", is(os.FileMode.IsRegular)
	case corev1.HostPathSocket:
		what, ok = "a socket file", is(func(m os.FileMode) bool { return m&os.ModeSocket != 0 })
	case corev1.HostPathCharDev:
		what, ok = "a character device", is(func(m os.FileMode) bool { return m&os.ModeCharDevice != 0 })
	case corev1.HostPathBlockDev:
		what, ok = "a block device", is(func(m os.FileMode) bool { return m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0 })
	default:
		return fmt.Errorf("%s is an invalid volume type", want)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not %s", path, what)
	}
	return nil
}
