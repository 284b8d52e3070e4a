package container

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mounts lists the container's volume mounts so that a parent path comes before
// what lies below it, whatever the order in the Pod; otherwise the order is the
// Pod's. What every container has (/etc/hosts, /etc/hostname, /etc/resolv.conf,
// /dev, the termination message) is not among them: the sandbox adds those
// that no mount covers exactly (VOL-34).
func mounts(pod *corev1.Pod, c *corev1.Container, env *envList) ([]Mount, error) {
	for _, device := range c.VolumeDevices {
		// There are no block devices in a guest, and so no volumes of block mode.
		return nil, fmt.Errorf("cannot find volume %q to pass into container %q", device.Name, c.Name)
	}
	var out []Mount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		volume := findVolume(pod, m.Name)
		if volume == nil {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name) // VOL-21
		}
		subPath, err := subPath(m, env)
		if err != nil {
			return nil, err
		}
		if err := checkRecursiveReadOnly(m); err != nil {
			return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
		}
		out = append(out, Mount{
			Volume:    m.Name,
			SubPath:   subPath,
			GuestPath: absolute(m.MountPath, "/"), // VOL-33
			ReadOnly:  m.ReadOnly || readOnlyVolume(volume),
		})
	}
	depth := func(m Mount) int { return strings.Count(strings.TrimSuffix(m.GuestPath, "/"), "/") }
	slices.SortStableFunc(out, func(a, b Mount) int { return depth(a) - depth(b) })
	return out, nil
}

func findVolume(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// readOnlyVolume says whether guests may never write to the volume (VOL-14,
// VOL-40, VOL-41).
func readOnlyVolume(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil || v.Image != nil ||
		v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly
}

// subPath implements VOL-30 and VOL-31 as far as text goes; symlinks are the
// business of package volume. The result is relative and clean, or empty.
func subPath(m *corev1.VolumeMount, env *envList) (string, error) {
	p := m.SubPath
	if m.SubPathExpr != "" {
		var missing []string
		expanded, ok := expand(m.SubPathExpr, func(name string) (string, bool) {
			value, _ := env.lookup(name)
			if value == "" && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
			return value, true
		}, maxArgEnvBytes)
		if !ok {
			return "", errTooLong
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
		}
		p = expanded
	}
	switch {
	case p == "":
		return "", nil
	case path.IsAbs(p):
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", p)
	case strings.ContainsRune(p, 0):
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain a NUL byte", strings.ReplaceAll(p, "\x00", ""))
	}
	if p = path.Clean(p); p == "." {
		return "", nil
	}
	return p, nil
}

// checkRecursiveReadOnly refuses what contradicts itself (VOL-32). A read-only
// mount of ours is always recursive, because the host layer refuses every write
// below it, so each mode can be had.
func checkRecursiveReadOnly(m *corev1.VolumeMount) error {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return nil
	}
	if !m.ReadOnly {
		return fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	}
	if p := m.MountPropagation; p != nil && *p != corev1.MountPropagationNone {
		return fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *p)
	}
	switch mode := *m.RecursiveReadOnly; mode {
	case corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled:
		return nil
	default:
		return fmt.Errorf("unknown recursive read-only mode %q", mode)
	}
}
