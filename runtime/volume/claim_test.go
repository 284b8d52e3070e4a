package volume

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claimed(name string, readOnly bool) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: readOnly},
	}}
}

func withClaims(t *testing.T) *fixture {
	f := newFixture(t)
	f.config.Claims = filepath.Join(t.TempDir(), "claims")
	f.config.Claim = func(namespace, name string) (*corev1.PersistentVolumeClaim, bool) {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, name == "data"
	}
	return f
}

func TestClaimVOL41(t *testing.T) {
	t.Run("VOL-41 kept after the pod, and found by the next", func(t *testing.T) {
		f := withClaims(t)
		mount(t, f, testPod(claimed("data", false)))
		dir := pathOf(t, f, "v")
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Unmount(uid); err != nil {
			t.Fatal(err)
		}
		mount(t, f, testPod(claimed("data", true)))
		v, _ := f.Volume(uid, "v")
		if _, err := os.Stat(filepath.Join(v.Path, "kept")); err != nil || !v.ReadOnly || v.Path != dir {
			t.Errorf("%+v, %v", v, err)
		}
	})
	t.Run("VOL-41 there is no such claim", func(t *testing.T) {
		for _, name := range []string{"other", "../data"} {
			err := withClaims(t).Mount(t.Context(), testPod(claimed(name, false)))
			want := []string{`MountVolume.SetUp failed for volume "v" : persistentvolumeclaim "` + name + `" not found`}
			if diff := cmp.Diff(want, messages(t, err)); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("VOL-41 a generic ephemeral volume goes with its pod", func(t *testing.T) {
		f := newFixture(t)
		mount(t, f, testPod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}))
		dir := pathOf(t, f, "v")
		if err := f.Unmount(uid); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	})
	t.Run("VOL-42 SEC-05 fsGroup goes over all that is there", func(t *testing.T) {
		f := withClaims(t)
		mount(t, f, testPod(claimed("data", false)))
		dir := pathOf(t, f, "v")
		outside := filepath.Join(t.TempDir(), "outside")
		for _, err := range []error{
			os.Mkdir(filepath.Join(dir, "d"), 0o700),
			os.WriteFile(filepath.Join(dir, "d/f"), nil, 0o600),
			os.WriteFile(outside, nil, 0o600),
			os.Symlink(outside, filepath.Join(dir, "link")),
			f.Unmount(uid),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		group := int64(os.Getgid())
		if os.Geteuid() == 0 {
			group = 1234
		}
		pod := testPod(claimed("data", false))
		onMismatch := corev1.FSGroupChangeOnRootMismatch
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group, FSGroupChangePolicy: &onMismatch}
		mount(t, f, pod)
		look := func(name string, mode os.FileMode) {
			t.Helper()
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != mode || int64(gid) != group {
				t.Errorf("%s: %v of group %d; want %v of %d", name, info.Mode(), gid, mode, group)
			}
		}
		look(".", os.ModeDir|os.ModeSetgid|0o777)
		look("d", os.ModeDir|os.ModeSetgid|0o770)
		look("d/f", 0o660)
		if info, err := os.Stat(outside); err != nil || info.Mode() != 0o600 {
			t.Errorf("what a link leads to is %v, %v", info.Mode(), err)
		}
		// The root matches: nothing is looked at.
		for _, err := range []error{os.Chmod(filepath.Join(dir, "d/f"), 0o600), f.Unmount(uid)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		mount(t, f, pod)
		look("d/f", 0o600)
	})
}

func TestClaimAccessVOL41(t *testing.T) {
	with := func(t *testing.T, size string, modes ...corev1.PersistentVolumeAccessMode) *fixture {
		f := withClaims(t)
		f.config.Claim = func(namespace, name string) (*corev1.PersistentVolumeClaim, bool) {
			c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
			c.Spec.AccessModes = modes
			c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
			return c, true
		}
		return f
	}
	other := func() *corev1.Pod {
		pod := testPod(claimed("data", false))
		pod.UID = "other"
		return pod
	}
	t.Run("ReadWriteOncePod is for one pod at a time", func(t *testing.T) {
		f := with(t, "1Mi", corev1.ReadWriteOncePod)
		mount(t, f, testPod(claimed("data", false)))
		want := []string{`MountVolume.SetUp failed for volume "v" : volume uses the ReadWriteOncePod access mode and is already in use by another pod`}
		if diff := cmp.Diff(want, messages(t, f.Mount(t.Context(), other()))); diff != "" {
			t.Error(diff)
		}
		mount(t, f, testPod(claimed("data", false))) // again
		if err := f.Unmount(uid); err != nil {
			t.Fatal(err)
		}
		mount(t, f, other())
	})
	t.Run("ReadWriteOnce is for one node", func(t *testing.T) {
		f := with(t, "1Mi", corev1.ReadWriteOnce)
		mount(t, f, testPod(claimed("data", false)))
		mount(t, f, other())
	})
	t.Run("ReadOnlyMany is read-only", func(t *testing.T) {
		for _, tt := range []struct {
			modes []corev1.PersistentVolumeAccessMode
			want  bool
		}{
			{[]corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, true},
			{[]corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteOnce}, false},
		} {
			f := with(t, "1Mi", tt.modes...)
			mount(t, f, testPod(claimed("data", false)))
			if v, _ := f.Volume(uid, "v"); v.ReadOnly != tt.want {
				t.Errorf("%v: %+v", tt.modes, v)
			}
		}
	})
	t.Run("a claim that no file system could hold is not bound", func(t *testing.T) {
		f := with(t, "4Ei", corev1.ReadWriteOnce)
		got := messages(t, f.Mount(t.Context(), testPod(claimed("data", false))))
		if len(got) != 1 || !strings.Contains(got[0], `persistentvolumeclaim "data" is not bound: it requests 4Ei of storage, and the file system of claims has `) {
			t.Errorf("%q", got)
		}
		// One that is bound stays so.
		if err := os.MkdirAll(filepath.Join(f.config.Claims, "ns", "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		pod := testPod(claimed("data", false))
		pod.Namespace = "ns"
		mount(t, f, pod)
	})
}
