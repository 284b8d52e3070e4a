package manifest

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions of this file and its siblings are one for one those of
// upstream's pkg/apis/core/validation, with the same paths and messages, so
// that a manifest gets the same answer here as from an API server. What
// wasmpod cannot do is not their business but that of Fields.

// ValidatePod validates a pod that DefaultPod has filled in, as on creation
// (MAN-07, MAN-13..26, WL-01, SEC-07). It also rejects what wasmpod does not
// support. The pod is not changed.
func ValidatePod(pod *corev1.Pod) field.ErrorList {
	errs, _ := checkSupport(&pod.Spec, field.NewPath("spec"))
	return append(unsupportedValues(&pod.Spec, field.NewPath("spec")), append(errs, validatePod(pod)...)...)
}

// validatePod is ValidatePod without the check of what wasmpod supports.
func validatePod(pod *corev1.Pod) field.ErrorList {
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	errs := validateMeta(&pod.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, meta)
	errs = append(errs, validatePodSpec(&pod.Spec, spec, true)...)
	for i := range pod.Spec.Containers {
		errs = append(errs, validateImagePadding(&pod.Spec.Containers[i], spec.Child("containers").Index(i))...)
	}
	for i := range pod.Spec.InitContainers {
		errs = append(errs, validateImagePadding(&pod.Spec.InitContainers[i], spec.Child("initContainers").Index(i))...)
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// validateMeta validates the metadata of any object. An object that is to get
// a generated name is validated as if it had it.
func validateMeta(m *metav1.ObjectMeta, namespaced bool, name apivalidation.ValidateNameFunc, path *field.Path) field.ErrorList {
	if m.Name == "" && m.GenerateName != "" {
		named := *m
		named.Name = m.GenerateName + "x"
		m = &named
	}
	errs := apivalidation.ValidateObjectMeta(m, namespaced, name, path)
	for i, f := range m.Finalizers {
		errs = append(errs, validateFinalizer(f, path.Child("finalizers").Index(i))...)
	}
	return errs
}

func validateFinalizer(f string, path *field.Path) field.ErrorList {
	if !strings.Contains(f, "/") && f != string(corev1.FinalizerKubernetes) && f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
		return field.ErrorList{field.Invalid(path, f, "name is neither a standard finalizer name nor is it fully qualified")}
	}
	return nil
}

func validateImagePadding(c *corev1.Container, path *field.Path) field.ErrorList {
	if strings.TrimSpace(c.Image) != c.Image {
		return field.ErrorList{field.Invalid(path.Child("image"), c.Image, "must not have leading or trailing whitespace")}
	}
	return nil
}

// each turns the messages of a validation function into errors.
func each(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

func validateLabelName(value string, path *field.Path) field.ErrorList {
	return each(path, value, validation.IsDNS1123Label(value))
}

// supportedValue checks an enumerated value; upstream lists the choices sorted.
func supportedValue[T ~string](path *field.Path, value T, choices ...T) field.ErrorList {
	for _, c := range choices {
		if value == c {
			return nil
		}
	}
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, value, choices)}
}

// validatePodSpec validates the spec of a pod or, with isPod false, of a pod
// template.
func validatePodSpec(s *corev1.PodSpec, path *field.Path, isPod bool) field.ErrorList {
	var errs field.ErrorList
	add := func(e field.ErrorList) { errs = append(errs, e...) }
	if s.TerminationGracePeriodSeconds == nil {
		add(field.ErrorList{field.Required(path.Child("terminationGracePeriodSeconds"), "")})
	}
	v := &specValidator{spec: s}
	add(v.volumes(path.Child("volumes")))
	add(v.containers(path.Child("containers")))
	add(v.initContainers(path.Child("initContainers")))
	add(validatePodResources(s, path.Child("resources")))
	add(validateHostNetworkPorts(s, path.Child("containers"), isPod))
	add(supportedValue(path.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))
	add(supportedValue(path.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone))
	add(metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector")))
	add(validatePodSecurityContext(s, path.Child("securityContext")))
	add(validateDNSConfig(s, path.Child("dnsConfig")))
	for i, g := range s.ReadinessGates {
		add(each(path.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType), validation.IsQualifiedName(string(g.ConditionType))))
	}
	gates := sets.New[string]()
	for i, g := range s.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		add(each(at, g.Name, validation.IsQualifiedName(g.Name)))
		if gates.Has(g.Name) {
			add(field.ErrorList{field.Duplicate(at, g.Name)})
		}
		gates.Insert(g.Name)
	}
	add(validateHostUsers(s, path))
	add(validateHostnameOverride(s, path))
	add(validateFileKeyVolumes(s, path))
	subdomain := func(name, value string) {
		if value != "" {
			add(each(path.Child(name), value, apivalidation.NameIsDNSSubdomain(value, false)))
		}
	}
	subdomain("serviceAccountName", s.ServiceAccountName)
	subdomain("nodeName", s.NodeName)
	subdomain("priorityClassName", s.PriorityClassName)
	if s.RuntimeClassName != nil {
		add(each(path.Child("runtimeClassName"), *s.RuntimeClassName, apivalidation.NameIsDNSSubdomain(*s.RuntimeClassName, false)))
	}
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		add(field.ErrorList{field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32))})
	}
	if s.Hostname != "" {
		add(validateLabelName(s.Hostname, path.Child("hostname")))
	}
	if s.Subdomain != "" {
		add(validateLabelName(s.Subdomain, path.Child("subdomain")))
	}
	add(validateTolerations(s.Tolerations, path.Child("tolerations")))
	for i, a := range s.HostAliases {
		at := path.Child("hostAliases").Index(i)
		add(validation.IsValidIPForLegacyField(at.Child("ip"), a.IP, true, nil))
		for j, h := range a.Hostnames {
			add(each(at.Child("hostnames").Index(j), h, validation.IsDNS1123Subdomain(h)))
		}
	}
	if s.PreemptionPolicy != nil {
		add(supportedValue(path.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever))
	}
	if s.Overhead != nil {
		add(validateResources(&corev1.ResourceRequirements{Limits: s.Overhead}, validateContainerResourceName, path.Child("overhead")))
	}
	if s.OS != nil {
		switch s.OS.Name {
		case corev1.Linux, corev1.Windows:
		case "":
			add(field.ErrorList{field.Required(path.Child("os").Child("name"), "")})
		default:
			add(field.ErrorList{field.NotSupported(path.Child("os"), s.OS.Name, []corev1.OSName{corev1.Linux, corev1.Windows})})
		}
	}
	return errs
}

