package container

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestRunAs(t *testing.T) {
	pod := func(user, group *int64) *corev1.PodSecurityContext {
		return &corev1.PodSecurityContext{RunAsUser: user, RunAsGroup: group}
	}
	for _, tt := range []struct {
		id       string
		pod      *corev1.PodSecurityContext
		c        *corev1.SecurityContext
		image    string
		uid, gid *int64
	}{
		{"SEC-04 nothing known", nil, nil, "", nil, nil},
		{"SEC-04 image", nil, nil, "65532:65533", ptr(int64(65532)), ptr(int64(65533))},
		{"SEC-04 image names are not resolved", nil, nil, "nginx:www", nil, nil},
		{"SEC-01 pod", pod(ptr(int64(1)), ptr(int64(2))), nil, "9:9", ptr(int64(1)), ptr(int64(2))},
		{"SEC-01 container over pod, field by field", pod(ptr(int64(1)), ptr(int64(2))), &corev1.SecurityContext{RunAsUser: ptr(int64(3))}, "9", ptr(int64(3)), ptr(int64(2))},
		{"SEC-01 the image's group goes with its user", pod(ptr(int64(1)), nil), nil, "9:9", ptr(int64(1)), nil},
	} {
		t.Run(tt.id, func(t *testing.T) {
			p, c := testPod(func(p *corev1.Pod, c *corev1.Container) { p.Spec.SecurityContext, c.SecurityContext = tt.pod, tt.c })
			in := testInputs()
			in.Image.User = tt.image
			cfg := mustConfig(t, p, c, in)
			if diff := cmp.Diff([]*int64{tt.uid, tt.gid}, []*int64{cfg.UID, cfg.GID}); diff != "" {
				t.Errorf("uid, gid (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("SEC-02 readOnlyRootFilesystem", func(t *testing.T) {
		p, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(true)}
		})
		if !mustConfig(t, p, c, testInputs()).ReadOnlyRootFS {
			t.Error("not read-only")
		}
	})
}

func TestRunAsNonRoot(t *testing.T) {
	const where = `(pod: "p_ns(uid-1)", container: c)`
	for _, tt := range []struct {
		id         string
		podNonRoot *bool
		c          *corev1.SecurityContext
		image      string
		want       string
	}{
		{"SEC-03 runAsUser 0", ptr(true), &corev1.SecurityContext{RunAsUser: ptr(int64(0))}, "5", "container's runAsUser breaks non-root policy " + where},
		{"SEC-03 runAsUser 7", ptr(true), &corev1.SecurityContext{RunAsUser: ptr(int64(7))}, "", ""},
		{"SEC-03 image without user", ptr(true), nil, "", "container has runAsNonRoot and image will run as root " + where},
		{"SEC-03 image user 0", ptr(true), nil, "0:5", "container has runAsNonRoot and image will run as root " + where},
		{"SEC-03 image user by name", ptr(true), nil, "nginx:www", "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root " + where},
		{"SEC-03 image user by number", ptr(true), nil, "101", ""},
		{"SEC-03 image user out of range", ptr(true), nil, "4294967296", "container has runAsNonRoot and image has an invalid user id (4294967296). (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive " + where},
		{"SEC-01 the container allows root", ptr(true), &corev1.SecurityContext{RunAsNonRoot: ptr(false)}, "0", ""},
		{"SEC-01 the container forbids root", nil, &corev1.SecurityContext{RunAsNonRoot: ptr(true)}, "0", "container has runAsNonRoot and image will run as root " + where},
		{"SEC-03 not asked for", nil, nil, "0", ""},
	} {
		t.Run(tt.id, func(t *testing.T) {
			pod, c := testPod(func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: tt.podNonRoot}
				c.SecurityContext = tt.c
			})
			in := testInputs()
			in.Image.User = tt.image
			if tt.want == "" {
				mustConfig(t, pod, c, in)
				return
			}
			if ce := configErrorOf(t, pod, c, in); ce.Message != tt.want || ce.Reason != "CreateContainerConfigError" {
				t.Errorf("got %q, want %q", ce.Message, tt.want)
			}
		})
	}
}

func TestUserOfStatus(t *testing.T) {
	for _, tt := range []struct {
		id    string
		pod   *corev1.PodSecurityContext
		image string
		want  string
	}{
		{"STATE-13 root", nil, "", "0:0 [0]"},
		{"STATE-13 the image's", nil, "65532:65533", "65532:65533 [65533]"},
		{"STATE-13 a name is not resolved", nil, "nginx", "unknown"},
		{"STATE-13 SEC-04 the pod's", &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000)), RunAsGroup: ptr(int64(3000)), FSGroup: ptr(int64(2000)), SupplementalGroups: []int64{4000, 3000}},
			"nginx", "1000:3000 [3000 4000 2000]"},
	} {
		t.Run(tt.id, func(t *testing.T) {
			p, c := testPod(func(p *corev1.Pod, _ *corev1.Container) { p.Spec.SecurityContext = tt.pod })
			in := testInputs()
			in.Image.User = tt.image
			cfg := mustConfig(t, p, c, in)
			got := "unknown"
			if u := User(p, &cfg, tt.image); u != nil {
				got = fmt.Sprintf("%d:%d %v", u.Linux.UID, u.Linux.GID, u.Linux.SupplementalGroups)
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
