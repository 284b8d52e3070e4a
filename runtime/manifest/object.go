package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// supported describes a kind that wasmpod runs or uses.
type supported struct {
	apiVersion string
	resource   string // as kubectl names it: pods, deployments.apps
	namespaced bool
	new        func() metav1.Object
}

var kinds = map[string]supported{
	"Pod":                   {"v1", "pods", true, func() metav1.Object { return &corev1.Pod{} }},
	"ConfigMap":             {"v1", "configmaps", true, func() metav1.Object { return &corev1.ConfigMap{} }},
	"Secret":                {"v1", "secrets", true, func() metav1.Object { return &corev1.Secret{} }},
	"PersistentVolumeClaim": {"v1", "persistentvolumeclaims", true, func() metav1.Object { return &corev1.PersistentVolumeClaim{} }},
	"Namespace":             {"v1", "namespaces", false, func() metav1.Object { return &corev1.Namespace{} }},
	"Deployment":            {"apps/v1", "deployments.apps", true, func() metav1.Object { return &appsv1.Deployment{} }},
	"ReplicaSet":            {"apps/v1", "replicasets.apps", true, func() metav1.Object { return &appsv1.ReplicaSet{} }},
	"StatefulSet":           {"apps/v1", "statefulsets.apps", true, func() metav1.Object { return &appsv1.StatefulSet{} }},
	"DaemonSet":             {"apps/v1", "daemonsets.apps", true, func() metav1.Object { return &appsv1.DaemonSet{} }},
	"Job":                   {"batch/v1", "jobs.batch", true, func() metav1.Object { return &batchv1.Job{} }},
	"Service":               {"v1", "services", true, func() metav1.Object { return &corev1.Service{} }},
	"NetworkPolicy":         {"networking.k8s.io/v1", "networkpolicies.networking.k8s.io", true, func() metav1.Object { return &networkingv1.NetworkPolicy{} }},
}

// harmless are kinds that change nothing for pods run by themselves, and why.
var harmless = map[string]string{
	"Endpoints": "the endpoints of a Service are the pods that its selector matches", "EndpointSlice": "the endpoints of a Service are the pods that its selector matches",
	"Ingress": "nothing here routes HTTP by host or path; a Service of type NodePort is reachable from the host", "IngressClass": "nothing here routes HTTP by host or path",
	"ServiceAccount": "there is no API server to log in to", "Role": "there is no API server", "ClusterRole": "there is no API server",
	"RoleBinding": "there is no API server", "ClusterRoleBinding": "there is no API server",
	"PodDisruptionBudget": "nothing evicts pods", "HorizontalPodAutoscaler": "nothing scales pods",
	"LimitRange": "limits are those of the pods", "ResourceQuota": "limits are those of the pods",
	"PriorityClass": "there is one node and no scheduler", "RuntimeClass": "there is one node and no scheduler", "StorageClass": "every claim gets a directory of this node",
	"PersistentVolume": "every claim gets a directory of this node",
	"Lease":            "there is no API server", "Event": "events are of the past",
}

// refused are kinds of Kubernetes itself that a run cannot do without.
var refused = map[string]bool{"CronJob": true, "ReplicationController": true, "PodTemplate": true, "Node": true, "Binding": true, "ControllerRevision": true,
	"CustomResourceDefinition": true, "APIService": true, "MutatingWebhookConfiguration": true, "ValidatingWebhookConfiguration": true, "ComponentStatus": true}

// report reports a problem with a field of the object n.
func (d *document) report(n *node, kind, name, path, message, hint string) {
	d.problem(Problem{File: d.file.name, Line: d.line(n.at(path)), Kind: kind, Name: name, Path: path, Message: message, Hint: hint})
}

