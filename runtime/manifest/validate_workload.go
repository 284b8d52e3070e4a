package manifest

import (
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, validatePodSpec(&t.Spec, path.Child("spec"), false)...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// validateAlways checks what holds for all templates but those of jobs: their
// pods run for ever (RST-30, WL-21).
func validateAlways(t *corev1.PodTemplateSpec, owner string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+owner+" is not Supported"))
	}
	return errs
}

// validateSelector checks a workload's selector and that its template matches
// (WL-21). owner is the word upstream uses.
func validateSelector(s *metav1.LabelSelector, owner string, path *field.Path) (labels.Selector, field.ErrorList) {
	var errs field.ErrorList
	if s == nil {
		errs = append(errs, field.Required(path, ""))
	} else {
		errs = append(errs, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(path, s, "empty selector is invalid for "+owner))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		errs = append(errs, field.Invalid(path, s, "invalid label selector"))
		return nil, errs
	}
	return selector, errs
}

func validateMatch(selector labels.Selector, t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	if selector == nil || selector.Empty() || selector.Matches(labels.Set(t.Labels)) {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`")}
}

func nonNegative(path *field.Path, name string, v *int32) field.ErrorList {
	if v == nil {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(int64(*v), path.Child(name))
}

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, nonNegative(spec, "replicas", d.Spec.Replicas)...)
	selector, el := validateSelector(d.Spec.Selector, "deployment", spec.Child("selector"))
	errs = append(errs, el...)
	if selector != nil {
		errs = append(errs, validateMatch(selector, &d.Spec.Template, spec.Child("template"))...)
		errs = append(errs, validateTemplate(&d.Spec.Template, spec.Child("template"))...)
		errs = append(errs, validateAlways(&d.Spec.Template, "ReplicaSet", spec.Child("template"))...)
	}
	errs = append(errs, validateDeploymentStrategy(&d.Spec.Strategy, spec.Child("strategy"))...)
	errs = append(errs, nonNegative(spec, "minReadySeconds", &d.Spec.MinReadySeconds)...)
	errs = append(errs, nonNegative(spec, "revisionHistoryLimit", d.Spec.RevisionHistoryLimit)...)
	errs = append(errs, nonNegative(spec, "progressDeadlineSeconds", d.Spec.ProgressDeadlineSeconds)...)
	if p := d.Spec.ProgressDeadlineSeconds; p != nil && *p <= d.Spec.MinReadySeconds {
		errs = append(errs, field.Invalid(spec.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
	}
	return errs
}

func validateDeploymentStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		at := path.Child("rollingUpdate")
		u, surge := s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge
		errs := append(validateIntOrPercent(*u, at.Child("maxUnavailable")), validateIntOrPercent(*surge, at.Child("maxSurge"))...)
		if intOrPercent(*u) == 0 && intOrPercent(*surge) == 0 {
			errs = append(errs, field.Invalid(at.Child("maxUnavailable"), *u, "may not be 0 when `maxSurge` is 0"))
		}
		return append(errs, validateAtMost100(*u, at.Child("maxUnavailable"))...)
	}
	return field.ErrorList{field.NotSupported(path, s, []string{string(appsv1.RecreateDeploymentStrategyType), string(appsv1.RollingUpdateDeploymentStrategyType)})}
}

func validateIntOrPercent(v intstr.IntOrString, path *field.Path) field.ErrorList {
	if v.Type == intstr.String {
		return each(path, v, validation.IsValidPercent(v.StrVal))
	}
	return apivalidation.ValidateNonnegativeField(int64(v.IntValue()), path)
}

func percent(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, _ := strconv.Atoi(v.StrVal[:len(v.StrVal)-1])
	return n, true
}

func intOrPercent(v intstr.IntOrString) int {
	if n, ok := percent(v); ok {
		return n
	}
	return v.IntValue()
}

func validateAtMost100(v intstr.IntOrString, path *field.Path) field.ErrorList {
	if n, ok := percent(v); ok && n > 100 {
		return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
	}
	return nil
}

func validateReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, nonNegative(spec, "replicas", r.Spec.Replicas)...)
	errs = append(errs, nonNegative(spec, "minReadySeconds", &r.Spec.MinReadySeconds)...)
	// Upstream says deployment here too.
	selector, el := validateSelector(r.Spec.Selector, "deployment", spec.Child("selector"))
	errs = append(errs, el...)
	if selector != nil {
		errs = append(errs, validateMatch(selector, &r.Spec.Template, spec.Child("template"))...)
		errs = append(errs, validateTemplate(&r.Spec.Template, spec.Child("template"))...)
		errs = append(errs, validateAlways(&r.Spec.Template, "ReplicaSet", spec.Child("template"))...)
	}
	return errs
}

func validateDaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, metavalidation.ValidateLabelSelector(d.Spec.Selector, metavalidation.LabelSelectorValidationOptions{}, spec.Child("selector"))...)
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err == nil && !selector.Matches(labels.Set(d.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), d.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	if s := d.Spec.Selector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(spec.Child("selector"), s, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, validateTemplate(&d.Spec.Template, spec.Child("template"))...)
	errs = append(errs, validateAlways(&d.Spec.Template, "DaemonSet", spec.Child("template"))...)
	errs = append(errs, nonNegative(spec, "minReadySeconds", &d.Spec.MinReadySeconds)...)
	errs = append(errs, nonNegative(spec, "revisionHistoryLimit", d.Spec.RevisionHistoryLimit)...)
	u, at := &d.Spec.UpdateStrategy, spec.Child("updateStrategy")
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		errs = append(errs, validateDaemonSetUpdate(u.RollingUpdate, at.Child("rollingUpdate"))...)
	default:
		errs = append(errs, field.NotSupported(at, u, []string{string(appsv1.RollingUpdateDaemonSetStrategyType), string(appsv1.OnDeleteDaemonSetStrategyType)}))
	}
	return errs
}

func validateDaemonSetUpdate(r *appsv1.RollingUpdateDaemonSet, path *field.Path) field.ErrorList {
	u, surge := *r.MaxUnavailable, *r.MaxSurge
	errs := append(validateIntOrPercent(u, path.Child("maxUnavailable")), validateIntOrPercent(surge, path.Child("maxSurge"))...)
	errs = append(errs, validateAtMost100(u, path.Child("maxUnavailable"))...)
	errs = append(errs, validateAtMost100(surge, path.Child("maxSurge"))...)
	switch hasUnavailable, hasSurge := intOrPercent(u) != 0, intOrPercent(surge) != 0; {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateStatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	spec := field.NewPath("spec")
	// Pods are named after the set and an ordinal, hence the shorter names.
	errs := validateMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSLabel, field.NewPath("metadata"))
	add := func(e field.ErrorList) { errs = append(errs, e...) }
	switch s.Spec.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		add(field.ErrorList{field.Invalid(spec.Child("podManagementPolicy"), s.Spec.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'")})
	}
	add(validateStatefulSetUpdate(&s.Spec.UpdateStrategy, spec.Child("updateStrategy")))
	if p := s.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := spec.Child("persistentVolumeClaimRetentionPolicy")
		add(notSupported(at.Child("whenDeleted"), p.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType))
		add(notSupported(at.Child("whenScaled"), p.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType))
	}
	add(validateClaimTemplates(s.Spec.VolumeClaimTemplates, spec.Child("volumeClaimTemplates")))
	add(nonNegative(spec, "replicas", s.Spec.Replicas))
	add(nonNegative(spec, "minReadySeconds", &s.Spec.MinReadySeconds))
	if o := s.Spec.Ordinals; o != nil {
		add(nonNegative(spec, "ordinals.start", &o.Start))
	}
	if s.Spec.ServiceName != "" {
		add(validateLabelName(s.Spec.ServiceName, spec.Child("serviceName")))
	}
	selector, el := validateSelector(s.Spec.Selector, "statefulset", spec.Child("selector"))
	add(el)
	if selector != nil {
		// The controller overwrites hostname and subdomain; they may be anything.
		t := s.Spec.Template.DeepCopy()
		t.Spec.Hostname, t.Spec.Subdomain = "", ""
		t.Spec.Volumes = ClaimTemplateVolumes(s, t.Spec.Volumes, s.Name+"-0")
		add(validateMatch(selector, t, spec.Child("template")))
		add(validateTemplate(t, spec.Child("template")))
	}
	add(validateAlways(&s.Spec.Template, "StatefulSet", spec.Child("template")))
	return errs
}

// ClaimTemplateVolumes are the volumes of a pod of a StatefulSet: those of its template,
// and the claims that are made for it, which take the place of volumes with their names.
func ClaimTemplateVolumes(s *appsv1.StatefulSet, volumes []corev1.Volume, pod string) []corev1.Volume {
	volumes = slices.DeleteFunc(volumes, func(v corev1.Volume) bool {
		return slices.ContainsFunc(s.Spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == v.Name })
	})
	for i := range s.Spec.VolumeClaimTemplates {
		name := s.Spec.VolumeClaimTemplates[i].Name
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-" + pod},
		}})
	}
	return volumes
}

func validateClaimTemplates(templates []corev1.PersistentVolumeClaim, path *field.Path) (errs field.ErrorList) {
	names := map[string]bool{}
	for i := range templates {
		c, at := &templates[i], path.Index(i)
		name := at.Child("metadata", "name")
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(name, ""))
		case names[c.Name]:
			errs = append(errs, field.Duplicate(name, c.Name))
		default:
			errs = append(errs, validateLabelName(c.Name, name)...) // a volume's
		}
		names[c.Name] = true
		errs = append(errs, validateClaim(&c.Spec, at.Child("spec"))...)
	}
	return errs
}

func validateStatefulSetUpdate(u *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch r := u.RollingUpdate; u.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if r != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), r, "only allowed for updateStrategy 'RollingUpdate'")}
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r == nil {
			return nil
		}
		at := path.Child("rollingUpdate")
		errs := nonNegative(at, "partition", r.Partition)
		if m := r.MaxUnavailable; m != nil {
			errs = append(errs, validateIntOrPercent(*m, at.Child("maxUnavailable"))...)
			if intOrPercent(*m) == 0 {
				errs = append(errs, field.Invalid(at.Child("maxUnavailable"), *m, "cannot be 0"))
			}
			errs = append(errs, validateAtMost100(*m, at.Child("maxUnavailable"))...)
		}
		return errs
	default:
		return field.ErrorList{field.Invalid(path, u, "must be 'RollingUpdate' or 'OnDelete'")}
	}
	return nil
}

// validateJob validates a job. Its selector is generated by package workload
// (RST-30).
func validateJob(j *batchv1.Job) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&j.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	add := func(e field.ErrorList) { errs = append(errs, e...) }
	s := &j.Spec
	add(nonNegative(spec, "parallelism", s.Parallelism))
	add(nonNegative(spec, "completions", s.Completions))
	if s.ActiveDeadlineSeconds != nil {
		add(apivalidation.ValidateNonnegativeField(*s.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds")))
	}
	add(nonNegative(spec, "backoffLimit", s.BackoffLimit))
	add(nonNegative(spec, "ttlSecondsAfterFinished", s.TTLSecondsAfterFinished))
	unsupported := func(name, why string, set bool) {
		if set {
			add(field.ErrorList{field.Forbidden(spec.Child(name), "not supported yet: "+why)})
		}
	}
	if s.CompletionMode != nil {
		if *s.CompletionMode != batchv1.NonIndexedCompletion && *s.CompletionMode != batchv1.IndexedCompletion {
			add(field.ErrorList{field.NotSupported(spec.Child("completionMode"), *s.CompletionMode, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion})})
		}
		unsupported("completionMode", "Indexed", *s.CompletionMode == batchv1.IndexedCompletion)
	}
	unsupported("backoffLimitPerIndex", "jobs are not indexed", s.BackoffLimitPerIndex != nil)
	unsupported("maxFailedIndexes", "jobs are not indexed", s.MaxFailedIndexes != nil)
	unsupported("successPolicy", "jobs are not indexed", s.SuccessPolicy != nil)
	unsupported("podFailurePolicy", "every failed pod counts", s.PodFailurePolicy != nil)
	unsupported("managedBy", "jobs are managed by wasmpod", s.ManagedBy != nil)
	unsupported("manualSelector", "selectors are generated", s.ManualSelector != nil && *s.ManualSelector)
	unsupported("suspend", "jobs run at once", s.Suspend != nil && *s.Suspend)
	if p := s.PodReplacementPolicy; p != nil && s.PodFailurePolicy == nil {
		add(notSupported(spec.Child("podReplacementPolicy"), *p, batchv1.Failed, batchv1.TerminatingOrFailed))
	}
	add(validateTemplate(&s.Template, spec.Child("template")))
	switch p := s.Template.Spec.RestartPolicy; p {
	case corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
	case corev1.RestartPolicyAlways, "":
		add(field.ErrorList{field.Required(spec.Child("template", "spec", "restartPolicy"), fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))})
	default:
		add(field.ErrorList{field.NotSupported(spec.Child("template", "spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})})
	}
	return errs
}
