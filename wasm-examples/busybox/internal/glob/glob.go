// Package glob matches shell patterns.
package glob

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Match reports whether the whole of s matches the pattern: `*`, `?`, `[…]` with ranges, classes and `!` or `^` for
// negation, and backslash to quote. The time taken is at most the product of the two lengths.
func Match(pattern, s string) bool {
	p, i := 0, 0
	starP, starI := -1, 0
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				starP, starI = p, i
				p++
				continue
			}
			if np, ni, ok := one(pattern, p, s, i); ok {
				p, i = np, ni
				continue
			}
		}
		if starP < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(s[starI:])
		starI += size
		p, i = starP+1, starI
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches one pattern element at p with one character at i.
func one(pattern string, p int, s string, i int) (nextP, nextI int, ok bool) {
	c, size := utf8.DecodeRuneInString(s[i:])
	switch pattern[p] {
	case '?':
		return p + 1, i + size, true
	case '[':
		if end, hit, valid := class(pattern, p, c); valid {
			return end, i + size, hit
		}
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	pc, psize := utf8.DecodeRuneInString(pattern[p:])
	if pc == utf8.RuneError && psize == 1 { // not UTF-8: compare bytes
		return p + 1, i + 1, pattern[p] == s[i]
	}
	return p + psize, i + size, pc == c
}

// class matches the bracket expression at p. It is not valid when no "]" closes it: then "[" is an ordinary character.
func class(pattern string, p int, c rune) (end int, hit, valid bool) {
	p++
	negate := false
	if p < len(pattern) && (pattern[p] == '!' || pattern[p] == '^') {
		negate = true
		p++
	}
	for first := true; p < len(pattern); first = false {
		if pattern[p] == ']' && !first {
			return p + 1, hit != negate, true
		}
		if name, next, ok := className(pattern, p); ok {
			hit = hit || inClass(name, c)
			p = next
			continue
		}
		lo, next := classRune(pattern, p)
		hi := lo
		if next+1 < len(pattern) && pattern[next] == '-' && pattern[next+1] != ']' {
			hi, next = classRune(pattern, next+1)
		}
		hit = hit || lo <= c && c <= hi
		p = next
	}
	return 0, false, false
}

func classRune(pattern string, p int) (rune, int) {
	if pattern[p] == '\\' && p+1 < len(pattern) {
		p++
	}
	r, size := utf8.DecodeRuneInString(pattern[p:])
	return r, p + size
}

func className(pattern string, p int) (name string, next int, ok bool) {
	if p+1 >= len(pattern) || pattern[p] != '[' || pattern[p+1] != ':' {
		return "", 0, false
	}
	for i := p + 2; i+1 < len(pattern); i++ {
		if pattern[i] == ':' && pattern[i+1] == ']' {
			return pattern[p+2 : i], i + 2, true
		}
		if pattern[i] < 'a' || pattern[i] > 'z' {
			break
		}
	}
	return "", 0, false
}

func inClass(name string, c rune) bool {
	switch name {
	case "alpha":
		return unicode.IsLetter(c)
	case "digit":
		return c >= '0' && c <= '9'
	case "alnum":
		return unicode.IsLetter(c) || c >= '0' && c <= '9'
	case "upper":
		return unicode.IsUpper(c)
	case "lower":
		return unicode.IsLower(c)
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r'
	case "blank":
		return c == ' ' || c == '\t'
	case "punct":
		return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	case "print":
		return unicode.IsPrint(c)
	case "graph":
		return unicode.IsGraphic(c) && c != ' '
	case "cntrl":
		return c < ' ' || c == 0x7f
	case "xdigit":
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
	}
	return false
}

// HasMeta reports whether the pattern has an unquoted character that is special in a pattern.
func HasMeta(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '*', '?':
			return true
		case '[':
			if strings.IndexByte(pattern[i+1:], ']') >= 0 {
				return true
			}
		}
	}
	return false
}

// Unquote removes the backslashes that quote characters in a pattern.
func Unquote(pattern string) string {
	out := make([]byte, 0, len(pattern))
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
		}
		out = append(out, pattern[i])
	}
	return string(out)
}

// Quote returns a pattern that matches exactly s.
func Quote(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[', ']', '\\', '-', '!', '^':
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(out)
}
