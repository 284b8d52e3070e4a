package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	yaml3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// node is one value of a document and where it stands. Its value is what
// kubectl would decode (YAML 1.1, MAN-02); its place comes from a second
// parser that keeps positions.
type node struct {
	line, col int
	kind      kind
	text      string // of a string: its value; of other scalars: JSON
	source    string // of a scalar: as it is written in the file
	items     []*node
	fields    []entry
}

type entry struct {
	key   string
	line  int
	value *node
}

type kind int

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

// String is the word encoding/json uses in its errors.
func (k kind) String() string {
	return [...]string{"null", "bool", "number", "string", "array", "object"}[k]
}

func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return n.fields[i].value
		}
	}
	return nil
}

// set adds a field or replaces its value.
func (n *node) set(key string, line int, v *node) {
	for i := range n.fields {
		if n.fields[i].key == key {
			n.fields[i].value = v
			return
		}
	}
	n.fields = append(n.fields, entry{key: key, line: line, value: v})
}

func (n *node) delete(key string) {
	for i := range n.fields {
		if n.fields[i].key == key {
			n.fields = append(n.fields[:i], n.fields[i+1:]...)
			return
		}
	}
}

// str is the value of a string node, "" for any other.
func (n *node) str() string {
	if n == nil || n.kind != text {
		return ""
	}
	return n.text
}

// MarshalJSON renders the value, with all repairs made to it.
func (n *node) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := n.write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (n *node) write(b *bytes.Buffer) error {
	switch n.kind {
	case null:
		b.WriteString("null")
	case boolean, number:
		b.WriteString(n.text)
	case text:
		return writeString(b, n.text)
	case list:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := item.write(b); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case object:
		b.WriteByte('{')
		for i, f := range n.fields {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeString(b, f.key); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := f.value.write(b); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	}
	return nil
}

func writeString(b *bytes.Buffer, s string) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the newline that Encode adds
	return nil
}

// at finds the line of a field path such as spec.containers[0].env[1].name or
// metadata.labels[app]: of the field itself, or of the nearest object around
// it that is written down.
func (n *node) at(path string) int {
	line := n.line
	for path != "" && n != nil {
		var next *node
		switch path[0] {
		case '.':
			path = path[1:]
			continue
		case '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return line
			}
			key := path[1:end]
			path = path[end+1:]
			if n.kind == list {
				if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.items) {
					next = n.items[i]
					line = next.line
				}
				break
			}
			line, next = n.field(key, line)
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			key := path[:end]
			path = path[end:]
			line, next = n.field(key, line)
		}
		n = next
	}
	return line
}

func (n *node) field(key string, line int) (int, *node) {
	for _, f := range n.fields {
		if f.key == key {
			if f.line > 0 {
				line = f.line
			}
			return line, f.value
		}
	}
	return line, nil
}

// duplicate is a key that is set twice in one map.
type duplicate struct {
	path        string
	line, first int
}

// parseYAML reads one document. A document without content gives nil.
func parseYAML(data []byte) (root *node, dups []duplicate, err error) {
	// The parsers are other people's code and have panicked on hostile input
	// before; a panic here is a property of the document, not of wasmpod.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	var doc yaml3.Node
	if err := yaml3.Unmarshal(data, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	if len(doc.Content) == 0 {
		return nil, nil, nil
	}
	m := measurer{sizes: map[*yaml3.Node]size{}, open: map[*yaml3.Node]bool{}}
	if _, err := m.measure(doc.Content[0], 0); err != nil {
		return nil, nil, err
	}
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, err
	}
	root, err = build(asJSON, doc.Content[0])
	if root != nil && root.kind == null {
		root = nil
	}
	return root, duplicates(doc.Content[0], "", nil), err
}

