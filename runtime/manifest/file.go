package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// file is one source being parsed.
type file struct {
	*parser
	name string
}

// document is one YAML document or JSON value of a file.
type document struct {
	*file
	data  []byte
	first int // line of the file on which data begins, from 1
}

// parse splits the file into documents and handles each (MAN-01).
func (f *file) parse(data []byte) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		pr := Problem{File: f.name, Message: "not UTF-8 text"}
		switch {
		case bytes.HasPrefix(data, []byte("\x00asm")):
			pr.Message, pr.Hint = "this is a WebAssembly module, not a manifest", "run it as `wasmpod run FILE.wasm -- ARG…`"
		case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
			pr.Hint = "the file is UTF-16: save it as UTF-8"
		default:
			pr.Line = 1 + bytes.Count(validPrefix(data), []byte("\n"))
		}
		f.problem(pr)
		return
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	line := 1
	if trimmed := bytes.TrimLeft(data, " \t\n\r"); len(trimmed) > 0 && trimmed[0] == '{' {
		line += bytes.Count(data[:len(data)-len(trimmed)], []byte("\n"))
		rest, restLine, done := f.jsonStream(trimmed, line)
		if done {
			return
		}
		data, line = rest, restLine
	}
	for len(data) > 0 && !f.full {
		doc, rest := cutDocument(data)
		f.document(doc, line)
		line += bytes.Count(doc, []byte("\n"))
		data = rest
	}
}

func validPrefix(data []byte) []byte {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return data[:i]
		}
		i += n
	}
	return data
}

// cutDocument cuts the first document off: up to the next line that begins a
// document with "---".
func cutDocument(data []byte) (doc, rest []byte) {
	for i := 0; ; {
		nl := bytes.IndexByte(data[i:], '\n')
		if nl < 0 {
			return data, nil
		}
		i += nl + 1
		line := data[i:]
		if bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || bytes.IndexByte([]byte(" \t\n\r"), line[3]) >= 0) {
			return data[:i], data[i:]
		}
	}
}

// jsonStream handles JSON values that follow one another. It returns what it
// leaves to the YAML reader, which also reads YAML in flow style.
func (f *file) jsonStream(data []byte, line int) (rest []byte, restLine int, done bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	var values int
	for !f.full {
		start := int(d.InputOffset())
		var raw json.RawMessage
		err := d.Decode(&raw)
		if err == io.EOF {
			return nil, 0, true
		}
		if err != nil {
			tail := bytes.TrimLeft(data[start:], " \t\n\r")
			at := len(data) - len(tail)
			tailLine := line + bytes.Count(data[:at], []byte("\n"))
			if values == 0 || bytes.HasPrefix(tail, []byte("---")) {
				return tail, tailLine, false
			}
			pr := Problem{File: f.name, Line: tailLine, Message: err.Error()}
			if strings.Trim(string(tail), "]} \t\r\n,") == "" {
				pr.Hint = fmt.Sprintf("stray closing brackets after the object, which ends on line %d", line+bytes.Count(data[:start], []byte("\n")))
			}
			f.problem(pr)
			return nil, 0, true
		}
		values++
		end := int(d.InputOffset())
		begin := end - len(raw)
		if !f.count(end - begin) {
			return nil, 0, true
		}
		doc := &document{file: f, data: raw, first: line + bytes.Count(data[:begin], []byte("\n"))}
		first := len(f.problems)
		root, dups, err := parseJSON(raw)
		if err != nil {
			f.problem(Problem{File: f.name, Line: doc.first, Message: err.Error()})
			continue
		}
		doc.handle(root, dups)
		f.sortFrom(first)
	}
	return nil, 0, true
}

// sortFrom puts the problems of a document into the order of its lines.
func (f *file) sortFrom(first int) {
	last := len(f.problems)
	if f.full {
		last--
	}
	if first < last {
		of := f.problems[first:last]
		sort.SliceStable(of, func(i, j int) bool { return of[i].Line < of[j].Line })
	}
}

// count counts a document and checks the bounds on it.
func (f *file) count(size int) bool {
	f.documents++
	if f.documents > MaxDocuments {
		f.problem(Problem{File: f.name, Message: fmt.Sprintf("too many documents: more than %d", MaxDocuments)})
		f.full = true
		return false
	}
	if size > MaxDocument {
		f.problem(Problem{File: f.name, Message: fmt.Sprintf("document is too large: limit is %d bytes", MaxDocument)})
		return false
	}
	return true
}

// document handles one YAML document that begins at the given line.
func (f *file) document(data []byte, line int) {
	if !slices.ContainsFunc(strings.Split(string(data), "\n"), content) {
		return
	}
	if !f.count(len(data)) {
		return
	}
	d := &document{file: f, data: data, first: line}
	defer f.sortFrom(len(f.problems))
	repaired, found := elisions(string(data))
	root, dups, err := parseYAML([]byte(repaired))
	if err != nil {
		var more []finding
		var whole bool
		repaired, more, whole = diagnose(repaired, err.Error())
		found = append(found, more...)
		root, dups = nil, nil
		if whole && len(more) > 0 {
			// The text is mended: what else is wrong with the document?
			if r, dd, err := parseYAML([]byte(repaired)); err == nil {
				root, dups = r, dd
			}
		}
	}
	for _, x := range found {
		pr := Problem{File: f.name, Message: x.message, Hint: x.hint}
		if x.line > 0 {
			pr.Line = x.line + line - 1
		}
		f.problem(pr)
	}
	if root != nil {
		d.handle(root, dups)
	}
}

// handle takes a decoded document on.
func (d *document) handle(root *node, dups []duplicate) {
	if root == nil {
		return
	}
	for _, dup := range dups {
		d.problem(Problem{File: d.file.name, Line: d.line(dup.line), Path: dup.path,
			Message: fmt.Sprintf("duplicate field %q", dup.path),
			Hint:    fmt.Sprintf("it is set on line %d already; of two values the last would win silently", d.line(dup.first))})
	}
	d.object(root, 0)
}

// line turns a line of the document into one of the file.
func (d *document) line(n int) int {
	if n <= 0 {
		return d.first
	}
	return n + d.first - 1
}
