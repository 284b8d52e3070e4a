package container

import (
	"strings"
	"unicode/utf8"
)

// expand resolves the $(NAME) references of s (ENV-04):
//
//	$$       a single $
//	$(NAME)  what lookup says; unchanged if lookup knows no such name
//	$(…      without a closing parenthesis: unchanged
//	$x       unchanged
//
// NAME is everything up to the first closing parenthesis, so shell text such
// as $(date) and $((i+1)) passes through. A $ at the end stays. Values are not
// expanded again. ok is false if the result would be longer than max bytes.
func expand(s string, lookup func(name string) (string, bool), max int) (result string, ok bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String(), b.Len() <= max
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			end := strings.IndexByte(s, ')')
			if end < 0 {
				b.WriteString("$(")
				s = s[1:]
				break
			}
			if value, known := lookup(s[1:end]); known {
				b.WriteString(value)
			} else {
				b.WriteByte('$')
				b.WriteString(s[:end+1])
			}
			s = s[end+1:]
		default:
			// One whole character goes with the $, so that bytes that are not
			// UTF-8 come out as the replacement character, as upstream has it.
			r, size := utf8.DecodeRuneInString(s)
			b.WriteByte('$')
			b.WriteRune(r)
			s = s[size:]
		}
		if b.Len() > max {
			return "", false
		}
	}
}
