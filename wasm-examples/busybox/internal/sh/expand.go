package sh

import (
	"os"
	"sort"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/glob"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// field is a word under construction. Bytes that quoting protects from pattern matching are marked in parallel.
type field struct {
	text   []byte
	quoted []bool
	exists bool // by a quotation, even when empty
}

func (f *field) add(s string, quoted bool) {
	f.text = append(f.text, s...)
	for range len(s) {
		f.quoted = append(f.quoted, quoted)
	}
}

func (f *field) empty() bool { return len(f.text) == 0 && !f.exists }

// pattern returns the field as a pattern in which quoted characters match themselves.
func (f *field) pattern() string {
	var b strings.Builder
	for i := range f.text {
		if f.quoted[i] && f.text[i] < utf8.RuneSelf {
			b.WriteString(glob.Quote(string(f.text[i : i+1])))
		} else {
			b.WriteByte(f.text[i])
		}
	}
	return b.String()
}

// expander expands the parts of one word after another.
type expander struct {
	s     *Shell
	split bool // results of unquoted expansions are split into fields
	ifs   string
	out   []field
	cur   field
	// spaceEnded: the field before was ended by white space, so that one non-white separator may still belong to it.
	spaceEnded bool
}

func (s *Shell) expander(split bool) *expander {
	e := &expander{s: s, split: split, ifs: " \t\n"}
	if v := s.vars["IFS"]; v != nil && v.set {
		e.ifs = v.value
	}
	return e
}

func (e *expander) flush() {
	if !e.cur.empty() {
		e.out = append(e.out, e.cur)
	}
	e.cur = field{}
}

// literal adds text that is not split.
func (e *expander) literal(text string, quoted bool) {
	if text != "" {
		e.spaceEnded = false
	}
	e.cur.add(text, quoted)
}

// result adds the result of an expansion.
func (e *expander) result(text string, quoted bool) {
	if quoted || !e.split {
		e.literal(text, quoted)
		return
	}
	start := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if strings.IndexByte(e.ifs, c) < 0 {
			continue
		}
		e.literal(text[start:i], false)
		start = i + 1
		if c == ' ' || c == '\t' || c == '\n' {
			if !e.cur.empty() {
				e.flush()
				e.spaceEnded = true
			}
			continue
		}
		if e.cur.empty() && e.spaceEnded {
			e.spaceEnded = false
			continue
		}
		e.cur.exists = true
		e.flush()
		e.spaceEnded = false
	}
	e.literal(text[start:], false)
}

// fields expands words to arguments: all expansions, field splitting and path names.
func (s *Shell) fields(words []*syntax.Word) []string {
	var out []string
	for _, w := range words {
		if lit, ok := plainWord(w); ok {
			out = append(out, lit)
			continue
		}
		e := s.expander(true)
		e.parts(w.Parts, false, true)
		e.flush()
		for i := range e.out {
			f := &e.out[i]
			if !s.opts.noglob {
				if p := f.pattern(); glob.HasMeta(p) {
					if matches := s.paths(p); len(matches) > 0 {
						out = append(out, matches...)
						continue
					}
				}
			}
			out = append(out, string(f.text))
		}
	}
	return out
}

// plainWord returns the text of a word that no expansion can change: most words are like that.
func plainWord(w *syntax.Word) (string, bool) {
	if len(w.Parts) != 1 {
		return "", false
	}
	switch p := w.Parts[0].(type) {
	case *syntax.Lit:
		return p.Value, !strings.ContainsAny(p.Value, `\*?[~`)
	case *syntax.SglQuoted:
		return p.Value, !p.Dollar
	}
	return "", false
}

// word expands a word to one string: no field splitting, no path names.
func (s *Shell) word(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	return string(s.single(w, false).text)
}

// assignWord is word with the tilde rules of assignments.
func (s *Shell) assignWord(w *syntax.Word) string { return string(s.single(w, true).text) }

// pattern expands a word to a pattern.
func (s *Shell) pattern(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	f := s.single(w, false)
	return f.pattern()
}

func (s *Shell) single(w *syntax.Word, assign bool) field {
	e := s.expander(false)
	e.tildes(w.Parts, assign)
	return e.cur
}

// document expands the body of a here-document, in which double quotes are ordinary characters.
func (s *Shell) document(w *syntax.Word) string {
	e := s.expander(false)
	for _, part := range w.Parts {
		if lit, ok := part.(*syntax.Lit); ok {
			e.literal(unescape(lit.Value, "$`\\"), true)
			continue
		}
		e.part(part, true)
	}
	return string(e.cur.text)
}

// unescape removes backslashes before the characters of special and before newlines.
func unescape(text, special string) string {
	if strings.IndexByte(text, '\\') < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			if text[i+1] == '\n' {
				i++
				continue
			}
			if strings.IndexByte(special, text[i+1]) >= 0 {
				i++
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func (e *expander) tildes(parts []syntax.WordPart, assign bool) {
	if !assign {
		e.parts(parts, false, true)
		return
	}
	for i, part := range parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			e.part(part, false)
			continue
		}
		for j, piece := range strings.SplitAfter(lit.Value, ":") {
			last := i == len(parts)-1 || strings.HasSuffix(piece, ":")
			if i == 0 && j == 0 || j > 0 {
				piece = e.tilde(piece, last)
			}
			e.unquotedLit(piece)
		}
	}
}

// parts expands word parts. first: a tilde may start the word.
func (e *expander) parts(parts []syntax.WordPart, quoted, first bool) {
	for i, part := range parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			e.part(part, quoted)
			continue
		}
		text := lit.Value
		if quoted {
			e.literal(unescape(text, "$`\"\\}"), true)
			continue
		}
		if first && i == 0 {
			text = e.tilde(text, len(parts) == 1)
		}
		e.unquotedLit(text)
	}
}

