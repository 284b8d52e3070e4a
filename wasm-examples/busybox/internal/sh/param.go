package sh

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/glob"
)

// param expands $name and ${…}.
func (e *expander) param(pe *syntax.ParamExp, quoted bool) {
	s := e.s
	if pe.Param == nil || pe.Excl || pe.Width || pe.IsSet || pe.Index != nil || pe.Names != 0 || pe.Flags != nil ||
		pe.NestedParam != nil || len(pe.Modifiers) > 0 {
		s.fatal(2, "syntax error: bad substitution")
	}
	name := pe.Param.Value
	list := name == "@" || name == "*"
	if list && pe.Exp == nil && !pe.Length && pe.Slice == nil && pe.Repl == nil {
		e.positional(name, quoted)
		return
	}
	var value string
	var set bool
	if list {
		set = len(s.params) > 0
		value = strings.Join(s.params, e.joiner(name, quoted))
	} else {
		value, set = s.lookup(name)
	}
	if !set && !list && s.opts.nounset && !hasDefault(pe) {
		s.fatal(2, "%s: parameter not set", name)
	}
	switch {
	case pe.Length:
		if list {
			e.result(strconv.Itoa(len(s.params)), quoted)
		} else {
			e.result(strconv.Itoa(utf8.RuneCountInString(value)), quoted)
		}
	case pe.Slice != nil:
		e.result(s.slice(value, pe.Slice), quoted)
	case pe.Repl != nil:
		e.result(replacePattern(value, s.pattern(pe.Repl.Orig), s.word(pe.Repl.With), pe.Repl.All), quoted)
	case pe.Exp != nil:
		e.operator(pe, name, value, set, quoted)
	default:
		e.result(value, quoted)
	}
}

// hasDefault reports whether the expansion says what to do about an unset parameter.
func hasDefault(pe *syntax.ParamExp) bool {
	if pe.Exp == nil {
		return false
	}
	switch pe.Exp.Op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull, syntax.DefaultUnset, syntax.DefaultUnsetOrNull,
		syntax.ErrorUnset, syntax.ErrorUnsetOrNull, syntax.AssignUnset, syntax.AssignUnsetOrNull:
		return true
	}
	return false
}

// positional expands $@ and $*.
func (e *expander) positional(name string, quoted bool) {
	params := e.s.params
	switch {
	case quoted && name == "*", !e.split:
		e.literal(strings.Join(params, e.joiner(name, quoted)), quoted)
	case quoted:
		for i, p := range params {
			if i > 0 {
				e.cur.exists = true
				e.flush()
			}
			e.literal(p, true)
			e.cur.exists = true
		}
	default:
		for i, p := range params {
			if i > 0 {
				e.flush()
			}
			e.result(p, false)
		}
	}
}

// joiner is what stands between the parameters of a "$*" that is not split.
func (e *expander) joiner(name string, quoted bool) string {
	if name == "@" {
		return " "
	}
	if e.ifs == "" {
		return ""
	}
	_, size := utf8.DecodeRuneInString(e.ifs)
	return e.ifs[:size]
}

// operand expands the word after an operator in place, so that quotes inside it keep their meaning.
func (e *expander) operand(w *syntax.Word, quoted bool) {
	if w == nil {
		return
	}
	if quoted {
		for _, part := range w.Parts {
			switch p := part.(type) {
			case *syntax.SglQuoted:
				if !p.Dollar { // inside double quotes a single quote is an ordinary character
					e.literal("'"+p.Value+"'", true)
					continue
				}
			}
			e.parts([]syntax.WordPart{part}, true, false)
		}
		return
	}
	for i, part := range w.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			e.part(part, false)
			continue
		}
		text := lit.Value
		if i == 0 {
			text = e.tilde(text, len(w.Parts) == 1)
		}
		// Unlike ordinary text, the unquoted text of an operand is split.
		for {
			j := strings.IndexByte(text, '\\')
			if j < 0 || j+1 >= len(text) {
				e.result(text, false)
				break
			}
			e.result(text[:j], false)
			e.unquotedLit(text[j : j+2])
			text = text[j+2:]
		}
	}
}

