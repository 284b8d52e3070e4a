package container

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// runAs is the part of a security context that means something for a guest.
type runAs struct {
	user, group *int64
	nonRoot     *bool
}

// effectiveRunAs lays the container's values over the pod's, field by field
// (SEC-01).
func effectiveRunAs(pod *corev1.Pod, c *corev1.Container) runAs {
	var r runAs
	if sc := pod.Spec.SecurityContext; sc != nil {
		r = runAs{sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot}
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			r.user = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			r.group = sc.RunAsGroup
		}
		if sc.RunAsNonRoot != nil {
			r.nonRoot = sc.RunAsNonRoot
		}
	}
	return r
}

// effectiveUser is who the container runs as (SEC-04): what the Pod says, else
// the image's numeric user. nil is unknown, because a guest has no passwd file
// that could be trusted to resolve a name.
func effectiveUser(pod *corev1.Pod, c *corev1.Container, imageUser string) (uid, gid *int64) {
	r := effectiveRunAs(pod, c)
	uid, gid = clone(r.user), clone(r.group)
	user, group, _ := strings.Cut(imageUser, ":")
	if uid == nil {
		uid = parseID(user)
		if gid == nil {
			gid = parseID(group)
		}
	}
	return uid, gid
}

// User is who the container's process is for the status (STATE-13, SEC-04): root where
// nothing says anything else. nil is unknown: the image names a user.
func User(pod *corev1.Pod, c *Config, imageUser string) *corev1.ContainerUser {
	if c.UID == nil && imageUser != "" {
		return nil
	}
	u := &corev1.LinuxContainerUser{}
	if c.UID != nil {
		u.UID = *c.UID
	}
	if c.GID != nil {
		u.GID = *c.GID
	}
	groups := []int64{u.GID}
	if sc := pod.Spec.SecurityContext; sc != nil {
		groups = append(groups, sc.SupplementalGroups...)
		if sc.FSGroup != nil {
			groups = append(groups, *sc.FSGroup)
		}
	}
	for _, g := range groups {
		if !slices.Contains(u.SupplementalGroups, g) {
			u.SupplementalGroups = append(u.SupplementalGroups, g)
		}
	}
	return &corev1.ContainerUser{Linux: u}
}

func clone(p *int64) *int64 {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func parseID(s string) *int64 {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 0 || id > math.MaxInt32 {
		return nil
	}
	return &id
}

// verifyRunAsNonRoot implements SEC-03.
func verifyRunAsNonRoot(pod *corev1.Pod, c *corev1.Container, imageUser string) error {
	r := effectiveRunAs(pod, c)
	if !isTrue(r.nonRoot) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID), c.Name)
	if r.user != nil {
		if *r.user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
		}
		return nil
	}
	user, _, _ := strings.Cut(imageUser, ":")
	if user == "" {
		user = "0"
	}
	uid, err := strconv.ParseInt(user, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user, where)
	case uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	if problems := validation.IsValidUserID(uid); len(problems) > 0 {
		return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d). (Must be 1-(%d)): %s %s",
			uid, math.MaxInt32, strings.Join(problems, "; "), where)
	}
	return nil
}
