package manifest

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumeFieldPaths are the fields that a downwardAPI volume can show, besides
// labels and annotations by key (DAPI-02).
var volumeFieldPaths = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}

// validateDownwardAPI validates a downwardAPI volume. The paths without index
// are upstream's.
func validateDownwardAPI(s *corev1.DownwardAPIVolumeSource, at *field.Path) field.ErrorList {
	errs := validateMode(s.DefaultMode, at.Child("defaultMode"))
	for i := range s.Items {
		errs = append(errs, validateDownwardAPIFile(&s.Items[i], at)...)
	}
	return errs
}

func validateDownwardAPIFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	errs := validateLocalPath(f.Path, at.Child("path"))
	switch {
	case f.FieldRef != nil:
		errs = append(errs, validateVolumeFieldRef(f.FieldRef, at.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		if at := at.Child("resourceFieldRef"); f.ResourceFieldRef.ContainerName == "" {
			errs = append(errs, field.Required(at.Child("containerName"), ""))
		} else {
			errs = append(errs, validateResourceFieldRef(f.ResourceFieldRef, at)...)
		}
	default:
		errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, validateMode(f.Mode, at.Child("mode"))...)
}

func validateVolumeFieldRef(f *corev1.ObjectFieldSelector, at *field.Path) field.ErrorList {
	for _, p := range volumeFieldPaths {
		if f.FieldPath == p && f.APIVersion == "v1" {
			return nil
		}
	}
	for _, p := range envFieldPaths {
		if f.FieldPath == p && f.APIVersion == "v1" {
			return field.ErrorList{field.NotSupported(at.Child("fieldPath"), f.FieldPath, volumeFieldPaths)}
		}
	}
	errs := validateFieldRef(f, at)
	for _, e := range errs {
		if e.Type == field.ErrorTypeNotSupported {
			return field.ErrorList{field.NotSupported(at.Child("fieldPath"), f.FieldPath, volumeFieldPaths)}
		}
	}
	if len(errs) == 0 && !strings.Contains(f.FieldPath, "[") {
		return field.ErrorList{field.NotSupported(at.Child("fieldPath"), f.FieldPath, volumeFieldPaths)}
	}
	return errs
}

// validateLocalPath validates the path of a file in a projected volume.
func validateLocalPath(p string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p == "" {
		errs = append(errs, field.Required(at, ""))
	}
	errs = append(errs, validateDescending(p, at)...)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at, p, "must not start with '..'"))
	}
	return errs
}

// validateProjected validates a projected volume (VOL-16).
func validateProjected(s *corev1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	errs := validateMode(s.DefaultMode, at.Child("defaultMode"))
	paths := sets.New[string]()
	unique := func(p, named string) {
		if p != "" && paths.Has(p) {
			errs = append(errs, field.Invalid(at, named, "conflicting duplicate paths"))
		}
		paths.Insert(p)
	}
	keys := func(name string, items []corev1.KeyToPath, at *field.Path) {
		errs = append(errs, validateProjection(name, at.Child("name"), nil, items, at)...)
		for _, it := range items {
			unique(it.Path, name)
		}
	}
	for i := range s.Sources {
		source, at := &s.Sources[i], at.Child("sources").Index(i)
		n := 0
		if source.Secret != nil {
			n++
			keys(source.Secret.Name, source.Secret.Items, at.Child("secret"))
		}
		if source.ConfigMap != nil {
			n++
			keys(source.ConfigMap.Name, source.ConfigMap.Items, at.Child("configMap"))
		}
		if source.DownwardAPI != nil {
			n++
			for i := range source.DownwardAPI.Items {
				f := &source.DownwardAPI.Items[i]
				errs = append(errs, validateDownwardAPIFile(f, at.Child("downwardAPI"))...)
				unique(f.Path, f.Path)
			}
		}
		if n > 1 {
			errs = append(errs, field.Forbidden(at, "may not specify more than 1 volume type per source"))
		}
	}
	return errs
}