// parseJSON reads one JSON value. Positions come from reading it as YAML,
// which it nearly always is as well.
func parseJSON(data []byte) (root *node, dups []duplicate, err error) {
	var doc yaml3.Node
	var top *yaml3.Node
	func() {
		defer func() { _ = recover() }() // as in parseYAML; positions are lost, no more
		if yaml3.Unmarshal(data, &doc) == nil && len(doc.Content) > 0 {
			top = doc.Content[0]
		}
	}()
	if depthOf(data) > maxDepth {
		return nil, nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	root, err = build(data, top)
	if top != nil {
		dups = duplicates(top, "", nil)
	}
	return root, dups, err
}

// depthOf is how deep a JSON text nests at most.
func depthOf(data []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

type size struct{ nodes, bytes int }

// measurer sizes a document with every alias expanded, without expanding it.
type measurer struct {
	sizes map[*yaml3.Node]size
	open  map[*yaml3.Node]bool
}

func (m *measurer) measure(n *yaml3.Node, depth int) (size, error) {
	if depth > maxDepth {
		return size{}, fmt.Errorf("yaml: line %d: nested more than %d levels deep", n.Line, maxDepth)
	}
	if n.Kind == yaml3.AliasNode {
		if n.Alias == nil {
			return size{}, fmt.Errorf("yaml: line %d: unknown anchor '%s' referenced", n.Line, n.Value)
		}
		n = n.Alias
	}
	// Depth is checked on the first visit only: a repeated anchor was within
	// bounds where it stands, and every use of it adds at most maxDepth.
	if s, ok := m.sizes[n]; ok {
		return s, nil
	}
	if m.open[n] {
		return size{}, fmt.Errorf("yaml: line %d: anchor '%s' value contains itself", n.Line, n.Anchor)
	}
	m.open[n] = true
	s := size{nodes: 1, bytes: len(n.Value) + 1}
	for _, c := range n.Content {
		cs, err := m.measure(c, depth+1)
		if err != nil {
			return size{}, err
		}
		s.nodes += cs.nodes
		s.bytes += cs.bytes
		if s.nodes > maxNodes || s.bytes > maxExpanded {
			return size{}, errors.New("yaml: document contains excessive aliasing or is too large")
		}
	}
	delete(m.open, n)
	m.sizes[n] = s
	return s, nil
}

// build joins the JSON value of a document with the positions of its nodes,
// which may be nil.
func build(asJSON []byte, pos *yaml3.Node) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return join(v, pos, 1, 1), nil
}

func join(v any, pos *yaml3.Node, line, col int) *node {
	for pos != nil && pos.Kind == yaml3.AliasNode {
		pos = pos.Alias
	}
	n := &node{line: line, col: col}
	if pos != nil {
		n.line, n.col, n.source = pos.Line, pos.Column, pos.Value
	}
	switch v := v.(type) {
	case nil:
		n.kind = null
	case bool:
		n.kind, n.text = boolean, strconv.FormatBool(v)
	case json.Number:
		n.kind, n.text = number, v.String()
	case string:
		n.kind, n.text = text, v
	case []any:
		n.kind = list
		for i, item := range v {
			var p *yaml3.Node
			if pos != nil && pos.Kind == yaml3.SequenceNode && i < len(pos.Content) {
				p = pos.Content[i]
			}
			n.items = append(n.items, join(item, p, n.line, n.col))
		}
	case map[string]any:
		n.kind = object
		places := keyPlaces(pos)
		for key, value := range v {
			f := entry{key: key, line: n.line}
			place := places[key]
			if place.key != nil {
				f.line = place.key.Line
			}
			f.value = join(value, place.value, f.line, n.col)
			n.fields = append(n.fields, f)
		}
		sort.Slice(n.fields, func(i, j int) bool {
			a, b := n.fields[i], n.fields[j]
			if ka, kb := places[a.key].order, places[b.key].order; ka != kb {
				return ka < kb
			}
			return a.key < b.key
		})
	}
	return n
}

type keyPlace struct {
	key, value *yaml3.Node
	order      int
}

// keyPlaces are the nodes of a mapping's keys and values, merge keys included.
func keyPlaces(pos *yaml3.Node) map[string]keyPlace {
	places := map[string]keyPlace{}
	if pos == nil || pos.Kind != yaml3.MappingNode {
		return places
	}
	for i := 0; i+1 < len(pos.Content); i += 2 {
		k, v := pos.Content[i], pos.Content[i+1]
		if k.Tag == "!!merge" {
			for v.Kind == yaml3.AliasNode {
				v = v.Alias
			}
			sources := []*yaml3.Node{v}
			if v.Kind == yaml3.SequenceNode {
				sources = v.Content
			}
			for _, s := range sources {
				for s.Kind == yaml3.AliasNode {
					s = s.Alias
				}
				if s.Kind != yaml3.MappingNode {
					continue
				}
				for j := 0; j+1 < len(s.Content); j += 2 {
					name := keyName(s.Content[j])
					if _, ok := places[name]; !ok {
						places[name] = keyPlace{s.Content[j], s.Content[j+1], i + 1}
					}
				}
			}
			continue
		}
		places[keyName(k)] = keyPlace{k, v, i + 1}
	}
	return places
}

// keyName is the JSON key that YAML 1.1 makes of a key node.
func keyName(k *yaml3.Node) string {
	if k.Kind == yaml3.AliasNode && k.Alias != nil {
		k = k.Alias
	}
	if k.Style == 0 && k.Kind == yaml3.ScalarNode {
		switch strings.ToLower(k.Value) {
		case "y", "yes", "on", "true":
			return "true"
		case "n", "no", "off", "false":
			return "false"
		}
	}
	return k.Value
}

// duplicates finds keys set twice, which kubectl would let the last one win
// of (MAN-04).
func duplicates(n *yaml3.Node, path string, found []duplicate) []duplicate {
	if len(found) > MaxProblems {
		return found
	}
	switch n.Kind {
	case yaml3.MappingNode:
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			name := keyName(k)
			p := joinPath(path, name)
			if k.Tag != "!!merge" {
				if line, ok := first[name]; ok {
					found = append(found, duplicate{path: p, line: k.Line, first: line})
				} else {
					first[name] = k.Line
				}
			}
			found = duplicates(n.Content[i+1], p, found)
		}
	case yaml3.SequenceNode:
		for i, c := range n.Content {
			found = duplicates(c, fmt.Sprintf("%s[%d]", path, i), found)
		}
	}
	return found
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
