package applet

import (
	"errors"
	"regexp"
	"strings"
)

var (
	errBackReference     = errors.New("back-references in patterns are not supported")
	errUnmatchedParen    = errors.New("unmatched ( or \\(")
	errUnmatchedBracket  = errors.New("unmatched [, [^, [:, [., or [=")
	errTrailingBackslash = errors.New("trailing backslash")
	errInvalidRegexp     = errors.New("invalid regular expression")
)

// posixRegexp compiles a POSIX regular expression, basic or extended, with the GNU escapes that scripts use. Matching
// is leftmost-longest and takes linear time; back-references are refused, since nothing linear can do them.
func posixRegexp(pattern string, extended, ignoreCase bool) (*regexp.Regexp, error) {
	var b strings.Builder
	if ignoreCase {
		b.WriteString("(?i)")
	}
	b.WriteString("(?s:")
	start := true // where an expression begins, "*" stands for itself and "^" is an anchor
	depth := 0
	for i := 0; i < len(pattern); {
		c := pattern[i]
		if c == '[' {
			text, size, err := bracket(pattern[i:])
			if err != nil {
				return nil, err
			}
			b.WriteString(text)
			i += size
			start = false
			continue
		}
		escaped := c == '\\' && i+1 < len(pattern)
		if escaped {
			i++
			c = pattern[i]
		}
		i++
		// In basic expressions these are operators with a backslash, in extended ones without.
		if strings.IndexByte("(){}|+?", c) >= 0 && escaped != extended {
			switch {
			case c == '(':
				depth++
				b.WriteByte('(')
				start = true
				continue
			case c == ')':
				if depth == 0 {
					if extended {
						b.WriteString(`\)`)
						start = false
						continue
					}
					return nil, errUnmatchedParen
				}
				depth--
				b.WriteByte(')')
			case c == '|':
				b.WriteByte('|')
				start = true
				continue
			case c == '{':
				end := strings.IndexByte(pattern[i:], '}')
				if end < 0 || start {
					b.WriteString(`\{`)
					start = false
					continue
				}
				bounds := strings.TrimSuffix(pattern[i:i+end], `\`)
				if strings.HasPrefix(bounds, ",") {
					bounds = "0" + bounds
				}
				b.WriteString("{" + bounds + "}")
				i += end + 1
			case c == '}' || start:
				b.WriteString(`\` + string(c))
			default:
				b.WriteByte(c)
			}
			start = false
			continue
		}
		if escaped {
			switch {
			case c >= '1' && c <= '9':
				return nil, errBackReference
			case c == '<' || c == '>':
				b.WriteString(`\b`)
			case strings.IndexByte("wWsSbB", c) >= 0:
				b.WriteString(`\` + string(c))
			case c == 'n':
				b.WriteByte('\n')
			case c == 't':
				b.WriteByte('\t')
			case c == '`':
				b.WriteString(`\A`)
			case c == '\'':
				b.WriteString(`\z`)
			default:
				b.WriteString(regexp.QuoteMeta(string(c)))
			}
			start = false
			continue
		}
		switch c {
		case '*':
			if start {
				b.WriteString(`\*`)
			} else if !strings.HasSuffix(b.String(), "*") || strings.HasSuffix(b.String(), `\*`) {
				b.WriteByte('*')
			}
		case '^':
			if start || extended {
				b.WriteByte('^')
				continue
			}
			b.WriteString(`\^`)
		case '$':
			rest := pattern[i:]
			if extended || rest == "" || strings.HasPrefix(rest, `\)`) || strings.HasPrefix(rest, `\|`) {
				b.WriteByte('$')
			} else {
				b.WriteString(`\$`)
			}
		case '.':
			b.WriteByte('.')
		case '\\': // the last character
			return nil, errTrailingBackslash
		default:
			if c >= 0x80 {
				b.WriteByte(c)
			} else {
				b.WriteString(regexp.QuoteMeta(string(c)))
			}
		}
		start = false
	}
	if depth > 0 {
		return nil, errUnmatchedParen
	}
	b.WriteByte(')')
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, errInvalidRegexp
	}
	re.Longest()
	return re, nil
}

// bracket translates the bracket expression at the start of text, in which a backslash is an ordinary character.
func bracket(text string) (out string, size int, err error) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(text) && text[i] == '^' {
		b.WriteByte('^')
		i++
	}
	for first := true; i < len(text); first = false {
		c := text[i]
		switch {
		case c == ']' && !first:
			b.WriteByte(']')
			return b.String(), i + 1, nil
		case c == '[' && i+1 < len(text) && strings.IndexByte(":.=", text[i+1]) >= 0:
			end := strings.Index(text[i+2:], string(text[i+1])+"]")
			if end < 0 {
				return "", 0, errUnmatchedBracket
			}
			if text[i+1] == ':' {
				b.WriteString(text[i : i+2+end+2])
			} else {
				b.WriteString(regexp.QuoteMeta(text[i+2 : i+2+end]))
			}
			i += end + 4
			continue
		case c == '\\' && i+1 < len(text) && (text[i+1] == 'n' || text[i+1] == 't'):
			b.WriteString(`\` + string(text[i+1]))
			i += 2
			continue
		case strings.IndexByte(`[]\^&~`, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
		i++
	}
	return "", 0, errUnmatchedBracket
}