// object handles one object: a whole document or an item of a list.
func (d *document) object(n *node, depth int) {
	if d.full {
		return
	}
	if n.kind != object {
		d.notAnObject(n)
		return
	}
	kind, apiVersion := n.get("kind"), n.get("apiVersion")
	name := n.get("metadata").get("name").str()
	if kind.str() == "" {
		d.fragment(n, kind)
		return
	}
	k := kind.text
	version := apiVersion.str()
	if strings.HasSuffix(k, "List") && version != "" {
		if _, ok := kinds[strings.TrimSuffix(k, "List")]; ok || k == "List" {
			d.list(n, k, version, depth)
			return
		}
	}
	if version == "" {
		// As upstream: kind is looked for first, and both are mandatory (MAN-03).
		hint := ""
		s, known := kinds[k]
		if !known {
			if g, _ := nearest(k, kindNames()); g != "" {
				s, known = kinds[g], true
			}
		}
		if known {
			hint = "add `apiVersion: " + s.apiVersion + "`"
		}
		d.report(n, k, name, "apiVersion", "Object 'apiVersion' is missing in "+excerpt(n), hint)
		if !known {
			return
		}
		version = s.apiVersion
	}
	s, ok := kinds[k]
	switch {
	case ok && s.apiVersion == version:
	case ok:
		d.report(n, k, name, "apiVersion", fmt.Sprintf("no kind %q is registered for version %q", k, version), "write `apiVersion: "+s.apiVersion+"`")
	case strings.Contains(group(version), ".") && !strings.HasSuffix(group(version), ".k8s.io"):
		d.report(n, k, name, "", fmt.Sprintf("no matches for kind %q in version %q; ensure CRDs are installed first", k, version), "custom resources are not supported by wasmpod run")
		return
	case harmless[k] != "":
		d.warn(Problem{File: d.file.name, Line: d.line(n.line), Kind: k, Name: name, Message: "has no effect in wasmpod run", Hint: harmless[k]})
		return
	case refused[k]:
		d.report(n, k, name, "", fmt.Sprintf("kind %q is not supported by wasmpod run", k), "supported: "+strings.Join(kindNames(), ", "))
		return
	default:
		guess, exact := nearest(k, kindNames())
		hint := "supported: " + strings.Join(kindNames(), ", ")
		if exact {
			hint = fmt.Sprintf("kind is case-sensitive: did you mean `%s`?", guess)
		} else if guess != "" {
			hint = fmt.Sprintf("did you mean `%s`?", guess)
		}
		d.report(n, k, name, "kind", fmt.Sprintf("no kind %q is registered for version %q", k, version), hint)
		if guess == "" {
			return
		}
		k, s = guess, kinds[guess]
	}
	d.decode(n, k, name, s)
}

func kindNames() []string {
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	sort.Strings(names)
	return names
}

func group(apiVersion string) string {
	g, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return g
}

// excerpt shows the beginning of an object as upstream does, but short.
func excerpt(n *node) string {
	raw, err := json.Marshal(n)
	if err != nil {
		return "''"
	}
	return "'" + short(string(raw)) + "'"
}

func (d *document) notAnObject(n *node) {
	switch n.kind {
	case list:
		d.report(n, "", "", "", "couldn't get version/kind; the document is a list, not an object", "a manifest begins with `apiVersion:` and `kind:`; several objects are separated by `---` or are the items of a `kind: List`")
	case text:
		hint := "a manifest consists of `key: value` lines"
		if word, rest, ok := strings.Cut(n.text, " "); ok && strings.HasPrefix(strings.TrimSpace(rest), "- ") {
			hint = fmt.Sprintf("missing `:` after `%s`", short(word))
		} else if l := lookalike(n.text); l != "" {
			hint = "the text contains a " + l
		}
		d.report(n, "", "", "", fmt.Sprintf("couldn't get version/kind; the document is the text %s, not an object", quoteShort(n.text)), hint)
	default:
		d.report(n, "", "", "", fmt.Sprintf("couldn't get version/kind; the document is a %s, not an object", n.kind), "")
	}
}

