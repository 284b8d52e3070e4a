package manifest

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var fieldTable = tableOf(Fields)

func tableOf(fields []Field) map[string]*Field {
	m := make(map[string]*Field, len(fields))
	for i := range fields {
		m[fields[i].Path] = &fields[i]
	}
	return m
}

// support finds the fields of a spec, as its author wrote it, that are ignored
// or rejected. It must see the spec before defaulting.
type support struct {
	table    map[string]*Field
	base     *field.Path
	warned   map[string]bool
	warnings []Problem
	errs     field.ErrorList
}

func checkSupport(spec *corev1.PodSpec, base *field.Path) (field.ErrorList, []Problem) {
	s := &support{table: fieldTable, base: base, warned: map[string]bool{}}
	s.walk(reflect.ValueOf(spec).Elem(), "", base, true)
	return s.errs, s.warnings
}

// checkObjectSupport is checkSupport for the spec of another kind of object.
func checkObjectSupport(spec any, fields []Field) (field.ErrorList, []Problem) {
	base := field.NewPath("spec")
	s := &support{table: tableOf(fields), base: base, warned: map[string]bool{}}
	s.walk(reflect.ValueOf(spec).Elem(), "", base, false)
	return s.errs, s.warnings
}

// walk visits the fields of a struct. table is the path in Fields, at the path
// in the object; top says that v is the PodSpec itself.
func (s *support) walk(v reflect.Value, table string, at *field.Path, top bool) {
	t := v.Type()
	for i := range t.NumField() {
		name, opts, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		f := v.Field(i)
		if name == "" || strings.Contains(opts, "inline") {
			if f.Kind() == reflect.Struct {
				s.walk(f, table, at, false)
			}
			continue
		}
		key := name
		if top && name == "initContainers" {
			key = "containers"
		}
		s.field(f, joinPath(table, key), at.Child(name))
	}
}

func (s *support) field(v reflect.Value, table string, at *field.Path) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	f, listed := s.table[table]
	if listed && f.Support != Honoured {
		// An empty object says something, an empty list or a false does not.
		if (v.IsZero() && v.Kind() != reflect.Struct) || (f.Quiet != "" && fmt.Sprint(v.Interface()) == f.Quiet) || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
			return
		}
		s.found(f, at)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if _, leaf := v.Addr().Interface().(interface{ MarshalJSON() ([]byte, error) }); !leaf {
			s.walk(v, table, at, false)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if item := v.Index(i); item.Kind() == reflect.Struct {
				s.walk(item, table+"[]", at.Index(i), false)
			}
		}
	case reflect.Map:
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			if f, ok := s.table[table+"["+k.String()+"]"]; ok && f.Support != Honoured {
				s.found(f, at.Key(k.String()))
			}
		}
	}
}

func (s *support) found(f *Field, at *field.Path) {
	if f.Support == Rejected {
		detail := "not supported yet"
		if f.Note != "" {
			detail = f.Note
			if !strings.Contains(detail, "cannot") {
				detail = "not supported: " + f.Note
			}
		}
		s.errs = append(s.errs, field.Forbidden(at, detail))
		return
	}
	// Once for each field, however many containers set it.
	if s.warned[f.Path] {
		return
	}
	s.warned[f.Path] = true
	s.warnings = append(s.warnings, Problem{Path: at.String(), Message: "ignored", Hint: f.Note})
}
