package workload

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

// Alphabet is what name suffixes are made of: no vowels, so that no words
// come about, and nothing easily mistaken for something else (WL-22).
const Alphabet = "bcdfghjklmnpqrstvwxz2456789"

// SuffixLen is the length of a name suffix.
const SuffixLen = 5

// maxBase is how much of an owner's name a generated name keeps, which must
// fit a DNS label with its suffix.
const maxBase = 63 - SuffixLen

// Pods are the pods of objs: those declared as such and those of all workload
// objects but Jobs, in this order. newName returns a fresh suffix of SuffixLen
// letters of Alphabet; it is called again if a name is taken. The pods are
// defaulted copies that belong to the caller; UIDs of pods are not set, those
// of owners are deterministic, see UID.
func Pods(objs *manifest.Objects, newName func() string) []*corev1.Pod {
	n := namer{newName: newName, taken: map[types.NamespacedName]bool{}}
	var pods []*corev1.Pod
	for _, p := range objs.Pods {
		n.taken[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = true
	}
	for _, p := range objs.Pods {
		p = p.DeepCopy()
		if p.Name == "" {
			p.Name = n.name(p.Namespace, p.GenerateName)
		}
		pods = append(pods, p)
	}
	for _, d := range objs.Deployments {
		hash := Hash(&d.Spec.Template)
		rs := d.Name + "-" + hash
		owner := ownerRef(appsv1.SchemeGroupVersion.String(), "ReplicaSet", rs, UID("ReplicaSet", d.Namespace, rs))
		for range replicas(d.Spec.Replicas) {
			p := fromTemplate(&d.Spec.Template, d.Namespace, owner)
			label(p, appsv1.DefaultDeploymentUniqueLabelKey, hash)
			n.generate(p, rs)
			pods = append(pods, p)
		}
	}
	for _, r := range objs.ReplicaSets {
		owner := ownerOf(r, appsv1.SchemeGroupVersion.String(), "ReplicaSet")
		for range replicas(r.Spec.Replicas) {
			p := fromTemplate(&r.Spec.Template, r.Namespace, owner)
			n.generate(p, r.Name)
			pods = append(pods, p)
		}
	}
	for _, s := range objs.StatefulSets {
		pods = append(pods, statefulPods(s)...)
	}
	for _, d := range objs.DaemonSets {
		// One node, one pod.
		p := fromTemplate(&d.Spec.Template, d.Namespace, ownerOf(d, appsv1.SchemeGroupVersion.String(), "DaemonSet"))
		label(p, appsv1.ControllerRevisionHashLabelKey, Hash(&d.Spec.Template))
		label(p, "pod-template-generation", "1")
		n.generate(p, d.Name)
		pods = append(pods, p)
	}
	return pods
}

// statefulPods are named <set>-<ordinal>, which is their hostname too.
func statefulPods(s *appsv1.StatefulSet) []*corev1.Pod {
	owner := ownerOf(s, appsv1.SchemeGroupVersion.String(), "StatefulSet")
	start := int64(0)
	if s.Spec.Ordinals != nil {
		start = int64(s.Spec.Ordinals.Start)
	}
	var pods []*corev1.Pod
	for i := range int64(replicas(s.Spec.Replicas)) {
		p := fromTemplate(&s.Spec.Template, s.Namespace, owner)
		ordinal := strconv.FormatInt(start+i, 10)
		p.Name = s.Name + "-" + ordinal
		p.GenerateName = s.Name + "-"
		label(p, appsv1.ControllerRevisionHashLabelKey, s.Name+"-"+Hash(&s.Spec.Template))
		label(p, appsv1.StatefulSetPodNameLabel, p.Name)
		label(p, appsv1.PodIndexLabel, ordinal)
		p.Spec.Hostname, p.Spec.Subdomain = p.Name, s.Spec.ServiceName
		p.Spec.Volumes = manifest.ClaimTemplateVolumes(s, p.Spec.Volumes, p.Name)
		pods = append(pods, p)
	}
	return pods
}

// Claims returns the PersistentVolumeClaims that the pods of StatefulSets have, one of
// every template for every pod: <template>-<set>-<ordinal>.
func Claims(objs *manifest.Objects) (claims []*corev1.PersistentVolumeClaim) {
	for _, s := range objs.StatefulSets {
		for _, p := range statefulPods(s) {
			for i := range s.Spec.VolumeClaimTemplates {
				c := s.Spec.VolumeClaimTemplates[i].DeepCopy()
				c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}
				c.Namespace, c.Name = s.Namespace, c.Name+"-"+p.Name
				if s.Spec.Selector != nil {
					for key, value := range s.Spec.Selector.MatchLabels {
						metav1.SetMetaDataLabel(&c.ObjectMeta, key, value)
					}
				}
				claims = append(claims, c)
			}
		}
	}
	return claims
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// fromTemplate makes a pod without name, defaulted as a pod (MAN-08).
func fromTemplate(t *corev1.PodTemplateSpec, namespace string, owner metav1.OwnerReference) *corev1.Pod {
	t = t.DeepCopy()
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{owner}},
		Spec: t.Spec,
	}
	manifest.DefaultPod(p)
	return p
}

