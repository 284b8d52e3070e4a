package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// finding is a mistake in the text of a document, found without decoding it.
type finding struct {
	line          int // of the document, from 1; 0: unknown
	message, hint string
}

// lookalikes are characters that look like one YAML gives a meaning to.
var lookalikes = map[rune]struct{ name, ascii string }{
	'：': {"full-width colon", ":"}, '﹕': {"small colon", ":"}, '∶': {"ratio", ":"}, 'ː': {"modifier colon", ":"},
	'－': {"full-width hyphen", "-"}, '–': {"en dash", "-"}, '—': {"em dash", "-"}, '−': {"minus sign", "-"}, '‐': {"hyphen", "-"}, '‑': {"non-breaking hyphen", "-"},
	'“': {"left double quotation mark", `"`}, '”': {"right double quotation mark", `"`}, '„': {"low double quotation mark", `"`}, '＂': {"full-width quotation mark", `"`},
	'‘': {"left single quotation mark", "'"}, '’': {"right single quotation mark", "'"}, '＇': {"full-width apostrophe", "'"},
	'，': {"full-width comma", ","}, '、': {"ideographic comma", ","}, '［': {"full-width left bracket", "["}, '］': {"full-width right bracket", "]"},
	'｛': {"full-width left brace", "{"}, '｝': {"full-width right brace", "}"}, '＃': {"full-width number sign", "#"}, '｜': {"full-width vertical line", "|"},
	'\u3000': {"ideographic space", " "}, '\u00a0': {"no-break space", " "}, '\u2003': {"em space", " "}, '\u2002': {"en space", " "}, '\u2009': {"thin space", " "}, '\u202f': {"narrow no-break space", " "},
	'\u200b': {"zero-width space", ""}, '\u200c': {"zero-width non-joiner", ""}, '\u200d': {"zero-width joiner", ""}, '\ufeff': {"byte order mark", ""},
}

// lookalike describes the first look-alike in s, "" if there is none.
func lookalike(s string) string {
	for _, r := range s {
		if l, ok := lookalikes[r]; ok {
			if l.ascii == "" {
				return fmt.Sprintf("%s U+%04X", l.name, r)
			}
			return fmt.Sprintf("%s U+%04X instead of %q", l.name, r, l.ascii)
		}
	}
	return ""
}

const elisionHint = "`...` ends a YAML document; this looks like a shortened snippet: put in what was left out, such as apiVersion and metadata.name"

// elisions blanks out lines that hold nothing but "..." at the left margin
// where more follows: the parser would silently ignore all of that.
func elisions(doc string) (string, []finding) {
	if !strings.Contains(doc, "...") {
		return doc, nil
	}
	lines := strings.Split(doc, "\n")
	var found []finding
	started := false
	for i, l := range lines {
		if strings.TrimRight(l, " \t\r") != "..." {
			started = started || content(l)
			continue
		}
		rest := false
		for _, later := range lines[i+1:] {
			if content(later) && strings.TrimSpace(later) != "..." {
				rest = true
				break
			}
		}
		if rest || !started {
			if len(found) == 0 {
				found = append(found, finding{i + 1, "`...` placeholder", elisionHint})
			}
		}
		lines[i] = ""
	}
	return strings.Join(lines, "\n"), found
}

// content reports whether a line is more than space, comment or document mark.
func content(l string) bool {
	l = strings.TrimSpace(l)
	return l != "" && l[0] != '#' && l != "---"
}

var lineRE = regexp.MustCompile(`line (\d+): `)