func validateHostNetworkPorts(s *corev1.PodSpec, path *field.Path, isPod bool) field.ErrorList {
	var errs field.ErrorList
	if !s.HostNetwork {
		return nil
	}
	for i := range s.Containers {
		for j, p := range s.Containers[i].Ports {
			if (isPod || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				errs = append(errs, field.Invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

func validateHostUsers(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.HostUsers == nil || *s.HostUsers {
		return nil
	}
	// The capital letters are upstream's.
	for _, f := range []struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"HostPID", s.HostPID}, {"HostIPC", s.HostIPC}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "when `hostUsers` is false"))
		}
	}
	return errs
}

func validateHostnameOverride(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	if s.HostnameOverride == nil {
		return nil
	}
	at := path.Child("hostnameOverride")
	var errs field.ErrorList
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(at, "may not be specified when setHostnameAsFQDN is true"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(at, "may not be specified when hostNetwork is true"))
	}
	if len(*s.HostnameOverride) > 64 {
		errs = append(errs, field.TooLong(at, "", 64))
	}
	return append(errs, each(at, *s.HostnameOverride, validation.IsDNS1123Subdomain(*s.HostnameOverride))...)
}

func validatePodSecurityContext(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	c := s.SecurityContext
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	if c.FSGroup != nil {
		errs = append(errs, each(path.Child("fsGroup"), *c.FSGroup, validation.IsValidGroupID(*c.FSGroup))...)
	}
	if c.RunAsUser != nil {
		errs = append(errs, each(path.Child("runAsUser"), *c.RunAsUser, validation.IsValidUserID(*c.RunAsUser))...)
	}
	if c.RunAsGroup != nil {
		errs = append(errs, each(path.Child("runAsGroup"), *c.RunAsGroup, validation.IsValidGroupID(*c.RunAsGroup))...)
	}
	for i, g := range c.SupplementalGroups {
		errs = append(errs, each(path.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))...)
	}
	// Upstream keeps the field in the security context, hence the path.
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace && s.HostPID {
		errs = append(errs, field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if c.FSGroupChangePolicy != nil {
		errs = append(errs, notSupported(path.Child("fsGroupChangePolicy"), *c.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	if c.SupplementalGroupsPolicy != nil {
		errs = append(errs, notSupported(path.Child("supplementalGroupsPolicy"), *c.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	return append(errs, validateSeccomp(c.SeccompProfile, path.Child("seccompProfile"))...)
}

// notSupported is supportedValue for fields where "" is one more bad value.
func notSupported[T ~string](path *field.Path, value T, choices ...T) field.ErrorList {
	for _, c := range choices {
		if value == c {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, value, choices)}
}

const (
	maxNameservers   = 3
	maxSearchPaths   = 32
	maxSearchListLen = 2048
)

func validateDNSConfig(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	c := s.DNSConfig
	if s.DNSPolicy == corev1.DNSNone {
		if c == nil {
			return field.ErrorList{field.Required(path, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone))}
		}
		if len(c.Nameservers) == 0 {
			return field.ErrorList{field.Required(path.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone))}
		}
	}
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	if len(c.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(path.Child("nameservers"), c.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), ns, true, nil)...)
	}
	if len(c.Searches) > maxSearchPaths {
		errs = append(errs, field.Invalid(path.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearchPaths)))
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchListLen {
		errs = append(errs, field.Invalid(path.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchListLen)))
	}
	for i, search := range c.Searches {
		if search != "." {
			search = strings.TrimSuffix(search, ".")
			errs = append(errs, each(path.Child("searches").Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))...)
		}
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

func validateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		at := path.Index(i)
		if t.Key != "" {
			errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if m := validation.IsValidLabelValue(t.Value); len(m) > 0 {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, strings.Join(m, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, notSupported(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		}
	}
	return errs
}
