package manifest

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const fileModeError = "must be a number between 0 and 0777 (octal), both inclusive"

// volumes validates the volumes of the pod (MAN-23).
func (v *specValidator) volumes(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	v.valid = map[string]*corev1.Volume{}
	for i := range v.spec.Volumes {
		vol, at := &v.spec.Volumes[i], at.Index(i)
		el := validateVolumeSource(&vol.VolumeSource, at)
		if vol.Name == "" {
			el = append(el, field.Required(at.Child("name"), ""))
		} else {
			el = append(el, validateLabelName(vol.Name, at.Child("name"))...)
		}
		if _, ok := v.valid[vol.Name]; ok {
			el = append(el, field.Duplicate(at.Child("name"), vol.Name))
		}
		if len(el) == 0 {
			v.valid[vol.Name] = vol
		}
		errs = append(errs, el...)
	}
	return errs
}

// validateVolumeSource validates the sources that wasmpod supports; others
// are rejected by Fields whatever they hold.
func validateVolumeSource(s *corev1.VolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	sources := 0
	one := func(name string, set bool, validate func(at *field.Path) field.ErrorList) {
		if !set {
			return
		}
		sources++
		if sources > 1 {
			errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
			return
		}
		errs = append(errs, validate(at.Child(name))...)
	}
	if s.EmptyDir != nil {
		sources++
		if q := s.EmptyDir.SizeLimit; q != nil && q.Cmp(resource.Quantity{}) < 0 {
			errs = append(errs, field.Forbidden(at.Child("emptyDir").Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	}
	one("hostPath", s.HostPath != nil, func(at *field.Path) field.ErrorList {
		if s.HostPath.Path == "" {
			return field.ErrorList{field.Required(at.Child("path"), "")}
		}
		errs := validateNoBacksteps(s.HostPath.Path, at.Child("path"))
		if t := s.HostPath.Type; t != nil {
			errs = append(errs, notSupported(at.Child("type"), *t, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
				corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
		}
		return errs
	})
	one("secret", s.Secret != nil, func(at *field.Path) field.ErrorList {
		return validateProjection(s.Secret.SecretName, at.Child("secretName"), s.Secret.DefaultMode, s.Secret.Items, at)
	})
	one("configMap", s.ConfigMap != nil, func(at *field.Path) field.ErrorList {
		return validateProjection(s.ConfigMap.Name, at.Child("name"), s.ConfigMap.DefaultMode, s.ConfigMap.Items, at)
	})
	one("image", s.Image != nil, func(at *field.Path) field.ErrorList {
		var errs field.ErrorList
		if s.Image.Reference == "" {
			errs = append(errs, field.Required(at.Child("reference"), ""))
		}
		return append(errs, notSupported(at.Child("pullPolicy"), s.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	})
	one("persistentVolumeClaim", s.PersistentVolumeClaim != nil, func(at *field.Path) field.ErrorList {
		if s.PersistentVolumeClaim.ClaimName == "" {
			return field.ErrorList{field.Required(at.Child("claimName"), "")}
		}
		return nil
	})
	one("ephemeral", s.Ephemeral != nil, func(at *field.Path) field.ErrorList {
		at = at.Child("volumeClaimTemplate")
		if s.Ephemeral.VolumeClaimTemplate == nil {
			return field.ErrorList{field.Required(at, "")}
		}
		return validateClaim(&s.Ephemeral.VolumeClaimTemplate.Spec, at.Child("spec"))
	})
	one("downwardAPI", s.DownwardAPI != nil, func(at *field.Path) field.ErrorList { return validateDownwardAPI(s.DownwardAPI, at) })
	one("projected", s.Projected != nil, func(at *field.Path) field.ErrorList { return validateProjected(s.Projected, at) })
	return errs
}

// validateClaim validates what a claim asks for.
func validateClaim(s *corev1.PersistentVolumeClaimSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), "at least 1 access mode is required"))
	}
	for i, m := range s.AccessModes {
		errs = append(errs, notSupported(at.Child("accessModes").Index(i), m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
	}
	size, ok := s.Resources.Requests[corev1.ResourceStorage]
	switch at := at.Child("resources").Key(string(corev1.ResourceStorage)); {
	case !ok:
		errs = append(errs, field.Required(at, ""))
	case size.Sign() <= 0:
		errs = append(errs, field.Invalid(at, size.String(), "must be greater than zero"))
	}
	if s.VolumeMode != nil && *s.VolumeMode != corev1.PersistentVolumeFilesystem {
		errs = append(errs, field.Forbidden(at.Child("volumeMode"), "not supported: there are no block devices"))
	}
	return errs
}

func validateProjection(name string, nameAt *field.Path, mode *int32, items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(nameAt, ""))
	}
	errs = append(errs, validateMode(mode, at.Child("defaultMode"))...)
	for i, it := range items {
		at := at.Child("items").Index(i)
		if it.Key == "" {
			errs = append(errs, field.Required(at.Child("key"), ""))
		}
		if it.Path == "" {
			errs = append(errs, field.Required(at.Child("path"), ""))
		}
		errs = append(errs, validateDescending(it.Path, at.Child("path"))...)
		if strings.HasPrefix(it.Path, "..") && !strings.HasPrefix(it.Path, "../") {
			errs = append(errs, field.Invalid(at.Child("path"), it.Path, "must not start with '..'"))
		}
		errs = append(errs, validateMode(it.Mode, at.Child("mode"))...)
	}
	return errs
}

func validateMode(mode *int32, at *field.Path) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return field.ErrorList{field.Invalid(at, *mode, fileModeError)}
	}
	return nil
}

// validateDescending checks that a path stays below where it starts.
func validateDescending(p string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at, p, "must be a relative path"))
	}
	return append(errs, validateNoBacksteps(p, at)...)
}

func validateNoBacksteps(p string, at *field.Path) field.ErrorList {
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return field.ErrorList{field.Invalid(at, p, "must not contain '..'")}
		}
	}
	return nil
}

// mounts validates the volume mounts of a container (MAN-22).
func (v *specValidator) mounts(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	points := sets.New[string]()
	for i, m := range c.VolumeMounts {
		at := path.Index(i)
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if _, ok := v.valid[m.Name]; !ok {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		}
		if points.Has(m.MountPath) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		points.Insert(m.MountPath)
		// The paths without index are upstream's.
		if m.SubPath != "" {
			errs = append(errs, validateDescending(m.SubPath, path.Child("subPath"))...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, validateDescending(m.SubPathExpr, path.Child("subPathExpr"))...)
		}
		errs = append(errs, validatePropagation(&m, c, path)...)
	}
	return errs
}

func validatePropagation(m *corev1.VolumeMount, c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p := m.MountPropagation; p != nil {
		at := path.Child("mountPropagation")
		errs = append(errs, notSupported(at, *p, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
		privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
		if *p == corev1.MountPropagationBidirectional && !privileged {
			errs = append(errs, field.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if r := m.RecursiveReadOnly; r != nil {
		at := path.Child("recursiveReadOnly")
		switch *r {
		case corev1.RecursiveReadOnlyDisabled:
		case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
			if !m.ReadOnly {
				errs = append(errs, field.Forbidden(at, "may only be specified when readOnly is true"))
			}
			if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
				errs = append(errs, field.Forbidden(at, "may only be specified when mountPropagation is None or not specified"))
			}
		default:
			errs = append(errs, field.NotSupported(at, *r, []corev1.RecursiveReadOnlyMode{corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible}))
		}
	}
	return errs
}
