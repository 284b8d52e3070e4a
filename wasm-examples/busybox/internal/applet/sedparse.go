package applet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// sedParser reads a script.
type sedParser struct {
	g    *sedProgram
	text string
	pos  int
}

func (s *sedParser) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *sedParser) spaces(set string) {
	for s.pos < len(s.text) && strings.IndexByte(set, s.text[s.pos]) >= 0 {
		s.pos++
	}
}

func (g *sedProgram) compile(script string) error {
	s := &sedParser{g: g, text: script}
	labels := map[string]int{}
	var blocks []int
	for {
		s.spaces(" \t\n;")
		if s.pos >= len(s.text) {
			break
		}
		c, err := s.command()
		if err != nil {
			return err
		}
		at := len(g.commands)
		switch c.name {
		case '#':
			continue
		case '{':
			blocks = append(blocks, at)
		case '}':
			if len(blocks) == 0 {
				return errors.New("unexpected '}'")
			}
			g.commands[blocks[len(blocks)-1]].jump = at
			blocks = blocks[:len(blocks)-1]
		case ':':
			labels[c.text] = at
		}
		g.commands = append(g.commands, c)
	}
	if len(blocks) > 0 {
		return errors.New("unterminated {")
	}
	for _, c := range g.commands {
		if strings.IndexByte("btT", c.name) < 0 {
			continue
		}
		c.jump = len(g.commands)
		if c.text != "" {
			at, ok := labels[c.text]
			if !ok {
				return fmt.Errorf("can't find label for jump to '%s'", c.text)
			}
			c.jump = at
		}
	}
	return nil
}

func (s *sedParser) address() (a sedAddress, ok bool, err error) {
	switch c := s.peek(); {
	case c >= '0' && c <= '9':
		a.line = s.integer()
		a.kind = 'n'
		if a.line == 0 {
			a.kind = '0'
		}
		if s.peek() == '~' {
			s.pos++
			a.kind, a.step = '~', s.integer()
		}
		return a, true, nil
	case c == '$':
		s.pos++
		a.last = true
		return a, true, nil
	case c == '/' || c == '\\':
		if c == '\\' {
			s.pos++
		}
		delimiter := s.peek()
		s.pos++
		text, err := s.delimited(delimiter, true)
		if err != nil {
			return a, false, err
		}
		ignoreCase := false
		if s.peek() == 'I' {
			s.pos++
			ignoreCase = true
		}
		if text == "" {
			a.empty = true
			return a, true, nil
		}
		a.re, err = posixRegexp(text, s.g.extended, ignoreCase)
		return a, true, err
	}
	return a, false, nil
}

func (s *sedParser) integer() int {
	start := s.pos
	for s.peek() >= '0' && s.peek() <= '9' {
		s.pos++
	}
	n, _ := strconv.Atoi(s.text[start:s.pos])
	return n
}

// delimited reads up to an unescaped delimiter. In a regular expression a delimiter in brackets does not end it, and an
// escaped one stands for itself.
func (s *sedParser) delimited(delimiter byte, isRegexp bool) (string, error) {
	var b strings.Builder
	inBracket := false
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '\\' && s.pos < len(s.text):
			next := s.text[s.pos]
			s.pos++
			if next == delimiter && !inBracket {
				if isRegexp && strings.IndexByte("(){}|+?.*[^$", next) >= 0 {
					b.WriteByte('\\')
				}
				b.WriteByte(next)
				continue
			}
			b.WriteByte('\\')
			b.WriteByte(next)
			continue
		case inBracket:
			inBracket = c != ']'
		case isRegexp && c == '[':
			inBracket = true
			b.WriteByte(c)
			if s.peek() == '^' {
				b.WriteByte('^')
				s.pos++
			}
			if s.peek() == ']' {
				b.WriteByte(']')
				s.pos++
			}
			continue
		case c == delimiter:
			return b.String(), nil
		}
		b.WriteByte(c)
	}
	return "", errors.New("unterminated address or command")
}

func (s *sedParser) command() (*sedCommand, error) {
	c := &sedCommand{nth: 1}
	a, ok, err := s.address()
	if err != nil {
		return nil, err
	}
	if ok {
		c.addrs = append(c.addrs, a)
		s.spaces(" \t")
		if s.peek() == ',' {
			s.pos++
			s.spaces(" \t")
			if s.peek() == '+' {
				s.pos++
				c.addrs = append(c.addrs, sedAddress{kind: '+', plus: s.integer()})
			} else if a, ok, err = s.address(); err != nil {
				return nil, err
			} else if !ok {
				return nil, errors.New("unexpected ','")
			} else {
				c.addrs = append(c.addrs, a)
			}
		}
	}
	s.spaces(" \t")
	for s.peek() == '!' {
		c.negate = true
		s.pos++
		s.spaces(" \t")
	}
	c.name = s.peek()
	s.pos++
	switch c.name {
	case '#':
		s.rest()
		return c, nil
	case '{':
		return c, nil
	case ':':
		s.spaces(" \t")
		c.text = strings.TrimSpace(s.word("\n;"))
		return c, nil
	case 'b', 't', 'T':
		s.spaces(" \t")
		c.text = strings.TrimSpace(s.word("\n;}"))
		return c, nil
	case 'a', 'i', 'c':
		c.text = s.insertText()
		return c, nil
	case 'r':
		s.spaces(" \t")
		c.text = s.rest()
		return c, nil
	case 'w':
		s.spaces(" \t")
		c.file, err = s.g.output(s.rest())
		return c, err
	case 'q', 'Q':
		s.spaces(" \t")
		start := s.pos
		s.integer()
		c.text = s.text[start:s.pos]
	case 's':
		return c, s.substitution(c)
	case 'y':
		if err := s.transliteration(c); err != nil {
			return nil, err
		}
	case '}', '=', 'd', 'D', 'g', 'G', 'h', 'H', 'l', 'n', 'N', 'p', 'P', 'x':
	case 0:
		return nil, errors.New("missing command")
	default:
		return nil, fmt.Errorf("unsupported command %c", c.name)
	}
	return c, s.end()
}

