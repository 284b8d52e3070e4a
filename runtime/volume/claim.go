package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	if policy := pod.Spec.SecurityContext.FSGroupChangePolicy; policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		if info, err := base.Lstat(dir); err == nil && groupMatches(info, *group) {
			return nil
		}
	}
	root, err := base.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile: another pod has it, too
		case err != nil:
			return err
		}
		if err := ignoreMissing(chown(root, name, *group)); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return ignoreMissing(err)
		}
		return ignoreMissing(root.Chmod(name, groupMode(info)))
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// groupMode is the mode of a file that belongs to an fsGroup.
func groupMode(info fs.FileInfo) os.FileMode {
	mode := info.Mode() & (os.ModePerm | os.ModeSetgid | os.ModeSetuid | os.ModeSticky)
	if info.IsDir() {
		return mode | os.ModeSetgid | 0o770
	}
	return mode | 0o660
}

func groupMatches(info fs.FileInfo, group int64) bool {
	gid, ok := groupOf(info)
	mode := groupMode(info)
	return ok && int64(gid) == group && info.Mode()&mode == mode
}