// tilde replaces a tilde prefix by HOME and returns what is left of the text. whole: nothing follows that could belong to
// the prefix. There are no other users' homes to know.
func (e *expander) tilde(text string, whole bool) string {
	if text == "" || text[0] != '~' {
		return text
	}
	end := strings.IndexAny(text, "/:")
	if end < 0 {
		if !whole {
			return text
		}
		end = len(text)
	}
	home, ok := e.s.lookup("HOME")
	if end != 1 || !ok {
		return text
	}
	e.literal(home, true)
	return text[end:]
}

func (e *expander) unquotedLit(text string) {
	for {
		i := strings.IndexByte(text, '\\')
		if i < 0 || i+1 >= len(text) {
			e.literal(text, false)
			return
		}
		e.literal(text[:i], false)
		if text[i+1] != '\n' {
			_, size := utf8.DecodeRuneInString(text[i+1:])
			e.literal(text[i+1:i+1+size], true)
			e.cur.exists = true
			text = text[i+1+size:]
		} else {
			text = text[i+2:]
		}
	}
}

func (e *expander) part(part syntax.WordPart, quoted bool) {
	switch p := part.(type) {
	case *syntax.Lit:
		e.parts([]syntax.WordPart{p}, quoted, false)
	case *syntax.SglQuoted:
		e.cur.exists = true
		if p.Dollar {
			e.literal(ansiC(p.Value), true)
		} else {
			e.literal(p.Value, true)
		}
	case *syntax.DblQuoted:
		if len(p.Parts) == 0 {
			e.cur.exists = true
		}
		for _, inner := range p.Parts {
			if pe, ok := inner.(*syntax.ParamExp); !ok || !isAt(pe) || len(e.s.params) > 0 {
				e.cur.exists = true
			}
			e.part(inner, true)
		}
	case *syntax.ParamExp:
		e.param(p, quoted)
	case *syntax.CmdSubst:
		e.result(e.s.substitute(p), quoted)
	case *syntax.ArithmExp:
		e.result(formatInt(e.s.arith(p.X)), quoted)
	case *syntax.ExtGlob:
		e.s.fatal(2, "syntax error: extended patterns are not supported")
	default:
		e.s.fatal(2, "syntax error: process substitution is not supported")
	}
}

// isAt reports whether the expansion is $@ in its plain form.
func isAt(pe *syntax.ParamExp) bool {
	return pe.Param != nil && pe.Param.Value == "@" && pe.Exp == nil && !pe.Length
}

// substitute runs a command substitution and returns its output without trailing newlines.
func (s *Shell) substitute(cs *syntax.CmdSubst) string {
	if cs.TempFile || cs.ReplyVar {
		s.fatal(2, "syntax error: this substitution is not supported")
	}
	if len(cs.Stmts) == 0 {
		s.substStatus = 0
		return ""
	}
	sub := s.subshell()
	out, w := newCollector()
	sub.setFile(1, w)
	s.substStatus = sub.process(func() {
		if rd := catShortcut(cs.Stmts); rd != nil {
			sub.copyFile(rd)
			return
		}
		sub.stmts(cs.Stmts)
	})
	select { // a background job of the substitution may still be writing
	case <-out.done:
	case <-s.ctx.Done():
	}
	s.checkKilled()
	out.mu.Lock()
	defer out.mu.Unlock()
	text := strings.TrimRight(string(out.buf), "\n")
	return strings.ReplaceAll(text, "\x00", "")
}

// catShortcut recognises $(<file).
func catShortcut(stmts []*syntax.Stmt) *syntax.Redirect {
	if len(stmts) != 1 || stmts[0].Cmd != nil || len(stmts[0].Redirs) != 1 || stmts[0].Redirs[0].Op != syntax.RdrIn {
		return nil
	}
	return stmts[0].Redirs[0]
}

func (s *Shell) copyFile(rd *syntax.Redirect) {
	undo, err := s.redirect([]*syntax.Redirect{rd})
	defer undo()
	if err != nil {
		s.errorf("%v", err)
		s.status = 1
		return
	}
	s.status = s.external([]string{"cat"}, nil)
}

// paths expands a pattern to the names of existing files, sorted.
func (s *Shell) paths(pattern string) []string {
	prefix := ""
	rest := pattern
	if strings.HasPrefix(rest, "/") {
		prefix = "/"
		rest = strings.TrimLeft(rest, "/")
	}
	found := s.walk(prefix, strings.Split(rest, "/"))
	sort.Strings(found)
	return found
}

func (s *Shell) walk(prefix string, elems []string) []string {
	if len(elems) == 0 {
		return []string{prefix}
	}
	elem, last := elems[0], len(elems) == 1
	if !glob.HasMeta(elem) {
		name := prefix + glob.Unquote(elem)
		if last {
			if _, err := os.Lstat(proc.Join(s.dir, name)); err != nil {
				return nil
			}
			return []string{name}
		}
		return s.walk(name+"/", elems[1:])
	}
	dir := prefix
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(proc.Join(s.dir, dir))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries)+2)
	if strings.HasPrefix(elem, ".") || strings.HasPrefix(elem, `\.`) {
		names = append(names, ".", "..")
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	var out []string
	for _, name := range names {
		if name[0] == '.' && !strings.HasPrefix(glob.Unquote(elem), ".") {
			continue
		}
		if !glob.Match(elem, name) {
			continue
		}
		if last {
			out = append(out, prefix+name)
			continue
		}
		if info, err := os.Stat(proc.Join(s.dir, prefix+name)); err == nil && info.IsDir() {
			out = append(out, s.walk(prefix+name+"/", elems[1:])...)
		}
	}
	return out
}