// fragment explains an object without kind, and what else is wrong with it.
func (d *document) fragment(n, kind *node) {
	message := "Object 'Kind' is missing in " + excerpt(n)
	for _, f := range n.fields {
		if f.key != "kind" && f.key != "apiVersion" && strings.EqualFold(f.key, "kind") {
			d.report(n, "", "", "kind", message, fmt.Sprintf("field names are case-sensitive: write `kind`, not `%s`", f.key))
			return
		}
	}
	hint := "a manifest begins with `apiVersion:` and `kind:`"
	var t reflect.Type
	switch spec := n.get("spec"); {
	case kind != nil && kind.kind != null:
		hint = "kind must be text"
	case n.get("Chart") != nil || n.get("services") != nil && spec == nil:
		hint = "this looks like a file of another tool, not a Kubernetes object"
	case spec.get("template") != nil:
		hint, t = "this is a fragment: add `apiVersion: apps/v1`, `kind: Deployment` and metadata.name", reflect.TypeFor[appsv1.Deployment]()
	case spec.get("containers") != nil && n.get("metadata") == nil:
		hint = "this is a fragment, perhaps a patch of a Deployment's template, where it stands below spec.template; for a Pod add `apiVersion: v1`, `kind: Pod` and metadata.name"
		t = reflect.TypeFor[corev1.Pod]()
	case spec.get("containers") != nil:
		hint, t = "add `apiVersion: v1` and `kind: Pod`", reflect.TypeFor[corev1.Pod]()
	case fits(n, reflect.TypeFor[corev1.Container]()):
		hint, t = "this is a fragment of a container, not an object: it belongs below spec.containers[0] of a Pod", reflect.TypeFor[corev1.Container]()
	case fits(n, reflect.TypeFor[corev1.PodSpec]()):
		hint, t = "this is a fragment, not an object: it belongs below spec of a Pod", reflect.TypeFor[corev1.PodSpec]()
	}
	d.report(n, "", "", "", message, hint)
	if t != nil {
		n.delete("apiVersion")
		c := &checker{document: d}
		c.check(n, t, place{})
	}
}

// fits reports whether every key of n is a field of t.
func fits(n *node, t reflect.Type) bool {
	for _, f := range n.fields {
		if _, ok := fieldsOf(t).byName[f.key]; !ok {
			return false
		}
	}
	return len(n.fields) > 0
}

// maxListDepth is how deep lists may lie in lists.
const maxListDepth = 8

// list handles v1 List and the typed lists, such as PodList.
func (d *document) list(n *node, kind, version string, depth int) {
	item := strings.TrimSuffix(kind, "List")
	want := "v1"
	if item != "" {
		want = kinds[item].apiVersion
	}
	if version != want {
		d.report(n, kind, "", "apiVersion", fmt.Sprintf("no kind %q is registered for version %q", kind, version), "write `apiVersion: "+want+"`")
	}
	for _, f := range n.fields {
		switch f.key {
		case "apiVersion", "kind", "metadata", "items":
		default:
			hint := ""
			if g, _ := nearest(f.key, []string{"metadata", "items"}); g != "" {
				hint = fmt.Sprintf("did you mean `%s`?", g)
			}
			d.report(n, kind, "", f.key, fmt.Sprintf("unknown field %q", f.key), hint)
		}
	}
	items := n.get("items")
	switch {
	case items == nil || items.kind == null:
		return
	case depth > maxListDepth:
		d.report(n, kind, "", "items", fmt.Sprintf("lists are nested more than %d deep", maxListDepth), "")
		return
	case items.kind != list:
		d.report(n, kind, "", "items", fmt.Sprintf("json: cannot unmarshal %s into Go struct field %s.items of type []runtime.RawExtension", items.kind, kind), "")
		return
	}
	for _, it := range items.items {
		if it.kind == object && item != "" {
			// The items of a typed list may leave out what the list says.
			if it.get("kind") == nil {
				it.set("kind", it.line, &node{line: it.line, kind: text, text: item})
			}
			if it.get("apiVersion") == nil {
				it.set("apiVersion", it.line, &node{line: it.line, kind: text, text: want})
			}
		}
		d.object(it, depth+1)
	}
}