func label(p *corev1.Pod, key, value string) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[key] = value
}

func ownerRef(apiVersion, kind, name string, uid types.UID) metav1.OwnerReference {
	yes := true
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid, Controller: &yes, BlockOwnerDeletion: &yes}
}

func ownerOf(o metav1.Object, apiVersion, kind string) metav1.OwnerReference {
	return ownerRef(apiVersion, kind, o.GetName(), uidOf(o, kind))
}

func uidOf(o metav1.Object, kind string) types.UID {
	if o.GetUID() != "" {
		return o.GetUID()
	}
	return UID(kind, o.GetNamespace(), o.GetName())
}

// UID is the UID of an object that no API server has given one: always the
// same for the same object, in the form of a version 8 UUID.
func UID(kind, namespace, name string) types.UID {
	sum := sha256.Sum256([]byte(kind + "\x00" + namespace + "\x00" + name))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// Hash identifies the content of a template: the value of pod-template-hash,
// up to ten letters of Alphabet. It is not the value a cluster would compute,
// which depends on its version.
func Hash(t *corev1.PodTemplateSpec) string {
	// A PodTemplateSpec has no value that JSON lacks, so there is no error.
	raw, _ := json.Marshal(t)
	h := fnv.New32a()
	h.Write(raw)
	return encode(uint64(h.Sum32()), 0)
}

// encode writes n in the letters of Alphabet, at least width of them.
func encode(n uint64, width int) string {
	var b []byte
	for n > 0 || len(b) < max(width, 1) {
		b = append(b, Alphabet[n%uint64(len(Alphabet))])
		n /= uint64(len(Alphabet))
	}
	return string(b)
}

// namer gives pods names that are not taken.
type namer struct {
	newName func() string
	taken   map[types.NamespacedName]bool
}

func (n *namer) generate(p *corev1.Pod, owner string) {
	p.GenerateName = owner + "-"
	p.Name = n.name(p.Namespace, p.GenerateName)
}

func (n *namer) name(namespace, base string) string {
	base = base[:min(len(base), maxBase)]
	// A source that keeps repeating itself must not keep us here.
	const tries = 100
	for i := uint64(0); ; i++ {
		suffix := ""
		if i < tries {
			suffix = n.newName()
		} else {
			suffix = encode(i-tries, SuffixLen)
		}
		key := types.NamespacedName{Namespace: namespace, Name: base + suffix}
		if !n.taken[key] {
			n.taken[key] = true
			return key.Name
		}
	}
}

// jobLabels are the labels by which a Job finds its pods.
func jobLabels(j *batchv1.Job) map[string]string {
	uid := string(uidOf(j, "Job"))
	return map[string]string{
		"job-name": j.Name, batchv1.JobNameLabel: j.Name,
		"controller-uid": uid, batchv1.ControllerUidLabel: uid,
	}
}

// jobPod makes one pod of a job.
func jobPod(j *batchv1.Job, n *namer) *corev1.Pod {
	p := fromTemplate(&j.Spec.Template, j.Namespace, ownerOf(j, batchv1.SchemeGroupVersion.String(), "Job"))
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	maps.Copy(p.Labels, jobLabels(j))
	n.generate(p, j.Name)
	return p
}
