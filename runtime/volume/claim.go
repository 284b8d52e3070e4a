package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// setUpClaim shows the directory of a PersistentVolumeClaim (VOL-41), which is made
// when a pod first uses it: <Claims>/<namespace>/<name>. It stays when the pod goes,
// and when this process does. One whose only access mode is ReadOnlyMany is read-only.
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
	if err := m.hold(claim, pod.UID); err != nil {
		return nil, err
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
	if _, err := root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := m.checkCapacity(claim); err != nil {
			return nil, err
		}
	}
	switch err := root.Mkdir(dir, volumeMode); {
	case err == nil:
		err = root.Chmod(dir, volumeMode) // whatever the umask
		if err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	readOnly := source.ReadOnly || onlyMode(claim, corev1.ReadOnlyMany)
	if err := m.giveToGroup(ctx, root, dir, pod, readOnly); err != nil {
		return nil, err
	}
	return &mounted{Volume: Volume{Name: v.Name, Path: filepath.Join(m.config.Claims, dir), ReadOnly: readOnly}}, nil
}

// onlyMode says that a claim has one access mode, and which.
func onlyMode(claim *corev1.PersistentVolumeClaim, mode corev1.PersistentVolumeAccessMode) bool {
	return len(claim.Spec.AccessModes) > 0 &&
		!slices.ContainsFunc(claim.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return m != mode })
}

// hold has a pod be the only one with a claim, until its Unmount, if the claim's access
// mode is ReadWriteOncePod. For all others one node is one user.
func (m *Manager) hold(claim *corev1.PersistentVolumeClaim, pod types.UID) error {
	if !onlyMode(claim, corev1.ReadWriteOncePod) {
		return nil
	}
	key := types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}
	m.mu.Lock()
	defer m.mu.Unlock()
	if holder, held := m.holders[key]; held && holder != pod {
		return errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
	}
	m.holders[key] = pod
	return nil
}

// checkCapacity says whether a claim could be given what it requests if there were
// nothing else: what has been written is not reserved.
func (m *Manager) checkCapacity(claim *corev1.PersistentVolumeClaim) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.config.Claims, &fs); err != nil {
		return nil // what comes next says why
	}
	has := resource.NewQuantity(int64(fs.Blocks)*int64(fs.Bsize), resource.BinarySI)
	if want := claim.Spec.Resources.Requests[corev1.ResourceStorage]; want.Cmp(*has) > 0 {
		return fmt.Errorf("persistentvolumeclaim %q is not bound: it requests %s of storage, and the file system of claims has %s", claim.Name, want.String(), has)
	}
	return nil
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
