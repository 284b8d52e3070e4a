package container

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// fieldValue is the value of an env fieldRef (DAPI-01, DAPI-03).
func (in *Inputs) fieldValue(pod *corev1.Pod, ref *corev1.ObjectFieldSelector) (string, error) {
	if ref.APIVersion != "" && ref.APIVersion != "v1" {
		return "", fmt.Errorf("unsupported pod version: %s", ref.APIVersion)
	}
	podIP := in.PodIP
	if pod.Spec.HostNetwork && in.HostIP != "" {
		podIP = in.HostIP // DAPI-04
	}
	switch ref.FieldPath {
	case "spec.nodeName", "spec.host":
		return in.nodeName(pod), nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return in.HostIP, nil
	case "status.podIP", "status.podIPs":
		return podIP, nil
	case "metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations",
		"spec.restartPolicy", "spec.schedulerName", "status.phase":
	default:
		switch p, _, ok := subscripted(ref.FieldPath); {
		case !ok:
			return "", fmt.Errorf("field label not supported: %s", ref.FieldPath)
		case p != "metadata.labels" && p != "metadata.annotations":
			return "", fmt.Errorf("field label does not support subscript: %s", ref.FieldPath)
		}
	}
	return FieldValue(pod, ref.FieldPath)
}

func (in *Inputs) nodeName(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	return in.NodeName
}

// FieldValue is the value of a field of the Pod's metadata, as a downwardAPI
// volume shows it (DAPI-02): name, namespace, uid, labels, annotations, and
// labels['key'], annotations['key']. A missing key is an empty string. Whole
// maps come as sorted lines key="value", without a newline at the end.
func FieldValue(pod *corev1.Pod, fieldPath string) (string, error) {
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	}
	p, key, ok := subscripted(fieldPath)
	if !ok {
		return "", fmt.Errorf("unsupported fieldPath: %s", fieldPath)
	}
	name, from := key, pod.Labels
	switch p {
	case "metadata.labels":
	case "metadata.annotations":
		name, from = strings.ToLower(key), pod.Annotations
	default:
		return "", fmt.Errorf("fieldPath %q does not support subscript", fieldPath)
	}
	if problems := validation.IsQualifiedName(name); len(problems) > 0 {
		return "", fmt.Errorf("invalid key subscript in %s: %s", fieldPath, strings.Join(problems, ";"))
	}
	return from[key], nil
}

// subscripted splits p['key'] into p and key.
func subscripted(fieldPath string) (path, key string, ok bool) {
	rest, ok := strings.CutSuffix(fieldPath, "']")
	if !ok {
		return fieldPath, "", false
	}
	path, key, ok = strings.Cut(rest, "['")
	if !ok || path == "" {
		return fieldPath, "", false
	}
	return path, key, true
}

func formatMap(m map[string]string) string {
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(strconv.Quote(m[key]))
	}
	return b.String()
}

// ResourceValue is the value of a resourceFieldRef: the resource divided by
// the divisor, rounded up (DAPI-05). The container is the one that ref names,
// else c. An unset limit is reported as the pod's, else as the node's
// allocatable; an unset request as 0.
func ResourceValue(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		if c = findContainer(pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resourceFieldRef %s names no container", ref.Resource)
	}
	which, name, _ := strings.Cut(ref.Resource, ".")
	resourceName := corev1.ResourceName(name)
	hugepages := strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
	switch {
	case which != "limits" && which != "requests",
		resourceName != corev1.ResourceCPU && resourceName != corev1.ResourceMemory &&
			resourceName != corev1.ResourceEphemeralStorage && !hugepages:
		return "", fmt.Errorf("unsupported container resource : %s", ref.Resource)
	}

	var value resource.Quantity
	if which == "requests" {
		value = c.Resources.Requests[resourceName]
	} else {
		value = c.Resources.Limits[resourceName]
		// Huge pages are never overcommitted, so an unset limit is none.
		if value.IsZero() && !hugepages {
			value = allocatable[resourceName]
			if pod.Spec.Resources != nil && podLevel(resourceName) {
				if q := pod.Spec.Resources.Limits[resourceName]; !q.IsZero() {
					value = q
				}
			}
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	amount, by := value.Value(), divisor.Value()
	if resourceName == corev1.ResourceCPU {
		amount, by = value.MilliValue(), divisor.MilliValue()
	}
	if by <= 0 {
		return "", fmt.Errorf("resourceFieldRef %s: invalid divisor %s", ref.Resource, divisor.String())
	}
	quotient := amount / by
	if amount%by > 0 {
		quotient++
	}
	return strconv.FormatInt(quotient, 10), nil
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}
