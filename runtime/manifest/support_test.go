package manifest

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Every field of PodSpec, and every field of the objects in it, is in Fields,
// so that a new version of the API cannot add one that is silently dropped;
// and Fields has no field that does not exist.
func TestFieldsCoverPodSpec(t *testing.T) {
	known := map[string]bool{}
	walkType(reflect.TypeFor[corev1.PodSpec](), "", 0, known)
	for path := range known {
		if strings.Count(path, ".") > 1 || strings.HasPrefix(path, "initContainers[]") || strings.HasPrefix(path, "ephemeralContainers[]") {
			continue
		}
		if strings.HasPrefix(path, "affinity.") && strings.Count(path, ".") > 1 {
			continue
		}
		if _, ok := fieldTable[path]; !ok {
			t.Errorf("Fields lacks %s", path)
		}
	}
	seen := map[string]bool{}
	for _, f := range Fields {
		path, _, _ := strings.Cut(f.Path, "[memory]")
		path, _, _ = strings.Cut(path, "[cpu]")
		path, _, _ = strings.Cut(path, "[ephemeral-storage]")
		if !known[path] {
			t.Errorf("Fields has %s, PodSpec has not", f.Path)
		}
		if seen[f.Path] {
			t.Errorf("Fields has %s twice", f.Path)
		}
		seen[f.Path] = true
		if f.Support == Ignored && f.Note == "" {
			t.Errorf("%s is ignored without a reason", f.Path)
		}
	}
}

// The same of a ServiceSpec and, a level deep, a NetworkPolicySpec.
func TestFieldsCoverServicesAndPolicies(t *testing.T) {
	for _, c := range []struct {
		of     reflect.Type
		fields []Field
		deep   int
	}{
		{reflect.TypeFor[corev1.ServiceSpec](), ServiceFields, 3},
		{reflect.TypeFor[networkingv1.NetworkPolicySpec](), NetworkPolicyFields, 1},
	} {
		known := map[string]bool{}
		walkType(c.of, "", 0, known)
		table := tableOf(c.fields)
		for path := range known {
			inSelector := strings.HasPrefix(path, "podSelector.")
			if _, ok := table[path]; !ok && !inSelector && strings.Count(path, ".") <= c.deep {
				t.Errorf("the table of %s lacks %s", c.of.Name(), path)
			}
		}
		for path := range table {
			if !known[path] {
				t.Errorf("the table of %s has %s, which is not there", c.of.Name(), path)
			}
		}
	}
}

func walkType(t reflect.Type, path string, depth int, into map[string]bool) {
	for _, name := range fieldsOf(t).names {
		p := joinPath(path, name)
		into[p] = true
		ft := deref(fieldsOf(t).byName[name])
		if ft.Kind() == reflect.Slice && deref(ft.Elem()).Kind() == reflect.Struct {
			p, ft = p+"[]", deref(ft.Elem())
		}
		if ft.Kind() == reflect.Struct && depth < 3 && !reflect.PointerTo(ft).Implements(unmarshalerType) {
			walkType(ft, p, depth+1, into)
		}
	}
}
