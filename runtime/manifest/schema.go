package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// structFields are the JSON fields of a struct type, embedded ones included.
type structFields struct {
	byName map[string]reflect.Type
	names  []string
}

var fieldCache sync.Map // reflect.Type -> *structFields

func fieldsOf(t reflect.Type) *structFields {
	if c, ok := fieldCache.Load(t); ok {
		return c.(*structFields)
	}
	f := &structFields{byName: map[string]reflect.Type{}}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			sf := t.Field(i)
			name, opts, _ := strings.Cut(sf.Tag.Get("json"), ",")
			if sf.Anonymous && (name == "" || strings.Contains(opts, "inline")) {
				add(deref(sf.Type))
				continue
			}
			if name == "-" || name == "" {
				continue
			}
			f.byName[name] = sf.Type
			f.names = append(f.names, name)
		}
	}
	add(t)
	c, _ := fieldCache.LoadOrStore(t, f)
	return c.(*structFields)
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

var (
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	quantityType    = reflect.TypeFor[resource.Quantity]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
)

// place is where the checker is: the path as users write it, and what
// encoding/json would call it in an error.
type place struct {
	path   string // spec.containers[0].ports
	goPath string // spec.containers.ports
	strct  string // the type that has the field, such as Container
}

func (p place) child(strct, key string) place {
	return place{joinPath(p.path, key), joinPath(p.goPath, key), strct}
}

func (p place) index(i int) place {
	p.path = fmt.Sprintf("%s[%d]", p.path, i)
	return p
}

func (p place) key(k string) place {
	p.path = fmt.Sprintf("%s[%s]", p.path, k)
	return p
}

// structAt is an object of the document and the type it decodes into.
type structAt struct {
	path string
	n    *node
	t    reflect.Type
}

// checker compares a document with the Go type it decodes into (MAN-04,
// MAN-05), reports every difference, and repairs the document so that it
// decodes.
type checker struct {
	*document
	kind, name string
	// above are the objects around the one being checked, innermost last.
	above []structAt
	// before are all objects seen so far, in document order.
	before []structAt
	// broken are the paths with a reported problem; what validation finds
	// there follows from it and is not reported again.
	broken []string
}

func (c *checker) report(line int, at place, message, hint string) {
	c.broken = append(c.broken, at.path)
	c.problem(Problem{File: c.file.name, Line: c.line(line), Kind: c.kind, Name: c.name, Path: at.path, Message: message, Hint: hint})
}

// check checks n against t.
func (c *checker) check(n *node, t reflect.Type, at place) {
	if c.full || n.kind == null {
		return
	}
	t = deref(t)
	if reflect.PointerTo(t).Implements(unmarshalerType) {
		c.checkCustom(n, t, at)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.kind == list && len(n.items) == 1 && n.items[0].kind == object {
			c.mismatch(n, t, at, "this takes one object, not a list: remove the `-`")
			*n = *n.items[0]
		}
		if n.kind != object {
			c.mismatch(n, t, at, "")
			c.clear(n)
			return
		}
		c.checkStruct(n, t, at)
	case reflect.Map:
		if n.kind != object {
			hint := ""
			if n.kind == list {
				hint = "write `key: value` lines without `-`"
			}
			c.mismatch(n, t, at, hint)
			c.clear(n)
			return
		}
		for i := range n.fields {
			c.check(n.fields[i].value, t.Elem(), at.key(n.fields[i].key))
		}
	case reflect.Slice:
		c.checkSlice(n, t, at)
	default:
		c.checkScalar(n, t, at)
	}
}

func (c *checker) checkSlice(n *node, t reflect.Type, at place) {
	if t.Elem().Kind() == reflect.Uint8 {
		if n.kind != text {
			c.mismatch(n, t, at, "")
			c.clear(n)
			return
		}
		if _, err := base64.StdEncoding.DecodeString(n.text); err != nil {
			c.report(n.line, at, err.Error(), "the value must be base64; plain text goes into stringData (Secret) or data (ConfigMap)")
			c.clear(n)
		}
		return
	}
	if n.kind != list {
		elem := deref(t.Elem())
		switch {
		case n.kind == object && elem.Kind() == reflect.Struct:
			c.mismatch(n, t, at, "this takes a list: begin each item with `- `")
			item := *n
			*n = node{line: n.line, col: n.col, kind: list, items: []*node{&item}}
		case n.kind == text && elem.Kind() == reflect.String:
			hint := "this takes a list: write `[" + quoteShort(n.text) + "]`, or one item on each line after `- `"
			c.mismatch(n, t, at, hint)
			item := *n
			*n = node{line: n.line, col: n.col, kind: list, items: []*node{&item}}
		default:
			c.mismatch(n, t, at, "")
			c.clear(n)
			return
		}
	}
	for i, item := range n.items {
		c.check(item, t.Elem(), at.index(i))
	}
}

