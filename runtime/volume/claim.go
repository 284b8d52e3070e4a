package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// setUpClaim shows the directory of a PersistentVolumeClaim (VOL-41), which is made
// when a pod first uses it: <Claims>/<namespace>/<name>. It stays when the pod goes,
// and when this process does.
func (m *Manager) setUpClaim(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (*mounted, error) {
	source := v.PersistentVolumeClaim
	if m.config.Claim == nil || m.config.Claims == "" {
		return nil, fmt.Errorf("persistentvolumeclaim %q not found", source.ClaimName)
	}
	claim, ok := m.config.Claim(pod.Namespace, source.ClaimName)
	if !ok {
		return nil, fmt.Errorf("persistentvolumeclaim %q not found", source.ClaimName)
	}
	for _, name := range []string{claim.Namespace, claim.Name} {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	root, err := openBase(m.config.Claims)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.MkdirAll(claim.Namespace, parentMode); err != nil {
		return nil, err
	}
	dir := filepath.Join(claim.Namespace, claim.Name)
	switch err := root.Mkdir(dir, volumeMode); {
	case err == nil:
		err = root.Chmod(dir, volumeMode) // whatever the umask
		if err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	if err := m.giveToGroup(ctx, root, dir, pod, source.ReadOnly); err != nil {
		return nil, err
	}
	return &mounted{Volume: Volume{Name: v.Name, Path: filepath.Join(m.config.Claims, dir), ReadOnly: source.ReadOnly}}, nil
}

// setUpEphemeral makes a volume that goes with its pod but, other than an emptyDir,
// is no part of its ephemeral storage: a generic ephemeral volume, whose claim is
// <pod>-<volume> and that nothing else can use.
func (m *Manager) setUpEphemeral(pod *corev1.Pod, v *corev1.Volume) (*mounted, error) {
	if _, err := m.makeDir(pod, v); err != nil {
		return nil, err
	}
	return &mounted{Volume: Volume{Name: v.Name, Path: m.path(pod, kind(v), v.Name)}}, nil
}

// giveToGroup gives everything in a volume to the pod's fsGroup (VOL-42). No link
// in it is followed.
func (m *Manager) giveToGroup(ctx context.Context, base *os.Root, dir string, pod *corev1.Pod, readOnly bool) error {
	group := fsGroup(pod)
	if group == nil || readOnly {
		return nil
	}
	top, err := base.Open(dir)
	if err != nil {
		return err
	}
	defer top.Close()
	fd, err := openDirAt(int(top.Fd()), ".")
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	if policy := pod.Spec.SecurityContext.FSGroupChangePolicy; policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		if mode := groupMode(uint32(st.Mode)); int64(st.Gid) == *group && mode == uint32(st.Mode) {
			unix.Close(fd)
			return nil
		}
	}
	give := func(fd int, name string, st *unix.Stat_t) error {
		err := chownAt(fd, name, *group)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
			err = chmodAt(fd, name, groupMode(uint32(st.Mode))&0o7777)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone meanwhile: another pod has it, too
			return fmt.Errorf("give %q to the group %d: %w", name, *group, err)
		}
		return nil
	}
	if err := walkTree(ctx, fd, give); err != nil {
		return err
	}
	// Last: who sees it done may believe that it has been done for all (OnRootMismatch).
	return give(int(top.Fd()), ".", &st)
}

// groupMode is the mode of a file that belongs to an fsGroup.
func groupMode(mode uint32) uint32 {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return mode | unix.S_ISGID | 0o770
	}
	return mode | 0o660
}
