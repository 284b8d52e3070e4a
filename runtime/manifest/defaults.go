package manifest

import (
	"math"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wasmpod/wasmpod/cgroup"
)

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func setPointer[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// DefaultPod fills in what the API server fills in when a pod is created
// (MAN-08..12, MAN-20, RES-03). Calling it again changes nothing.
func DefaultPod(pod *corev1.Pod) {
	setDefault(&pod.Namespace, corev1.NamespaceDefault)
	fixGrace(&pod.Spec)
	s := &pod.Spec
	for _, containers := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range containers {
			defaultRequests(&containers[i].Resources)
			for j := range containers[i].Ports {
				if p := &containers[i].Ports[j]; s.HostNetwork && p.HostPort == 0 {
					p.HostPort = p.ContainerPort
				}
			}
		}
	}
	defaultPodResources(s)
	// Quantities are rounded here, after they have been copied and added up.
	defaultPodSpec(s)
	setPointer(&s.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	setDefault(&pod.Generation, 1)
	setDefault(&pod.Status.Phase, corev1.PodPending)
	setDefault(&pod.Status.QOSClass, cgroup.QOSClass(s))
}

// defaultRequests copies limits into requests that are not set (MAN-11).
func defaultRequests(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; !ok {
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

// defaultPodSpec fills in the defaults that pods and templates share.
func defaultPodSpec(s *corev1.PodSpec) {
	setDefault(&s.DNSPolicy, corev1.DNSClusterFirst)
	setDefault(&s.RestartPolicy, corev1.RestartPolicyAlways)
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	setPointer(&s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	setDefault(&s.SchedulerName, corev1.DefaultSchedulerName)
	// The two names of the field are one in the API.
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		defaultContainer(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	roundUp(s.Overhead)
	if s.Resources != nil {
		roundUp(s.Resources.Limits)
		roundUp(s.Resources.Requests)
	}
}

func defaultVolume(v *corev1.Volume) {
	// No source at all means an emptyDir (MAN-12).
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if s := v.HostPath; s != nil {
		setPointer(&s.Type, corev1.HostPathUnset)
	}
	if s := v.ConfigMap; s != nil {
		setPointer(&s.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s := v.Secret; s != nil {
		setPointer(&s.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s := v.DownwardAPI; s != nil {
		setPointer(&s.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardAPI(s.Items)
	}
	if s := v.Projected; s != nil {
		setPointer(&s.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Sources {
			if d := s.Sources[i].DownwardAPI; d != nil {
				defaultDownwardAPI(d.Items)
			}
			if t := s.Sources[i].ServiceAccountToken; t != nil {
				setPointer(&t.ExpirationSeconds, 3600)
			}
		}
	}
	if s := v.Image; s != nil {
		setDefault(&s.PullPolicy, pullPolicy(s.Reference))
	}
}

func defaultDownwardAPI(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		if f := items[i].FieldRef; f != nil {
			setDefault(&f.APIVersion, "v1")
		}
	}
}

func defaultContainer(c *corev1.Container) {
	setDefault(&c.ImagePullPolicy, pullPolicy(c.Image))
	setDefault(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setDefault(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		setDefault(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if v := c.Env[i].ValueFrom; v != nil {
			if v.FieldRef != nil {
				setDefault(&v.FieldRef.APIVersion, "v1")
			}
			if v.FileKeyRef != nil {
				setPointer(&v.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		setDefault(&p.TimeoutSeconds, 1)
		setDefault(&p.PeriodSeconds, 10)
		setDefault(&p.SuccessThreshold, 1)
		setDefault(&p.FailureThreshold, 3)
		defaultHTTPGet(p.HTTPGet)
		if p.GRPC != nil {
			setPointer(&p.GRPC.Service, "")
		}
	}
	if l := c.Lifecycle; l != nil {
		// A feature gate that is off drops the field (MAN-17).
		l.StopSignal = nil
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	if h != nil {
		setDefault(&h.Path, "/")
		setDefault(&h.Scheme, corev1.URISchemeHTTP)
	}
}

// referenceRE is the grammar of image references: [domain/]path[:tag][@digest].
var referenceRE = regexp.MustCompile(`^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?` +
	`[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*` +
	`(?::(\w[\w.-]{0,127}))?(@(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$`)

// identifierRE is an image ID, which is not taken for a name.
var identifierRE = regexp.MustCompile(`^[a-f0-9]{64}$`)

// pullPolicy is the default for an image: Always for the tag latest, also
// where it is implied (MAN-09). What is no reference is found out when it is
// pulled (MAN-28).
func pullPolicy(image string) corev1.PullPolicy {
	m := referenceRE.FindStringSubmatch(image)
	if m == nil || identifierRE.MatchString(image) {
		return corev1.PullIfNotPresent
	}
	if tag, digest := m[1], m[2]; tag == "latest" || tag == "" && digest == "" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// roundUp rounds quantities up to thousandths (RES-01).
func roundUp(l corev1.ResourceList) {
	for name, q := range l {
		const milli = -3
		q.RoundUp(milli)
		l[name] = q
	}
}

// defaultPodResources fills in pod-level requests where there are pod-level
// limits (MAN-11).
func defaultPodResources(s *corev1.PodSpec) {
	r := s.Resources
	if r == nil {
		return
	}
	if len(r.Limits)+len(r.Requests) > 0 {
		for name, sum := range aggregate(s, limitsOf) {
			_, requested := r.Requests[name]
			_, limited := r.Limits[name]
			if !isHugePages(name) || requested || limited {
				continue
			}
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			r.Limits[name] = sum
		}
	}
	if len(r.Limits) == 0 {
		return
	}
	requests := r.Requests
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	for name, sum := range aggregate(s, requestsOf) {
		if _, ok := requests[name]; !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			requests[name] = sum
		}
	}
	for name, limit := range r.Limits {
		if _, ok := requests[name]; !ok && isPodLevelResource(name) {
			requests[name] = limit.DeepCopy()
		}
	}
	if len(requests) > 0 {
		r.Requests = requests
	}
}

// PodLimits is the sum of the containers' limits, as RES-08 counts them.
func PodLimits(s *corev1.PodSpec) corev1.ResourceList { return aggregate(s, limitsOf) }

func requestsOf(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limitsOf(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// aggregate is what the containers of a pod need together at any time of its
// life (RES-08): regular containers and sidecars at once, or an init container
// and the sidecars before it.
func aggregate(s *corev1.PodSpec, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	sum, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range s.Containers {
		addTo(sum, of(&s.Containers[i]))
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if isSidecar(c) {
			addTo(sum, of(c))
			addTo(sidecars, of(c))
			maxOf(peak, sidecars)
			continue
		}
		need := sidecars.DeepCopy()
		addTo(need, of(c))
		maxOf(peak, need)
	}
	maxOf(sum, peak)
	return sum
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func addTo(sum, l corev1.ResourceList) {
	for name, q := range l {
		total := sum[name].DeepCopy()
		total.Add(q)
		sum[name] = total
	}
}

func maxOf(peak, l corev1.ResourceList) {
	for name, q := range l {
		if have, ok := peak[name]; !ok || q.Cmp(have) > 0 {
			peak[name] = q.DeepCopy()
		}
	}
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func isPodLevelResource(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || isHugePages(name)
}

// fixGrace rewrites a negative grace period as the API's conversion does for
// pods (MAN-20).
func fixGrace(s *corev1.PodSpec) {
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		one := int64(1)
		s.TerminationGracePeriodSeconds = &one
	}
}

// The defaults of workloads are those of WL-20.

func defaultDeployment(d *appsv1.Deployment) {
	defaultPodSpec(&d.Spec.Template.Spec)
	setPointer(&d.Spec.Replicas, 1)
	s := &d.Spec.Strategy
	setDefault(&s.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		setPointer(&s.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		setPointer(&s.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	setPointer(&d.Spec.RevisionHistoryLimit, 10)
	setPointer(&d.Spec.ProgressDeadlineSeconds, 600)
}

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	defaultPodSpec(&r.Spec.Template.Spec)
	setPointer(&r.Spec.Replicas, 1)
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	defaultPodSpec(&d.Spec.Template.Spec)
	s := &d.Spec.UpdateStrategy
	setDefault(&s.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if s.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		setPointer(&s.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		setPointer(&s.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	setPointer(&d.Spec.RevisionHistoryLimit, 10)
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	defaultPodSpec(&s.Spec.Template.Spec)
	setDefault(&s.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	u := &s.Spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		setPointer(&u.RollingUpdate.Partition, 0)
		setPointer(&u.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	setPointer(&s.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	p := s.Spec.PersistentVolumeClaimRetentionPolicy
	setDefault(&p.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	setDefault(&p.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	setPointer(&s.Spec.Replicas, 1)
	setPointer(&s.Spec.RevisionHistoryLimit, 10)
}

func defaultJob(j *batchv1.Job) {
	defaultPodSpec(&j.Spec.Template.Spec)
	s := &j.Spec
	if s.Completions == nil && s.Parallelism == nil {
		setPointer(&s.Completions, 1)
	}
	setPointer(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		setPointer(&s.BackoffLimit, math.MaxInt32)
	}
	setPointer(&s.BackoffLimit, 6)
	if s.Template.Labels != nil && len(j.Labels) == 0 {
		j.Labels = make(map[string]string, len(s.Template.Labels))
		for k, v := range s.Template.Labels {
			j.Labels[k] = v
		}
	}
	setPointer(&s.CompletionMode, batchv1.NonIndexedCompletion)
	setPointer(&s.Suspend, false)
	if s.PodFailurePolicy != nil {
		setPointer(&s.PodReplacementPolicy, batchv1.Failed)
		for i := range s.PodFailurePolicy.Rules {
			for j := range s.PodFailurePolicy.Rules[i].OnPodConditions {
				setDefault(&s.PodFailurePolicy.Rules[i].OnPodConditions[j].Status, corev1.ConditionTrue)
			}
		}
	}
	setPointer(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	setPointer(&s.ManualSelector, false)
}