func (c *checker) checkStruct(n *node, t reflect.Type, at place) {
	self := structAt{at.path, n, t}
	c.before = append(c.before, self)
	c.above = append(c.above, self)
	defer func() { c.above = c.above[:len(c.above)-1] }()
	known := fieldsOf(t)
	for i := 0; i < len(n.fields); i++ {
		f := n.fields[i]
		if ft, ok := known.byName[f.key]; ok {
			c.check(f.value, ft, at.child(t.Name(), f.key))
		}
	}
	// Unknown keys come last, so that what a repair adds is checked once and
	// a repair never replaces a value that is there.
	for i := 0; i < len(n.fields) && !c.full; {
		f := n.fields[i]
		if _, ok := known.byName[f.key]; ok {
			i++
			continue
		}
		n.fields = append(n.fields[:i:i], n.fields[i+1:]...)
		c.unknown(f, n, t, at)
		if len(n.fields) > i && n.fields[i].key == f.key {
			i++
		}
	}
}

// unknown reports a key that the type does not have, guesses what was meant,
// and moves the value there.
func (c *checker) unknown(f entry, n *node, t reflect.Type, at place) {
	here := at.child(t.Name(), f.key)
	message := fmt.Sprintf("unknown field %q", here.path)
	known := fieldsOf(t)

	if f.key == "true" || f.key == "false" {
		c.report(f.line, here, message, "unquoted y, n, yes, no, on and off are booleans in YAML 1.1, also as keys: quote the key")
		return
	}
	guess, exact := nearest(f.key, known.names)
	move := func(to structAt, key string) {
		if to.n.get(key) != nil {
			return
		}
		to.n.set(key, f.line, f.value)
		c.check(f.value, fieldsOf(to.t).byName[key], place{joinPath(to.path, key), joinPath(to.path, key), to.t.Name()})
	}
	self := structAt{at.path, n, t}
	if l := lookalike(f.key); l != "" {
		c.report(f.line, here, message, "the key contains a "+l)
		plain := strings.TrimSpace(strings.Map(func(r rune) rune {
			if _, ok := lookalikes[r]; ok {
				return -1
			}
			return r
		}, f.key))
		if _, ok := known.byName[plain]; ok {
			move(self, plain)
		}
		return
	}
	if exact {
		c.report(f.line, here, message, fmt.Sprintf("field names are case-sensitive: did you mean `%s`?", guess))
		move(self, guess)
		return
	}
	for i := len(c.above) - 2; i >= 0; i-- {
		up := c.above[i]
		if _, ok := fieldsOf(up.t).byName[f.key]; !ok || up.n.get(f.key) != nil {
			continue
		}
		hint := "belongs further up, in `" + last(up.path) + "`"
		if i == len(c.above)-2 {
			hint = "belongs one level up, in `" + last(up.path) + "`"
		}
		if up.path == "" {
			hint = "belongs at the top level"
		}
		c.report(f.line, here, message, hint)
		move(up, f.key)
		return
	}
	if guess != "" {
		c.report(f.line, here, message, fmt.Sprintf("did you mean `%s`?", guess))
		move(self, guess)
		return
	}
	// The nearest object before this line that could have the field: the
	// indentation is what got lost.
	for i := len(c.before) - 1; i >= 0; i-- {
		b := c.before[i]
		if _, ok := fieldsOf(b.t).byName[f.key]; ok && b.path != at.path && b.n.get(f.key) == nil && b.n.line <= f.line {
			hint := fmt.Sprintf("belongs under `%s`: indent it as the fields there (indentation lost at a page break?)", b.path)
			c.report(f.line, here, message, hint)
			move(b, f.key)
			return
		}
	}
	hint := ""
	if path := pathTo(t, f.key); path != "" {
		hint = fmt.Sprintf("belongs in `%s`", joinPath(at.path, path))
	}
	c.report(f.line, here, message, hint)
}

func last(path string) string {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		path = path[i+1:]
	}
	return path
}

// pathTo finds where below t a field of that name is, looking at most four
// objects deep and never into lists.
func pathTo(t reflect.Type, name string) string {
	type step struct {
		t     reflect.Type
		path  string
		depth int
	}
	queue := []step{{t, "", 0}}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		for _, f := range fieldsOf(s.t).names {
			ft := deref(fieldsOf(s.t).byName[f])
			if f == "metadata" || f == "status" || ft.Kind() != reflect.Struct || s.depth == 4 || reflect.PointerTo(ft).Implements(unmarshalerType) {
				continue
			}
			p := joinPath(s.path, f)
			if _, ok := fieldsOf(ft).byName[name]; ok {
				return p
			}
			queue = append(queue, step{ft, p, s.depth + 1})
		}
	}
	return ""
}

func (c *checker) mismatch(n *node, t reflect.Type, at place, hint string) {
	value := n.kind.String()
	if n.kind == number {
		value += " " + n.text
		if t.Kind() == reflect.String || t.Kind() == reflect.Bool || t.Kind() == reflect.Slice || t.Kind() == reflect.Struct || t.Kind() == reflect.Map {
			value = n.kind.String()
		}
	}
	if n.kind == text && hint == "" {
		hint = textHint(n.text)
	}
	c.report(n.line, at, fmt.Sprintf("json: cannot unmarshal %s into Go struct field %s.%s of type %s", value, at.strct, at.goPath, t.String()), hint)
}

