package manifest

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wasmpod/wasmpod/cgroup"
)

const updateForbidden = "pod updates may not change fields other than `metadata.labels`, `metadata.annotations`, " +
	"`spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations), " +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative) " +
	"and cpu and memory of `spec.containers[*].resources`"

// ValidatePodUpdate reports every reason for which the definition of a living pod
// may not become another: what may change are labels and annotations, an active
// deadline that is new or shorter (DEAD-03), tolerations that are added, images, and
// the cpu and memory of containers that can be resized (MAN-27, RES-20). Both pods
// have been defaulted.
func ValidatePodUpdate(pod, old *corev1.Pod) field.ErrorList {
	errs := validatePod(pod)
	path := field.NewPath("spec")
	errs = append(errs, validateMetaUpdate(pod, old)...)
	errs = append(errs, validateDeadlineUpdate(&pod.Spec, &old.Spec, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, validateResize(&pod.Spec, &old.Spec, path)...)

	// With all that may change undone nothing else is left.
	rest := pod.Spec.DeepCopy()
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	if n := len(old.Spec.Tolerations); len(rest.Tolerations) >= n && equality.Semantic.DeepEqual(rest.Tolerations[:n:n], old.Spec.Tolerations[:n:n]) {
		rest.Tolerations = old.Spec.Tolerations
	}
	undo := func(list, before []corev1.Container) {
		for i := range min(len(list), len(before)) {
			list[i].Resources, list[i].Image = before[i].Resources, before[i].Image
		}
	}
	undo(rest.InitContainers, old.Spec.InitContainers)
	undo(rest.Containers, old.Spec.Containers)
	if !equality.Semantic.DeepEqual(rest, &old.Spec) {
		errs = append(errs, field.Forbidden(path, updateForbidden))
	}
	return errs
}

func validateMetaUpdate(pod, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata")
	for _, f := range []struct{ name, now, before string }{
		{"name", pod.Name, old.Name}, {"namespace", pod.Namespace, old.Namespace}, {"uid", string(pod.UID), string(old.UID)},
	} {
		if f.now != f.before {
			errs = append(errs, field.Invalid(path.Child(f.name), f.now, "field is immutable"))
		}
	}
	return errs
}

// validateDeadlineUpdate follows DEAD-03.
func validateDeadlineUpdate(s, old *corev1.PodSpec, path *field.Path) field.ErrorList {
	now, before := s.ActiveDeadlineSeconds, old.ActiveDeadlineSeconds
	switch {
	case before == nil || now != nil && *now <= *before:
		return nil
	case now == nil:
		return field.ErrorList{field.Invalid(path, now, "must not update from a positive integer to nil value")}
	}
	return field.ErrorList{field.Invalid(path, *now, "must be less than or equal to previous value")}
}

// validateResize follows RES-20.
func validateResize(s, old *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	resized := false
	check := func(list, before []corev1.Container, init bool, at *field.Path) {
		for i := range min(len(list), len(before)) {
			c, was := &list[i], &before[i]
			if equality.Semantic.DeepEqual(c.Resources, was.Resources) {
				continue
			}
			resized = true
			at := at.Index(i).Child("resources")
			if init && !isSidecar(c) {
				errs = append(errs, field.Forbidden(at, "resources of non-sidecar init containers cannot be changed"))
				continue
			}
			errs = append(errs, validateResizedList(c.Resources.Limits, was.Resources.Limits, at.Child("limits"))...)
			errs = append(errs, validateResizedList(c.Resources.Requests, was.Resources.Requests, at.Child("requests"))...)
		}
	}
	check(s.InitContainers, old.InitContainers, true, path.Child("initContainers"))
	check(s.Containers, old.Containers, false, path.Child("containers"))
	if now, before := cgroup.QOSClass(s), cgroup.QOSClass(old); resized && now != before {
		errs = append(errs, field.Invalid(path, now, "Pod QOS Class may not change as a result of resizing"))
	}
	return errs
}

// validateResizedList: only cpu and memory change, and neither is removed.
func validateResizedList(list, before corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := corev1.ResourceList{}
	for name, q := range list {
		names[name] = q
	}
	for name, q := range before {
		names[name] = q
	}
	for _, name := range sortedNames(names) {
		now, ok := list[name]
		was, had := before[name]
		switch {
		case ok == had && now.Cmp(was) == 0:
		case name != corev1.ResourceCPU && name != corev1.ResourceMemory:
			errs = append(errs, field.Forbidden(path.Key(string(name)), "only cpu and memory resources are mutable"))
		case !ok:
			errs = append(errs, field.Forbidden(path.Key(string(name)), "resource limits and requests cannot be removed"))
		}
	}
	return errs
}
