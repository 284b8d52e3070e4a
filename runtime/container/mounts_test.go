package container

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func withMounts(mounts ...corev1.VolumeMount) func(*corev1.Pod, *corev1.Container) {
	return func(pod *corev1.Pod, c *corev1.Container) {
		pod.Spec.Volumes = []corev1.Volume{
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}},
		}
		c.Env = []corev1.EnvVar{{Name: "NAME", Value: "n"}, {Name: "DEEP", Value: "a/../b"}, {Name: "UP", Value: ".."},
			{Name: "ABS", Value: "/etc"}, {Name: "EMPTY", Value: ""}}
		c.VolumeMounts = mounts
	}
}

func TestMounts(t *testing.T) {
	rro := corev1.RecursiveReadOnlyEnabled
	tests := []struct {
		name  string
		mount corev1.VolumeMount
		want  Mount
	}{
		{"VOL-33 relative is made absolute", corev1.VolumeMount{Name: "e", MountPath: "data/"}, Mount{Volume: "e", GuestPath: "/data"}},
		{"VOL-32 readOnly", corev1.VolumeMount{Name: "e", MountPath: "/d", ReadOnly: true}, Mount{Volume: "e", GuestPath: "/d", ReadOnly: true}},
		{"VOL-32 recursiveReadOnly", corev1.VolumeMount{Name: "e", MountPath: "/d", ReadOnly: true, RecursiveReadOnly: &rro}, Mount{Volume: "e", GuestPath: "/d", ReadOnly: true}},
		{"VOL-14 configMap is read-only", corev1.VolumeMount{Name: "cm", MountPath: "/d"}, Mount{Volume: "cm", GuestPath: "/d", ReadOnly: true}},
		{"VOL-14 secret is read-only", corev1.VolumeMount{Name: "s", MountPath: "/d"}, Mount{Volume: "s", GuestPath: "/d", ReadOnly: true}},
		{"VOL-30 subPath", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPath: "a//b/."}, Mount{Volume: "e", GuestPath: "/d", SubPath: "a/b"}},
		{"VOL-30 subPath of the volume itself", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPath: "."}, Mount{Volume: "e", GuestPath: "/d"}},
		{"VOL-30 names with dots are names", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPath: "..a/b.."}, Mount{Volume: "e", GuestPath: "/d", SubPath: "..a/b.."}},
		{"VOL-31 subPathExpr", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPathExpr: "x/$(NAME)/$$(NAME)"}, Mount{Volume: "e", GuestPath: "/d", SubPath: "x/n/$(NAME)"}},
		{"VOL-34 /etc/hosts is an ordinary mount", corev1.VolumeMount{Name: "e", MountPath: "/etc/hosts", SubPath: "hosts"}, Mount{Volume: "e", GuestPath: "/etc/hosts", SubPath: "hosts"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(withMounts(tt.mount))
			if diff := cmp.Diff([]Mount{tt.want}, mustConfig(t, pod, c, testInputs()).Mounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("VOL-33 a parent comes before what lies below it", func(t *testing.T) {
		pod, c := testPod(withMounts(
			corev1.VolumeMount{Name: "e", MountPath: "/a/b/c"}, corev1.VolumeMount{Name: "s", MountPath: "/z/y"},
			corev1.VolumeMount{Name: "e", MountPath: "/a/b"}, corev1.VolumeMount{Name: "cm", MountPath: "/"},
			corev1.VolumeMount{Name: "e", MountPath: "/a", SubPath: "q"}))
		var got []string
		for _, m := range mustConfig(t, pod, c, testInputs()).Mounts {
			got = append(got, m.GuestPath)
		}
		if diff := cmp.Diff([]string{"/", "/a", "/z/y", "/a/b", "/a/b/c"}, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestMountErrors(t *testing.T) {
	enabled, bidirectional := corev1.RecursiveReadOnlyEnabled, corev1.MountPropagationBidirectional
	tests := []struct {
		name  string
		mount corev1.VolumeMount
		want  string
	}{
		{"VOL-21 no such volume", corev1.VolumeMount{Name: "v", MountPath: "/d"}, `cannot find volume "v" to mount into container "c"`},
		{"VOL-31 unset or empty variables", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPathExpr: "$(Z)$(EMPTY)$(NAME)$(Z)"}, `missing value for EMPTY, Z`},
		{"VOL-31 absolute after expansion", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPathExpr: "$(ABS)"}, "error SubPath `/etc` must not be an absolute path"},
		{"VOL-31 up after expansion", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPathExpr: "a/$(UP)"}, "unable to provision SubPath `a/..`: must not contain '..'"},
		{"VOL-31 up in the middle", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPathExpr: "$(DEEP)"}, "unable to provision SubPath `a/../b`: must not contain '..'"},
		{"VOL-30 subPath absolute", corev1.VolumeMount{Name: "e", MountPath: "/d", SubPath: "/x"}, "error SubPath `/x` must not be an absolute path"},
		{"VOL-32 recursive but not read-only", corev1.VolumeMount{Name: "e", MountPath: "/d", RecursiveReadOnly: &enabled}, `failed to resolve recursive read-only mode: volume "e" requested recursive read-only mode, but it is not read-only`},
		{"VOL-32 recursive with propagation", corev1.VolumeMount{Name: "e", MountPath: "/d", ReadOnly: true, RecursiveReadOnly: &enabled, MountPropagation: &bidirectional},
			`failed to resolve recursive read-only mode: volume "e" requested recursive read-only mode, but it is not compatible with propagation "Bidirectional"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(withMounts(tt.mount))
			wantConfigError(t, pod, c, tt.want)
		})
	}
	t.Run("VOL-21 block mode", func(t *testing.T) {
		pod, c := testPod(withMounts(), func(_ *corev1.Pod, c *corev1.Container) {
			c.VolumeDevices = []corev1.VolumeDevice{{Name: "e", DevicePath: "/dev/x"}}
		})
		wantConfigError(t, pod, c, `cannot find volume "e" to pass into container "c"`)
	})
}
