package applet

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/glob"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

type grepper struct {
	p        *proc.Proc
	f        *flags
	patterns []*regexp.Regexp
	names    bool
	max      int64
	before   int
	after    int
	matched  bool
	failed   bool
}

func grep(p *proc.Proc) int {
	f, rest, ok := parse(p, "EFGivnclLqshHorwxe:f:m:A:B:C:zRa", map[string]byte{"ignore-case": 'i', "quiet": 'q',
		"invert-match": 'v', "count": 'c', "line-number": 'n', "only-matching": 'o', "extended-regexp": 'E',
		"fixed-strings": 'F', "files-with-matches": 'l', "recursive": 'r', "no-messages": 's', "max-count": 'm',
		"word-regexp": 'w', "line-regexp": 'x', "regexp": 'e', "file": 'f', "include": 'I', "no-filename": 'h'})
	if !ok {
		return 2
	}
	g := &grepper{p: p, f: f, max: -1}
	texts := f.values['e']
	for _, name := range f.values['f'] {
		lines, status := readLines(p, []string{name}, '\n')
		if status != 0 {
			return 2
		}
		texts = append(texts, lines...)
	}
	if len(f.values['e']) == 0 && len(f.values['f']) == 0 {
		if len(rest) == 0 {
			return p.Usage("[-EFivnclLqshHorwx] [-m N] [-A|B|C N] PATTERN|-e PATTERN|-f FILE [FILE]…") + 1
		}
		texts, rest = strings.Split(rest[0], "\n"), rest[1:]
	}
	extended, fixed := p.Name() == "egrep", p.Name() == "fgrep"
	for _, letter := range f.order {
		switch letter {
		case 'E':
			extended, fixed = true, false
		case 'F':
			fixed = true
		case 'G':
			extended, fixed = false, false
		}
	}
	for _, text := range texts {
		var re *regexp.Regexp
		var err error
		if fixed {
			if text = regexp.QuoteMeta(text); f.has('i') {
				text = "(?i)" + text
			}
			re, err = regexp.Compile(text)
		} else {
			re, err = posixRegexp(text, extended, f.has('i'))
		}
		if err == nil && (f.has('x') || f.has('w')) {
			wrapped := `^(?:` + re.String() + `)$`
			if !f.has('x') {
				wrapped = `(?:^|\b)(?:` + re.String() + `)(?:\b|$)`
			}
			if re, err = regexp.Compile(wrapped); err == nil {
				re.Longest()
			}
		}
		if err != nil {
			p.Errorf("bad regex '%s': %v", text, err)
			return 2
		}
		g.patterns = append(g.patterns, re)
	}
	for _, opt := range []struct {
		letter byte
		to     []*int
	}{{'A', []*int{&g.after}}, {'B', []*int{&g.before}}, {'C', []*int{&g.before, &g.after}}} {
		if v, ok := f.value(opt.letter); ok {
			n, ok := number(v)
			if !ok {
				p.Errorf("invalid number '%s'", v)
				return 2
			}
			for _, to := range opt.to {
				*to = int(min(n, 1<<20))
			}
		}
	}
	if v, ok := f.value('m'); ok {
		if g.max, ok = number(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 2
		}
	}
	recursive := f.has('r') || f.has('R')
	if len(rest) == 0 {
		rest = []string{"-"}
		if recursive {
			rest = []string{"."}
		}
	}
	g.names = (len(rest) > 1 || recursive || f.has('H')) && !f.has('h')
	for _, name := range rest {
		if recursive && isDir(p.Path(name)) {
			g.tree(name)
		} else {
			g.file(name)
		}
		if g.matched && f.has('q') {
			return 0
		}
	}
	switch {
	case g.matched && (f.has('q') || !g.failed):
		return 0
	case g.failed:
		return 2
	}
	return 1
}

func (g *grepper) tree(name string) {
	root := g.p.Path(name)
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			g.file(name + strings.TrimPrefix(path, root))
		}
		return nil
	})
}

func (g *grepper) fail(name string, err error) {
	g.failed = true
	if !g.f.has('s') {
		g.p.Errorf("%s: %s", name, proc.Reason(err))
	}
}

func (g *grepper) file(name string) {
	r, err := g.p.Open(name)
	if err != nil {
		g.fail(name, err)
		return
	}
	defer r.Close()
	if file, ok := r.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.IsDir() {
			return
		}
	}
	if name == "-" {
		name = "(standard input)"
	}
	t := newText(g.p, r)
	defer t.Flush()
	f := g.f
	prefix := func(line int, sign string) {
		if g.names {
			t.WriteString(name + sign)
		}
		if f.has('n') {
			t.WriteString(strconv.Itoa(line) + sign)
		}
	}
	var held [][]byte // lines before a match
	count, number, after, printed := int64(0), 0, 0, 0
	for g.max != 0 || g.f.has('c') {
		line, _, err := t.line()
		if err != nil {
			if err != io.EOF {
				g.fail(name, err)
			}
			break
		}
		number++
		hit := g.match(line) != f.has('v')
		if !hit {
			switch {
			case after > 0:
				after--
				prefix(number, "-")
				t.Write(append(line, '\n'))
				printed = number
			case g.before > 0:
				if held = append(held, line); len(held) > g.before {
					held = held[1:]
				}
			}
			continue
		}
		count++
		g.matched = true
		if f.has('q') {
			return
		}
		if f.has('l') || f.has('L') {
			break
		}
		if !f.has('c') {
			if (g.before > 0 || g.after > 0) && printed > 0 && number-len(held) > printed+1 {
				t.WriteString("--\n")
			}
			for i, h := range held {
				prefix(number-len(held)+i, "-")
				t.Write(append(h, '\n'))
			}
			held = nil
			if f.has('o') && !f.has('v') {
				g.only(t, line, func() { prefix(number, ":") })
			} else {
				prefix(number, ":")
				t.Write(append(line, '\n'))
			}
			printed, after = number, g.after
		}
		if count == g.max {
			break
		}
	}
	switch {
	case f.has('c'):
		if g.names {
			t.WriteString(name + ":")
		}
		t.WriteString(strconv.FormatInt(count, 10) + "\n")
	case f.has('l') && count > 0, f.has('L') && count == 0:
		t.WriteString(name + "\n")
	}
	if f.has('L') {
		g.matched = count == 0 || g.matched
	}
}

func (g *grepper) match(line []byte) bool {
	for _, re := range g.patterns {
		if re.Match(line) {
			return true
		}
	}
	return false
}

// only prints the parts of the line that match.
func (g *grepper) only(t *text, line []byte, prefix func()) {
	for pos := 0; pos <= len(line); {
		from, to := -1, -1
		for _, re := range g.patterns {
			for _, m := range re.FindAllIndex(line, -1) { // on the whole line, for the sake of anchors
				if m[0] >= pos && m[1] > m[0] {
					if from < 0 || m[0] < from || m[0] == from && m[1] > to {
						from, to = m[0], m[1]
					}
					break
				}
			}
		}
		if from < 0 {
			return
		}
		prefix()
		t.Write(line[from:to])
		t.WriteByte('\n')
		pos = to
	}
}

// globMatch is for find -name.
func globMatch(pattern, name string, ignoreCase bool) bool {
	if ignoreCase {
		pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	}
	return glob.Match(pattern, name)
}