// decode checks an object of a supported kind, decodes, defaults and
// validates it, and adds it to the result.
func (d *document) decode(n *node, kind, name string, s supported) {
	c := &checker{document: d, kind: kind, name: name}
	obj := s.new()
	c.check(n, reflect.TypeOf(obj), place{})
	if d.full {
		return
	}
	raw, err := json.Marshal(n)
	if err == nil {
		err = kjson.Unmarshal(raw, obj)
	}
	if err != nil {
		if len(c.broken) == 0 {
			d.report(n, kind, name, "", err.Error(), "")
		}
		return
	}
	name = obj.GetName()
	if name == "" && obj.GetGenerateName() != "" {
		name = obj.GetGenerateName()
	}
	if s.namespaced {
		if obj.GetNamespace() == "" {
			obj.SetNamespace(d.namespace)
		}
	}
	errs, warnings := d.add(n, kind, obj)
	for _, e := range errs {
		if c.isBroken(e.Field) {
			continue
		}
		detail := e.ErrorBody()
		d.report(n, kind, name, e.Field, detail, validationHint(e))
	}
	for _, w := range warnings {
		w.File, w.Line, w.Kind, w.Name = d.file.name, d.line(n.at(w.Path)), kind, name
		d.warn(w)
	}
	d.remember(n, kind, name, obj, s)
}

func (d *document) remember(n *node, kind, name string, obj metav1.Object, s supported) {
	if obj.GetName() == "" {
		return
	}
	key := objectKey{kind, obj.GetNamespace(), obj.GetName()}
	here := fmt.Sprintf("%s:%d", d.file.name, d.line(n.line))
	if first, ok := d.seen[key]; ok {
		d.report(n, kind, name, "metadata.name", fmt.Sprintf("%s %q already exists", s.resource, name), "declared at "+first+" already")
		return
	}
	d.seen[key] = here
}

// isBroken reports whether a problem was reported for the field, or something
// around or in it, already.
func (c *checker) isBroken(path string) bool {
	for _, b := range c.broken {
		if path == b || strings.HasPrefix(path, b+".") || strings.HasPrefix(path, b+"[") {
			return true
		}
	}
	return false
}

// validationHint guesses at what was meant by an invalid value.
func validationHint(e *field.Error) string {
	v, _ := e.BadValue.(string)
	if v == "" && e.BadValue != nil {
		v = fmt.Sprint(e.BadValue)
	}
	if l := lookalike(v); l != "" {
		return "the value contains a " + l
	}
	switch {
	case e.Type == field.ErrorTypeInvalid && strings.Contains(e.Detail, "must contain at least one letter") && isDigits(v):
		return "in quotes this is the name of a port: write " + v + " without quotes"
	case e.Type == field.ErrorTypeNotSupported:
		var options []string
		for _, part := range strings.Split(e.Detail, `"`) {
			if part != "" && !strings.ContainsAny(part, ", :") {
				options = append(options, part)
			}
		}
		if g, _ := nearest(v, options); g != "" && g != v {
			return fmt.Sprintf("did you mean `%s`?", g)
		}
	case e.Type == field.ErrorTypeInvalid && strings.Contains(e.Detail, "lowercase RFC 1123") && strings.ToLower(v) != v:
		return "names have no capital letters"
	case e.Type == field.ErrorTypeInvalid && strings.Contains(e.Detail, "lowercase RFC 1123") && strings.Contains(v, "_"):
		return "names have `-` instead of `_`"
	case e.Type == field.ErrorTypeRequired && strings.HasSuffix(e.Field, "containers"):
		return "a pod needs at least one container"
	}
	return ""
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
