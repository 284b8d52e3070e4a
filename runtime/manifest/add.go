package manifest

import (
	"encoding/json"
	"fmt"
	"sort"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// add defaults and validates a decoded object and adds it to the result.
func (d *document) add(n *node, kind string, obj metav1.Object) (errs field.ErrorList, warnings []Problem) {
	o := d.objects
	template := func(t *corev1.PodTemplateSpec) {
		at := field.NewPath("spec", "template", "spec")
		errs, warnings = checkSupport(&t.Spec, at)
		errs = append(errs, unsupportedValues(&t.Spec, at)...)
		warnings = append(warnings, likelyMistakes(&t.Spec, at)...)
		d.refer(n, kind, obj, &t.Spec, at)
	}
	switch v := obj.(type) {
	case *corev1.Pod:
		at := field.NewPath("spec")
		errs, warnings = checkSupport(&v.Spec, at)
		errs = append(errs, unsupportedValues(&v.Spec, at)...)
		warnings = append(warnings, likelyMistakes(&v.Spec, at)...)
		d.refer(n, kind, obj, &v.Spec, at)
		v.Status = corev1.PodStatus{}
		DefaultPod(v)
		errs = append(errs, validatePod(v)...)
		o.Pods = append(o.Pods, v)
	case *corev1.ConfigMap:
		errs = validateConfigMap(v)
		if v.Data == nil {
			v.Data = map[string]string{}
		}
		o.ConfigMaps = append(o.ConfigMaps, v)
	case *corev1.Secret:
		setDefault(&v.Type, corev1.SecretTypeOpaque)
		for key, value := range v.StringData {
			if v.Data == nil {
				v.Data = map[string][]byte{}
			}
			v.Data[key] = []byte(value)
		}
		v.StringData = nil
		errs = validateSecret(v)
		o.Secrets = append(o.Secrets, v)
	case *corev1.PersistentVolumeClaim:
		v.Status = corev1.PersistentVolumeClaimStatus{}
		errs = append(errs, validateMeta(&v.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
		errs = append(errs, validateClaim(&v.Spec, field.NewPath("spec"))...)
		o.Claims = append(o.Claims, v)
	case *corev1.Namespace:
		v.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
		errs = validateMeta(&v.ObjectMeta, false, apivalidation.ValidateNamespaceName, field.NewPath("metadata"))
		for _, f := range v.Spec.Finalizers {
			errs = append(errs, apivalidation.ValidateFinalizerName(string(f), field.NewPath("spec", "finalizers"))...)
			errs = append(errs, validateFinalizer(string(f), field.NewPath("spec", "finalizers"))...)
		}
		if v.Name != "" {
			if v.Labels == nil {
				v.Labels = map[string]string{}
			}
			v.Labels[corev1.LabelMetadataName] = v.Name
		}
		o.Namespaces = append(o.Namespaces, v)
	case *appsv1.Deployment:
		template(&v.Spec.Template)
		v.Status = appsv1.DeploymentStatus{}
		defaultDeployment(v)
		errs = append(errs, validateDeployment(v)...)
		errs = append(errs, d.countPods(v.Spec.Replicas, "replicas")...)
		o.Deployments = append(o.Deployments, v)
	case *appsv1.ReplicaSet:
		template(&v.Spec.Template)
		v.Status = appsv1.ReplicaSetStatus{}
		defaultReplicaSet(v)
		errs = append(errs, validateReplicaSet(v)...)
		errs = append(errs, d.countPods(v.Spec.Replicas, "replicas")...)
		o.ReplicaSets = append(o.ReplicaSets, v)
	case *appsv1.StatefulSet:
		template(&v.Spec.Template)
		v.Status = appsv1.StatefulSetStatus{}
		defaultStatefulSet(v)
		errs = append(errs, validateStatefulSet(v)...)
		errs = append(errs, d.countPods(v.Spec.Replicas, "replicas")...)
		o.StatefulSets = append(o.StatefulSets, v)
	case *appsv1.DaemonSet:
		template(&v.Spec.Template)
		v.Status = appsv1.DaemonSetStatus{}
		defaultDaemonSet(v)
		errs = append(errs, validateDaemonSet(v)...)
		o.DaemonSets = append(o.DaemonSets, v)
	case *batchv1.Job:
		template(&v.Spec.Template)
		v.Status = batchv1.JobStatus{}
		defaultJob(v)
		errs = append(errs, validateJob(v)...)
		errs = append(errs, d.countPods(v.Spec.Parallelism, "parallelism")...)
		o.Jobs = append(o.Jobs, v)
	case *corev1.Service:
		errs, warnings = checkObjectSupport(&v.Spec, ServiceFields)
		warnings = append(warnings, warnService(v)...)
		defaultService(v)
		errs = append(errs, validateService(v)...)
		errs = append(errs, d.validateAllocations(v)...)
		o.Services = append(o.Services, v)
	case *networkingv1.NetworkPolicy:
		errs, warnings = checkObjectSupport(&v.Spec, NetworkPolicyFields)
		defaultNetworkPolicy(v)
		errs = append(errs, validateNetworkPolicy(v)...)
		o.NetworkPolicies = append(o.NetworkPolicies, v)
	}
	return errs, warnings
}

// MaxPods is how many pods all sources together may ask for at a time. A node
// holds no more, and a number with some zeros too many must not fill its
// memory.
const MaxPods = 10000

// countPods adds the pods of one object to the total.
func (d *document) countPods(n *int32, name string) field.ErrorList {
	if n == nil || *n < 0 {
		return nil
	}
	if *n > MaxPods-d.pods {
		return field.ErrorList{field.Invalid(field.NewPath("spec", name), *n, fmt.Sprintf("must be at most %d: wasmpod runs no more than %d pods", MaxPods-d.pods, MaxPods))}
	}
	d.pods += *n
	return nil
}

// unsupportedValues are values, valid upstream, of fields that are honoured in
// general.
func unsupportedValues(s *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.OS != nil && s.OS.Name == corev1.Windows {
		errs = append(errs, field.Forbidden(path.Child("os").Child("name"), "not supported: modules see a linux-like system"))
	}
	return errs
}

func forEachContainer(s *corev1.PodSpec, path *field.Path, f func(c *corev1.Container, at *field.Path)) {
	for i := range s.InitContainers {
		f(&s.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		f(&s.Containers[i], path.Child("containers").Index(i))
	}
}

const maxDataSize = 1 << 20 // of a ConfigMap or Secret

func validateConfigMap(m *corev1.ConfigMap) field.ErrorList {
	errs := validateMeta(&m.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	size := 0
	for _, key := range sortedKeys(m.Data) {
		at := field.NewPath("data").Key(key)
		errs = append(errs, each(at, key, validation.IsConfigMapKey(key))...)
		if _, ok := m.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(at, key, "duplicate of key present in binaryData"))
		}
		size += len(m.Data[key])
	}
	for _, key := range sortedKeys(m.BinaryData) {
		errs = append(errs, each(field.NewPath("binaryData").Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(m.BinaryData[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataSize))
	}
	return errs
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	errs := validateMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	data := field.NewPath("data")
	size := 0
	for _, key := range sortedKeys(s.Data) {
		errs = append(errs, each(data.Key(key), key, validation.IsConfigMapKey(key))...)
		size += len(s.Data[key])
	}
	if size > maxDataSize {
		errs = append(errs, field.TooLong(data, "", maxDataSize))
	}
	require := func(key string) {
		if _, ok := s.Data[key]; !ok {
			errs = append(errs, field.Required(data.Key(key), ""))
		}
	}
	docker := func(key string) {
		require(key)
		if v, ok := s.Data[key]; ok {
			if err := json.Unmarshal(v, &map[string]any{}); err != nil {
				errs = append(errs, field.Invalid(data.Key(key), "<secret contents redacted>", err.Error()))
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		docker(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		docker(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			require(corev1.BasicAuthUsernameKey)
			require(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		require(corev1.TLSCertKey)
		require(corev1.TLSPrivateKeyKey)
	}
	return errs
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// likelyMistakes are what upstream's client warns of (MAN-15, MAN-21, MAN-24)
// and what passes validation but can never work (MAN-29).
func likelyMistakes(s *corev1.PodSpec, path *field.Path) []Problem {
	var found []Problem
	warn := func(at *field.Path, hint, format string, args ...any) {
		found = append(found, Problem{Path: at.String(), Message: fmt.Sprintf(format, args...), Hint: hint})
	}
	ports := map[string]*field.Path{}
	forEachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		if l := lookalike(c.Image); l != "" {
			warn(at.Child("image"), "", "the value contains a %s", l)
		}
		env := map[string]bool{}
		for i, e := range c.Env {
			if env[e.Name] {
				warn(at.Child("env").Index(i), "", "hides previous definition of %q", e.Name)
			}
			env[e.Name] = true
		}
		for _, l := range []struct {
			name string
			list corev1.ResourceList
		}{{"limits", c.Resources.Limits}, {"requests", c.Resources.Requests}} {
			for _, n := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
				if q, ok := l.list[n]; ok && q.MilliValue()%1000 != 0 {
					warn(at.Child("resources").Child(l.name).Key(string(n)), "the suffix `m` means thousandths; `M` and `Mi` are megabytes", "fractional byte value %q is invalid, must be an integer", q.String())
				}
			}
		}
	})
	for i := range s.Containers {
		for j, p := range s.Containers[i].Ports {
			at := path.Child("containers").Index(i).Child("ports").Index(j)
			protocol := p.Protocol
			setDefault(&protocol, corev1.ProtocolTCP)
			key := fmt.Sprintf("%s/%d", protocol, p.ContainerPort)
			if first, ok := ports[key]; ok {
				warn(at, "the containers of a pod share one network: only one of them can listen there", "duplicate port definition with %s", first)
			} else {
				ports[key] = at
			}
		}
	}
	for i, v := range s.Volumes {
		name, at := "", path.Child("volumes").Index(i)
		switch {
		case v.ConfigMap != nil:
			name, at = v.ConfigMap.Name, at.Child("configMap").Child("name")
		case v.Secret != nil:
			name, at = v.Secret.SecretName, at.Child("secret").Child("secretName")
		}
		if name == "" {
			continue
		}
		for _, m := range apivalidation.NameIsDNSSubdomain(name, false) {
			warn(at, "the pod would wait for it for ever", "%q can never exist: %s", name, m)
		}
	}
	return found
}

// reference is a ConfigMap or Secret without which a pod does not start.
type reference struct {
	target objectKey
	from   Problem
}

// refer notes what the pod cannot start without.
func (d *document) refer(n *node, kind string, obj metav1.Object, s *corev1.PodSpec, path *field.Path) {
	need := func(target, name string, optional *bool, at *field.Path) {
		if name == "" || optional != nil && *optional || len(d.references) >= 10*MaxProblems || len(apivalidation.NameIsDNSSubdomain(name, false)) > 0 {
			return
		}
		d.references = append(d.references, reference{objectKey{target, obj.GetNamespace(), name},
			Problem{File: d.file.name, Line: d.line(n.at(at.String())), Kind: kind, Name: obj.GetName(), Path: at.String()}})
	}
	for i, v := range s.Volumes {
		at := path.Child("volumes").Index(i)
		if c := v.ConfigMap; c != nil {
			need("ConfigMap", c.Name, c.Optional, at.Child("configMap"))
		}
		if c := v.Secret; c != nil {
			need("Secret", c.SecretName, c.Optional, at.Child("secret"))
		}
	}
	forEachContainer(s, path, func(c *corev1.Container, at *field.Path) {
		for i, e := range c.EnvFrom {
			at := at.Child("envFrom").Index(i)
			if r := e.ConfigMapRef; r != nil {
				need("ConfigMap", r.Name, r.Optional, at.Child("configMapRef"))
			}
			if r := e.SecretRef; r != nil {
				need("Secret", r.Name, r.Optional, at.Child("secretRef"))
			}
		}
		for i, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			at := at.Child("env").Index(i).Child("valueFrom")
			if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
				need("ConfigMap", r.Name, r.Optional, at.Child("configMapKeyRef"))
			}
			if r := e.ValueFrom.SecretKeyRef; r != nil {
				need("Secret", r.Name, r.Optional, at.Child("secretKeyRef"))
			}
		}
	})
}

// warnMissingReferences warns of ConfigMaps and Secrets that no manifest
// declares: without an API server nobody else will (ENV-05, VOL-20).
func (p *parser) warnMissingReferences() {
	for _, r := range p.references {
		if _, ok := p.seen[r.target]; ok {
			continue
		}
		w := r.from
		w.Message = fmt.Sprintf("%s %q is in none of the manifests", r.target.kind, r.target.name)
		w.Hint = "the pod will wait for it; declare it, or set optional: true"
		p.warn(w)
	}
}