func (e *expander) operator(pe *syntax.ParamExp, name, value string, set, quoted bool) {
	s, op, word := e.s, pe.Exp.Op, pe.Exp.Word
	orNull := false
	switch op {
	case syntax.AlternateUnsetOrNull, syntax.DefaultUnsetOrNull, syntax.ErrorUnsetOrNull, syntax.AssignUnsetOrNull:
		orNull = true
	}
	missing := !set || orNull && value == ""
	keep := func() {
		if name == "@" || name == "*" {
			e.positional(name, quoted)
			return
		}
		e.result(value, quoted)
	}
	switch op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull:
		if !missing {
			e.operand(word, quoted)
		}
	case syntax.DefaultUnset, syntax.DefaultUnsetOrNull:
		if missing {
			e.operand(word, quoted)
		} else {
			keep()
		}
	case syntax.AssignUnset, syntax.AssignUnsetOrNull:
		if !missing {
			keep()
			return
		}
		if !syntax.ValidName(name) {
			s.fatal(2, "%s: bad variable name", name)
		}
		inner := s.expander(false)
		inner.operand(word, quoted)
		s.set(name, string(inner.cur.text))
		e.result(string(inner.cur.text), quoted)
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		if !missing {
			keep()
			return
		}
		message := "parameter not set"
		if word != nil && len(word.Parts) > 0 {
			message = s.word(word)
		} else if orNull {
			message = "parameter not set or null"
		}
		s.fatal(2, "%s: %s", name, message)
	case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix:
		pattern := s.pattern(word)
		e.result(trimPattern(value, pattern, op), quoted)
	case syntax.UpperAll:
		e.result(strings.ToUpper(value), quoted)
	case syntax.LowerAll:
		e.result(strings.ToLower(value), quoted)
	default:
		s.fatal(2, "syntax error: bad substitution")
	}
}

// trimPattern removes the shortest or longest prefix or suffix that matches.
func trimPattern(value, pattern string, op syntax.ParExpOperator) string {
	n := len(value)
	for i := 0; i <= n; i++ {
		cut := i // bytes removed, in the order in which this operator prefers them
		if op == syntax.RemLargePrefix || op == syntax.RemLargeSuffix {
			cut = n - i
		}
		if op == syntax.RemSmallPrefix || op == syntax.RemLargePrefix {
			if boundary(value, cut) && glob.Match(pattern, value[:cut]) {
				return value[cut:]
			}
		} else if boundary(value, n-cut) && glob.Match(pattern, value[n-cut:]) {
			return value[:n-cut]
		}
	}
	return value
}

func boundary(s string, i int) bool { return i == len(s) || utf8.RuneStart(s[i]) }

// replacePattern is ${value/pattern/with}: the longest match at the first place where there is one, or at all of them.
// A pattern that starts with # or % is anchored.
func replacePattern(value, pattern, with string, all bool) string {
	if pattern == "" {
		return value
	}
	anchorStart, anchorEnd := false, false
	if !all && len(pattern) > 1 {
		switch pattern[0] {
		case '#':
			anchorStart, pattern = true, pattern[1:]
		case '%':
			anchorEnd, pattern = true, pattern[1:]
		}
	}
	var b strings.Builder
	for i := 0; i < len(value); {
		matched := 0
		if !(anchorStart && i > 0) && boundary(value, i) {
			for end := len(value); end > i; end-- {
				if boundary(value, end) && glob.Match(pattern, value[i:end]) {
					matched = end - i
					break
				}
				if anchorEnd {
					break
				}
			}
		}
		if matched == 0 {
			b.WriteByte(value[i])
			i++
			continue
		}
		b.WriteString(with)
		i += matched
		if !all {
			b.WriteString(value[i:])
			break
		}
	}
	return b.String()
}

// slice is ${value:offset:length}.
func (s *Shell) slice(value string, sl *syntax.Slice) string {
	runes := []rune(value)
	n := int64(len(runes))
	from := int64(0)
	if sl.Offset != nil {
		from = s.arith(sl.Offset)
	}
	if from < 0 {
		from += n
		if from < 0 {
			return ""
		}
	}
	from = min(from, n)
	to := n
	if sl.Length != nil {
		length := s.arith(sl.Length)
		if length < 0 {
			to = max(n+length, from)
		} else {
			to = from + min(length, n-from)
		}
	}
	return string(runes[from:to])
}

// ansiC decodes the escapes of $'…'.
func ansiC(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		digits := func(limit int, base uint64) uint64 {
			var v uint64
			for n := 0; n < limit && i+1 < len(text); n++ {
				d := strings.IndexByte("0123456789abcdef", text[i+1]|0x20)
				if d < 0 || uint64(d) >= base {
					break
				}
				v = v*base + uint64(d)
				i++
			}
			return v
		}
		switch c := text[i]; c {
		case 'a':
			b.WriteByte('\a')
		case 'b':
			b.WriteByte('\b')
		case 'e', 'E':
			b.WriteByte(0x1b)
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'v':
			b.WriteByte('\v')
		case '\\', '\'', '"', '?':
			b.WriteByte(c)
		case 'x':
			b.WriteByte(byte(digits(2, 16)))
		case 'u':
			b.WriteRune(rune(digits(4, 16)))
		case 'U':
			b.WriteRune(rune(digits(8, 16)))
		case '0', '1', '2', '3', '4', '5', '6', '7':
			i--
			b.WriteByte(byte(digits(3, 8)))
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String()
}
