package manifest

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// standardResources are the names without a domain that mean something
// somewhere in the API; only some of them are resources of containers.
var standardResources = sets.New[corev1.ResourceName]("cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage",
	"limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
	"persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers")

var integerResources = sets.New[corev1.ResourceName]("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
	"persistentvolumeclaims", "services.nodeports", "services.loadbalancers")

func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

func isExtended(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

func overcommitAllowed(name corev1.ResourceName) bool { return isNative(name) && !isHugePages(name) }

type resourceNameFunc func(name corev1.ResourceName, path *field.Path) field.ErrorList

func validateResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := each(path, name, validation.IsQualifiedName(string(name))); len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(name), "/") && !standardResources.Has(name) && !isHugePages(name) && !strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix) {
		return field.ErrorList{field.Invalid(path, name, "must be a standard resource type or fully qualified")}
	}
	return nil
}

func validateContainerResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := validateResourceName(name, path)
	if !strings.Contains(string(name), "/") {
		if name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage && !isHugePages(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	} else if !isNative(name) && !isExtended(name) {
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

func validatePodResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := validateResourceName(name, path); len(errs) > 0 {
		return errs
	}
	if !isPodLevelResource(name) {
		return field.ErrorList{field.NotSupported(path, name, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceHugePagesPrefix, corev1.ResourceMemory})}
	}
	return nil
}

// sortedNames makes the order of problems the same each time.
func sortedNames(l corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(l))
	for n := range l {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return names[i] < names[j] })
	return names
}

// validateResources validates requests and limits (MAN-24).
func validateResources(r *corev1.ResourceRequirements, name resourceNameFunc, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, compute := false, false
	value := func(n corev1.ResourceName, q resource.Quantity, at *field.Path) {
		errs = append(errs, name(n, at)...)
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(at, q.String(), "must be greater than or equal to 0"))
		}
		if (integerResources.Has(n) || isExtended(n)) && q.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(at, q, "must be an integer"))
		}
		if isHugePages(n) {
			huge = true
			if !divisible(n, q) {
				errs = append(errs, field.Invalid(at, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), n)))
			}
		}
		compute = compute || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for _, n := range sortedNames(r.Limits) {
		value(n, r.Limits[n], limits.Key(string(n)))
	}
	for _, n := range sortedNames(r.Requests) {
		q := r.Requests[n]
		value(n, q, requests.Key(string(n)))
		limit, limited := r.Limits[n]
		switch {
		case !limited && !overcommitAllowed(n):
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		case limited && q.Cmp(limit) != 0 && !overcommitAllowed(n):
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String())))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String())))
		}
	}
	if huge && !compute {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return errs
}

// divisible reports whether q is a multiple of the page size in the name.
func divisible(name corev1.ResourceName, q resource.Quantity) bool {
	size := strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix)
	if len(size) > 64 || !quantityRE.MatchString(size) {
		return false
	}
	page, err := resource.ParseQuantity(size)
	if err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 || page.Value() == 0 {
		return false
	}
	return q.Value()%page.Value() == 0
}

// validatePodResources validates pod-level resources (MAN-25).
func validatePodResources(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	if s.Resources == nil {
		return nil
	}
	var errs field.ErrorList
	if s.Resources.Claims != nil {
		errs = append(errs, field.Forbidden(path.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, validateResources(s.Resources, validatePodResourceName, path)...)
	sums := aggregate(s, requestsOf)
	for _, n := range sortedNames(sums) {
		sum, pod := sums[n], s.Resources.Requests[n]
		if _, ok := s.Resources.Requests[n]; ok && sum.Cmp(pod) > 0 {
			errs = append(errs, field.Invalid(path.Child("requests").Key(string(n)), pod.String(), fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String())))
		}
	}
	sums = aggregate(s, limitsOf)
	for _, n := range sortedNames(sums) {
		sum, pod := sums[n], s.Resources.Limits[n]
		if _, ok := s.Resources.Limits[n]; ok && isHugePages(n) && sum.Cmp(pod) > 0 {
			errs = append(errs, field.Invalid(path.Child("limits").Key(string(n)), pod.String(), fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", sum.String())))
		}
	}
	for i := range s.Containers {
		l := s.Containers[i].Resources.Limits
		for _, n := range sortedNames(l) {
			limit, pod := l[n], s.Resources.Limits[n]
			if _, ok := s.Resources.Limits[n]; ok && limit.Cmp(pod) > 0 {
				// The odd path is upstream's.
				at := path.Child("containers").Index(i).Key(string(n)).Child("limits")
				errs = append(errs, field.Invalid(at, limit.String(), fmt.Sprintf("must be less than or equal to pod limits of %s", pod.String())))
			}
		}
	}
	return errs
}
