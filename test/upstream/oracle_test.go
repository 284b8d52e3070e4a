package upstream

import (
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper/qos"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/capabilities"

	"github.com/wasmpod/wasmpod/runtime/manifest"
)

func init() {
	// As a kube-apiserver with --allow-privileged.
	capabilities.Setup(true, 0)
}

// verdict is what a reader says about one object.
type verdict struct {
	decode error           // the input is no object; nothing else is set
	errs   field.ErrorList // it is an object, but not a valid one
	pod    *corev1.Pod     // the defaulted object, if it is a Pod
	// The same, if it is one of these.
	service *corev1.Service
	policy  *networkingv1.NetworkPolicy
}

// objectValue is an object quoted in a message. Upstream prints its internal
// types, whose names differ from those in manifests; we print what people
// write. This is the one intended difference in wording.
var objectValue = regexp.MustCompile(`(Invalid|Unsupported) value: \{.*\}: `)

// duplicatePort is the same of a port that a Service has twice.
var duplicatePort = regexp.MustCompile(`^(spec\.ports\[\d+\]: Duplicate value: ).*$`)

func normal(text string) string {
	return duplicatePort.ReplaceAllString(objectValue.ReplaceAllString(text, "$1 value: {…}: "), "$1{…}")
}

// texts are the errors as "path: Kind: detail", sorted.
func (v verdict) texts() []string {
	var out []string
	for _, e := range v.errs {
		out = append(out, normal(e.Field+": "+e.ErrorBody()))
	}
	sort.Strings(out)
	return out
}

// upstream reads one object as a kube-apiserver reads a create request with
// strict field validation.
func upstream(data []byte) (verdict, error) {
	s := json.NewSerializerWithOptions(json.DefaultMetaFactory, legacyscheme.Scheme, legacyscheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	obj, _, err := s.Decode(data, nil, nil)
	if err != nil {
		return verdict{decode: err}, nil
	}
	legacyscheme.Scheme.Default(obj)
	internal, err := legacyscheme.Scheme.ConvertToVersion(obj, runtime.InternalGroupVersioner)
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	switch o := internal.(type) {
	case *core.Pod:
		if o.Namespace == "" {
			o.Namespace = "default"
		}
		o.Generation = 1
		o.Status = core.PodStatus{Phase: core.PodPending, QOSClass: qos.ComputePodQOS(o)}
		podutil.DropDisabledPodFields(o, nil)
		opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil)
		opts.ResourceIsPod = true
		v.errs = corevalidation.ValidatePodCreate(o, opts)
		v.pod = &corev1.Pod{}
		if err := legacyscheme.Scheme.Convert(o, v.pod, nil); err != nil {
			return verdict{}, err
		}
	case *apps.Deployment:
		if o.Namespace == "" {
			o.Namespace = "default"
		}
		podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
		opts := podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)
		v.errs = appsvalidation.ValidateDeployment(o, opts)
	case *core.Service:
		if o.Namespace == "" {
			o.Namespace = "default"
		}
		// What the registry does before it validates.
		o.Status = core.ServiceStatus{}
		if o.Spec.ClusterIP != "" && len(o.Spec.ClusterIPs) == 0 {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		v.errs = corevalidation.ValidateServiceCreate(o)
		v.service = &corev1.Service{}
		if err := legacyscheme.Scheme.Convert(o, v.service, nil); err != nil {
			return verdict{}, err
		}
	case *networking.NetworkPolicy:
		if o.Namespace == "" {
			o.Namespace = "default"
		}
		o.Generation = 1
		v.errs = networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{})
		v.policy = &networkingv1.NetworkPolicy{}
		if err := legacyscheme.Scheme.Convert(o, v.policy, nil); err != nil {
			return verdict{}, err
		}
	case *core.Namespace:
		v.errs = corevalidation.ValidateNamespace(o)
	default:
		return verdict{}, fmt.Errorf("the oracle does not know %T", internal)
	}
	return v, nil
}

// ours reads one object as wasmpod run does.
func ours(name string, data []byte) (objs *manifest.Objects, problems []manifest.Problem) {
	objs, err := manifest.Parse("", manifest.Source{Name: name, Data: data})
	var e *manifest.Error
	if errors.As(err, &e) {
		return nil, e.Problems
	}
	return objs, nil
}

// ourTexts are the problems in the form of verdict.texts.
func ourTexts(problems []manifest.Problem) []string {
	var out []string
	for _, p := range problems {
		path := p.Path
		if path == "" {
			path = "<nil>"
		}
		out = append(out, normal(strings.TrimPrefix(path+": "+p.Message, "<nil>: ")))
	}
	sort.Strings(out)
	return out
}