// end checks that nothing but a separator follows a command.
func (s *sedParser) end() error {
	s.spaces(" \t")
	switch s.peek() {
	case 0, ';', '\n', '}', '#':
		return nil
	}
	return fmt.Errorf("extra characters after command")
}

func (s *sedParser) word(stops string) string {
	start := s.pos
	for s.pos < len(s.text) && strings.IndexByte(stops, s.text[s.pos]) < 0 {
		s.pos++
	}
	return s.text[start:s.pos]
}

func (s *sedParser) rest() string { return s.word("\n") }

// insertText reads the argument of a, i and c: on the same line, or after a backslash and a newline.
func (s *sedParser) insertText() string {
	s.spaces(" \t")
	if s.peek() == '\\' {
		s.pos++
		save := s.pos
		s.spaces(" \t")
		if s.peek() == '\n' {
			s.pos++
		} else {
			s.pos = save
		}
	}
	var b strings.Builder
	for s.pos < len(s.text) {
		ch := s.text[s.pos]
		s.pos++
		if ch == '\n' {
			break
		}
		if ch == '\\' && s.pos < len(s.text) {
			switch ch = s.text[s.pos]; ch {
			case 't':
				ch = '\t'
			}
			s.pos++
		}
		b.WriteByte(ch)
	}
	return b.String()
}

// output opens a file of w, once for each name.
func (g *sedProgram) output(name string) (io.Writer, error) {
	if w, ok := g.files[name]; ok {
		return w, nil
	}
	w, err := g.p.Create(name, os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("can't open '%s': %s", name, proc.Reason(err))
	}
	g.files[name] = w
	return w, nil
}

func (s *sedParser) substitution(c *sedCommand) error {
	delimiter := s.peek()
	if delimiter == 0 || delimiter == '\n' || delimiter == '\\' {
		return errors.New("bad delimiter")
	}
	s.pos++
	pattern, err := s.delimited(delimiter, true)
	if err != nil {
		return err
	}
	with, err := s.delimited(delimiter, false)
	if err != nil {
		return err
	}
	ignoreCase := false
flags:
	for {
		switch ch := s.peek(); {
		case ch == 'g':
			c.global = true
		case ch == 'p':
			c.print = true
		case ch == 'i' || ch == 'I':
			ignoreCase = true
		case ch >= '1' && ch <= '9':
			c.nth = s.integer()
			continue
		case ch == 'w':
			s.pos++
			s.spaces(" \t")
			if c.file, err = s.g.output(s.rest()); err != nil {
				return err
			}
			break flags
		default:
			break flags
		}
		s.pos++
	}
	if pattern != "" {
		if c.re, err = posixRegexp(pattern, s.g.extended, ignoreCase); err != nil {
			return err
		}
	}
	c.with = replacementParts(with)
	for _, part := range c.with {
		if part.group > 0 && c.re != nil && part.group > c.re.NumSubexp() {
			return fmt.Errorf("invalid reference \\%d on s command's RHS", part.group)
		}
	}
	return s.end()
}

func replacementParts(text string) []sedPart {
	var parts []sedPart
	var b strings.Builder
	add := func(group int) {
		if b.Len() > 0 {
			parts = append(parts, sedPart{text: b.String(), group: -1})
			b.Reset()
		}
		parts = append(parts, sedPart{group: group})
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '&':
			add(0)
		case c == '\\' && i+1 < len(text):
			i++
			switch c = text[i]; {
			case c >= '0' && c <= '9':
				add(int(c - '0'))
			case strings.IndexByte("ULEul", c) >= 0:
				add(-int(c))
			case c == 'n':
				b.WriteByte('\n')
			case c == 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(c)
			}
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > 0 {
		parts = append(parts, sedPart{text: b.String(), group: -1})
	}
	return parts
}

func (s *sedParser) transliteration(c *sedCommand) error {
	delimiter := s.peek()
	s.pos++
	var sets [2][]rune
	for i := range sets {
		text, err := s.delimited(delimiter, false)
		if err != nil {
			return err
		}
		text = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`).Replace(text)
		sets[i] = []rune(text)
	}
	if len(sets[0]) != len(sets[1]) {
		return errors.New("strings for 'y' command are different lengths")
	}
	c.table = map[rune]rune{}
	for i, from := range sets[0] {
		if _, seen := c.table[from]; !seen {
			c.table[from] = sets[1][i]
		}
	}
	return nil
}