// clear gives up on a value.
func (c *checker) clear(n *node) { *n = node{line: n.line, col: n.col} }

func textHint(s string) string {
	switch {
	case strings.Contains(s, "{{"), strings.Contains(s, "${"), strings.HasPrefix(s, "$"):
		return "`" + short(s) + "` looks like a placeholder of a template: render it first"
	case s == "..." || s == "…":
		return elisionHint
	}
	if l := lookalike(s); l != "" {
		return "the value contains a " + l
	}
	return ""
}

func (c *checker) checkScalar(n *node, t reflect.Type, at place) {
	switch t.Kind() {
	case reflect.String:
		if n.kind == text {
			return
		}
		hint := ""
		src := n.source
		if src == "" {
			src = n.text
		}
		switch n.kind {
		case boolean:
			hint = fmt.Sprintf("`%s` is a boolean in YAML 1.1: quote it, \"%s\"", short(src), short(src))
			if src == "true" || src == "false" {
				hint = fmt.Sprintf("quote it, \"%s\"", src)
			}
		case number:
			hint = fmt.Sprintf("quote it, \"%s\"", short(src))
		case object:
			hint = "a text that contains `: ` needs quotes"
		}
		c.mismatch(n, t, at, hint)
		if n.kind == boolean || n.kind == number {
			n.kind, n.text = text, src
		} else {
			c.clear(n)
		}
	case reflect.Bool:
		if n.kind == boolean {
			return
		}
		if v, err := strconv.ParseBool(n.str()); err == nil {
			c.mismatch(n, t, at, fmt.Sprintf("write %v without quotes", v))
			n.kind, n.text = boolean, strconv.FormatBool(v)
			return
		}
		c.mismatch(n, t, at, "")
		c.clear(n)
	case reflect.Int32, reflect.Int64, reflect.Int:
		if n.kind == number {
			if _, err := strconv.ParseInt(n.text, 10, t.Bits()); err == nil {
				return
			}
			c.mismatch(n, t, at, "")
			c.clear(n)
			return
		}
		if v, err := strconv.ParseInt(n.str(), 10, t.Bits()); err == nil {
			c.mismatch(n, t, at, fmt.Sprintf("this takes a number: write %d without quotes", v))
			n.kind, n.text = number, strconv.FormatInt(v, 10)
			return
		}
		c.mismatch(n, t, at, "")
		c.clear(n)
	}
}

// quantityRE bounds what is handed to the quantity parser: it computes
// 1e-1000000000 digit by digit.
var quantityRE = regexp.MustCompile(`^[^eE]{0,64}([eE][+-]?\d{0,3}|[a-zA-Z]*)?$`)

// checkCustom checks a type with a decoder of its own.
func (c *checker) checkCustom(n *node, t reflect.Type, at place) {
	raw, err := json.Marshal(n)
	if err == nil {
		switch {
		case t == quantityType && (n.kind == text || n.kind == number) && (len(n.text) > 64 || !quantityRE.MatchString(n.text)):
			err = resource.ErrFormatWrong
		case t == intOrStringType && n.kind != text && n.kind != number:
			c.mismatch(n, t, at, "a port is a number or the name of a port")
			c.clear(n)
			return
		default:
			err = reflect.New(t).Interface().(json.Unmarshaler).UnmarshalJSON(raw)
		}
	}
	if err == nil {
		return
	}
	hint := ""
	if t == quantityType {
		hint = quantityHint(n.text)
	}
	c.report(n.line, at, err.Error(), hint)
	c.clear(n)
}

// quantityHint explains how quantities are written (RES-01).
func quantityHint(s string) string {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	suffix := strings.TrimSpace(s[len(number):])
	if number != "" {
		for wrong, right := range map[string]string{"KB": "k", "kB": "k", "kb": "k", "K": "k", "MB": "M", "Mb": "M", "mb": "M", "GB": "G", "Gb": "G", "gb": "G", "g": "G", "TB": "T",
			"KiB": "Ki", "kib": "Ki", "KI": "Ki", "ki": "Ki", "MiB": "Mi", "mi": "Mi", "MI": "Mi", "GiB": "Gi", "gi": "Gi", "GI": "Gi", "TiB": "Ti", "cpu": "", "core": "", "cores": "", "B": "", "b": ""} {
			if suffix == wrong {
				return fmt.Sprintf("did you mean `%s%s`?", strings.TrimSpace(number), right)
			}
		}
	}
	return "a quantity is a number with one of the suffixes n u m k M G T P E or Ki Mi Gi Ti Pi Ei, as 500m or 128Mi"
}

func short(s string) string {
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:57], "") + "…"
	}
	return s
}

func quoteShort(s string) string { return strconv.Quote(short(s)) }
