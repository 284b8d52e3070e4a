package gotool

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// An edit is one change to a file of GOROOT/src, which must look as the edit
// expects.
type edit struct {
	file string // slash-separated, below GOROOT/src

	// drop removes the file from the build.
	drop bool
	// from and to replace the build constraint. An empty from stands for a file
	// without one.
	from, to string
	// cut removes package-level functions and types, by name.
	cut []string
	// old is replaced by new. It must occur once.
	old, new string
}

func drop(file string) edit                { return edit{file: file, drop: true} }
func constrain(file, from, to string) edit { return edit{file: file, from: from, to: to} }
func cut(file string, names ...string) edit {
	return edit{file: file, cut: names}
}
func replace(file, old, new string) edit { return edit{file: file, old: old, new: new} }

// apply returns the file's new content. Line numbers stay as they are, so that
// the positions in a guest's panics are those of the user's GOROOT.
func (e *edit) apply(src []byte) ([]byte, error) {
	switch {
	case len(e.cut) > 0:
		return cutDecls(src, e.cut)
	case e.old != "":
		if n := bytes.Count(src, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("expected once, found %d times: %q", n, e.old)
		}
		return bytes.Replace(src, []byte(e.old), []byte(e.new), 1), nil
	default:
		return setConstraint(src, e.from, e.to)
	}
}

func setConstraint(src []byte, from, to string) ([]byte, error) {
	for line := range bytes.Lines(src) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "package ") {
			break
		}
		if !constraint.IsGoBuild(text) {
			continue
		}
		have, err := constraint.Parse(text)
		if err != nil {
			return nil, err
		}
		want, err := constraint.Parse("//go:build " + from)
		if err != nil {
			return nil, err
		}
		if have.String() != want.String() {
			return nil, fmt.Errorf("expected the build constraint %q, found %q", from, have)
		}
		return bytes.Replace(src, []byte(text), []byte("//go:build "+to), 1), nil
	}
	return nil, fmt.Errorf("expected the build constraint %q, found none", from)
}

// cutDecls removes declarations with their doc comments, and leaves their line
// breaks.
func cutDecls(src []byte, names []string) ([]byte, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	left := slices.Clone(names)
	out := slices.Clone(src)
	for _, d := range file.Decls {
		name, doc := declared(d)
		i := slices.Index(left, name)
		if i < 0 {
			continue
		}
		left = slices.Delete(left, i, i+1)
		start := d.Pos()
		if doc != nil {
			start = doc.Pos()
		}
		text := out[fset.Position(start).Offset:fset.Position(d.End()).Offset]
		for i, c := range text {
			if c != '\n' {
				text[i] = ' '
			}
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("expected declarations of %s, found none", strings.Join(left, ", "))
	}
	return trimLines(out), nil
}

// declared returns the name of a function without receiver, or of a type
// declared by itself, and its doc comment.
func declared(d ast.Decl) (string, *ast.CommentGroup) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name, d.Doc
		}
	case *ast.GenDecl:
		if len(d.Specs) == 1 {
			if t, ok := d.Specs[0].(*ast.TypeSpec); ok {
				return t.Name.Name, d.Doc
			}
		}
	}
	return "", nil
}

// trimLines removes the blanks that end lines.
func trimLines(src []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(src) {
		trimmed := bytes.TrimRight(line, " \n")
		out.Write(trimmed)
		if bytes.HasSuffix(line, []byte("\n")) {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}