// diagnose explains why a document does not parse. Where it knows what was
// meant it mends the text and says so with whole = true.
func diagnose(doc, cause string) (mended string, found []finding, whole bool) {
	lines := strings.Split(doc, "\n")
	at := errorLine(cause, len(lines))
	if f := oneLine(lines, cause); f != nil {
		return doc, []finding{*f}, false
	}
	if f := template(lines, cause); f != nil {
		return doc, []finding{*f}, false
	}
	scalars := blockScalars(lines)
	elided := false
	for i, l := range lines {
		if scalars[i] || len(found) >= MaxProblems {
			continue
		}
		trimmed := strings.TrimSpace(l)
		if (trimmed == "..." || trimmed == "- ...") && l != "" {
			if !elided {
				found = append(found, finding{i + 1, "`...` placeholder", elisionHint})
			}
			elided = true
			lines[i] = ""
			continue
		}
		if indent := l[:len(l)-len(strings.TrimLeft(l, " \t"))]; strings.Contains(indent, "\t") && trimmed != "" {
			found = append(found, finding{i + 1, "tab in the indentation", "YAML is indented with spaces only"})
			lines[i] = strings.ReplaceAll(indent, "\t", "  ") + l[len(indent):]
			continue
		}
		if f, fixed := misspelt(l, i+1); f != nil {
			found = append(found, *f)
			lines[i] = fixed
		}
	}
	if len(found) > 0 {
		mended = strings.Join(lines, "\n")
		_, _, err := parseYAML([]byte(mended))
		if err == nil {
			return mended, found, true
		}
		cause = err.Error()
		at = errorLine(cause, len(lines))
	}
	if f := lostIndent(lines, at, cause); f != nil {
		return doc, append(found, *f), false
	}
	// The line is part of the place, where it counts from the top of the file.
	f := finding{line: at, message: lineRE.ReplaceAllString(cause, "")}
	switch {
	case strings.Contains(cause, "could not find expected ':'"):
		f.hint = "a line here is neither `key: value`, nor `- item`, nor indented as part of the value above it"
	case strings.Contains(cause, "mapping values are not allowed"):
		f.hint = "this line is indented deeper than the key it continues, or a value with `: ` in it needs quotes"
	case strings.Contains(cause, "did not find expected key"), strings.Contains(cause, "did not find expected '-' indicator"):
		f.hint = "the indentation here matches no key or item above"
	case strings.Contains(cause, "cannot start any token"):
		f.hint = "quote values that begin with @, ` or %"
	}
	return doc, append(found, f), false
}

// errorLine is the line that a YAML error is about, 0 if it names none.
func errorLine(cause string, lines int) int {
	m := lineRE.FindStringSubmatch(cause)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	if strings.Contains(cause, "did not find expected") {
		// The parser, other than its scanner, counts lines from 0.
		n++
	}
	return min(n, lines)
}

// misspelt finds a look-alike character where YAML needs the ASCII one: as
// colon or dash of a key or item, in the indentation, or as a quote.
func misspelt(l string, line int) (*finding, string) {
	code := l
	if i := strings.Index(l, " #"); i >= 0 {
		code = l[:i]
	}
	if strings.HasPrefix(strings.TrimSpace(code), "#") {
		return nil, l
	}
	for i, r := range code {
		mark, ok := lookalikes[r]
		if !ok {
			continue
		}
		before, after := code[:i], code[i+utf8.RuneLen(r):]
		var where string
		switch mark.ascii {
		case ":":
			key := strings.TrimLeft(before, " -")
			if key == "" || strings.ContainsAny(key, " :\"'") {
				continue
			}
			where = fmt.Sprintf("after `%s`", key)
		case "-":
			if strings.TrimSpace(before) != "" {
				continue
			}
			where = "at the start of an item"
		case " ", "":
			if strings.TrimLeft(before, " \t-") != "" {
				continue
			}
			where = "in the indentation"
		default:
			if strings.ContainsAny(before, `"'`) {
				continue
			}
			where = "in `" + strings.TrimSpace(code) + "`"
		}
		fixed := before + mark.ascii + after + l[len(code):]
		if mark.ascii == ":" && after != "" && !strings.HasPrefix(after, " ") {
			fixed = before + ": " + after + l[len(code):]
		}
		hint := fmt.Sprintf("write %q", mark.ascii)
		if mark.ascii == "" {
			hint = "remove it"
		}
		return &finding{line, fmt.Sprintf("%s U+%04X %s", mark.name, r, where), hint}, fixed
	}
	return nil, l
}

var keyRE = regexp.MustCompile(`[A-Za-z][A-Za-z0-9_./-]*: `)

// oneLine recognises a manifest whose line breaks were lost.
func oneLine(lines []string, cause string) *finding {
	if !strings.Contains(cause, "mapping values are not allowed") {
		return nil
	}
	for i, l := range lines {
		colons := keyRE.FindAllStringIndex(l, 3)
		if len(colons) < 3 || !strings.Contains(l, "kind: ") {
			continue
		}
		col := utf8.RuneCountInString(l[:colons[1][1]-1])
		f := &finding{line: i + 1,
			message: fmt.Sprintf("mapping values are not allowed in this context: second ':' at column %d", col),
			hint:    "the line breaks were lost, the whole manifest is on one line: put each `key:` on a line of its own, indented below its parent"}
		if c := strings.Index(l, " #"); c >= 0 {
			f.hint += fmt.Sprintf("; everything after the ` #` at column %d is a comment", utf8.RuneCountInString(l[:c])+2)
		}
		return f
	}
	return nil
}

// template recognises a manifest that a template engine must render first.
func template(lines []string, _ string) *finding {
	for i, l := range lines {
		open := strings.Index(l, "{{")
		if open >= 0 && strings.Contains(l[open:], "}}") && !strings.HasPrefix(strings.TrimSpace(l), "#") {
			return &finding{i + 1, fmt.Sprintf("template expression `%s`", strings.TrimSpace(l)), "this is a template, not a manifest: render it first, as with `helm template`"}
		}
	}
	return nil
}

// blockScalars marks the lines that are text of a literal or folded scalar.
func blockScalars(lines []string) []bool {
	in := make([]bool, len(lines))
	parent := -1 // indent of the line that opened the scalar; -1: none open
	for i, l := range lines {
		trimmed := strings.TrimLeft(l, " ")
		indent := len(l) - len(trimmed)
		if parent >= 0 {
			if trimmed == "" || indent > parent {
				in[i] = true
				continue
			}
			parent = -1
		}
		if blockRE.MatchString(l) {
			parent = indent
		}
	}
	return in
}

var blockRE = regexp.MustCompile(`(^|[:\s-]\s*)[|>][+-]?\d?[+-]?\s*(#.*)?$`)

// lostIndent recognises text that moved to the left margin, as happens where
// a listing is copied across a page break.
func lostIndent(lines []string, at int, cause string) *finding {
	if !strings.Contains(cause, "could not find expected ':'") && !strings.Contains(cause, "did not find expected") {
		return nil
	}
	open, openIndent := -1, 0
	for i, l := range lines {
		trimmed := strings.TrimLeft(l, " ")
		if trimmed == "" {
			continue
		}
		indent := len(l) - len(trimmed)
		if open >= 0 && indent <= openIndent {
			bare := !keyLine(trimmed) && trimmed[0] != '-' && trimmed[0] != '#'
			if bare && i+1 <= at+1 {
				return &finding{i + 1,
					fmt.Sprintf("`%s` is outside the block of text that begins on line %d", strings.TrimSpace(l), open+1),
					fmt.Sprintf("the indentation was lost, perhaps at a page break: indent line %d and what follows it by more than %d spaces, as it belongs to the text", i+1, openIndent)}
			}
			open = -1
		}
		if blockRE.MatchString(l) {
			open, openIndent = i, indent
			// An item's key is indented by its dash as well.
			if trimmed[0] == '-' {
				openIndent = indent
			}
		}
	}
	return nil
}

// keyLine reports whether a trimmed line is `key:` or `key: value`.
func keyLine(l string) bool {
	i := strings.IndexByte(l, ':')
	if i <= 0 || (i+1 < len(l) && l[i+1] != ' ') {
		return false
	}
	return strings.IndexFunc(l[:i], func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._/-", r)
	}) < 0
}
