package applet

import (
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// sortKey is one -k.
type sortKey struct {
	fromField, fromChar int
	toField, toChar     int // toField 0: to the end of the line
	flags               string
}

func sortLines(p *proc.Proc) int {
	f, rest, ok := parse(p, "nrubfdihMgVsczk:t:o:mT:S:", map[string]byte{"numeric-sort": 'n', "reverse": 'r', "unique": 'u',
		"key": 'k', "field-separator": 't', "output": 'o', "version-sort": 'V', "human-numeric-sort": 'h', "stable": 's'})
	if !ok {
		return 2
	}
	global := ""
	for _, letter := range "nrbfdihMgV" {
		if f.has(byte(letter)) {
			global += string(letter)
		}
	}
	s := &sorter{}
	if v, ok := f.value('t'); ok {
		if s.separator = v; len(v) > 1 {
			p.Errorf("bad -t parameter")
			return 2
		}
	}
	for _, spec := range f.values['k'] {
		key, ok := parseKey(spec)
		if !ok {
			p.Errorf("bad field specification '%s'", spec)
			return 2
		}
		if key.flags == "" {
			key.flags = global
		}
		s.keys = append(s.keys, key)
	}
	if len(s.keys) == 0 {
		s.keys = []sortKey{{fromField: 1, fromChar: 1, flags: global}}
	}
	delimiter := byte('\n')
	if f.has('z') {
		delimiter = 0
	}
	lines, status := readLines(p, rest, delimiter)
	if status != 0 {
		return 2
	}
	if f.has('c') {
		for i := 1; i < len(lines); i++ {
			if c := s.compare(lines[i-1], lines[i]); c > 0 || c == 0 && f.has('u') {
				p.Errorf("Check line %d", i)
				return 1
			}
		}
		return 0
	}
	lastResort := !f.has('s') && !f.has('u')
	sort.SliceStable(lines, func(i, j int) bool {
		c := s.compare(lines[i], lines[j])
		if c == 0 && lastResort {
			c = strings.Compare(lines[i], lines[j])
			if f.has('r') {
				c = -c
			}
		}
		return c < 0
	})
	var b strings.Builder
	for i, line := range lines {
		if f.has('u') && i > 0 && s.compare(lines[i-1], line) == 0 {
			lines[i] = lines[i-1] // later lines are compared with the one that was kept
			continue
		}
		b.WriteString(line)
		b.WriteByte(delimiter)
	}
	out := io.Writer(p.Stdout)
	if name, ok := f.value('o'); ok {
		file, err := p.Create(name, os.O_TRUNC)
		if err != nil {
			p.Errorf("can't open '%s': %s", name, proc.Reason(err))
			return 2
		}
		defer file.Close()
		out = file
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return 2
	}
	return 0
}

func parseKey(spec string) (k sortKey, ok bool) {
	from, to, ranged := strings.Cut(spec, ",")
	k.fromChar = 1
	k.fromField, k.fromChar, k.flags, ok = keyPosition(from, 1)
	if !ok || k.fromField < 1 || k.fromChar < 1 {
		return k, false
	}
	if ranged {
		var flags string
		k.toField, k.toChar, flags, ok = keyPosition(to, 0)
		k.flags += flags
	}
	return k, ok
}

func keyPosition(text string, char int) (field, pos int, flags string, ok bool) {
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == '.') {
		end++
	}
	flags = text[end:]
	head, tail, dotted := strings.Cut(text[:end], ".")
	field, err := strconv.Atoi(head)
	pos = char
	if err == nil && dotted {
		pos, err = strconv.Atoi(tail)
	}
	return field, pos, flags, err == nil && strings.Trim(flags, "nrbfdihMgV") == ""
}

type sorter struct {
	keys      []sortKey
	separator string
}

// field returns where field n (from 1) starts and ends. Without a separator the blanks before a field belong to it.
func (s *sorter) field(line string, n int) (start, end int) {
	if s.separator != "" {
		for ; n > 1; n-- {
			i := strings.Index(line[start:], s.separator)
			if i < 0 {
				return len(line), len(line)
			}
			start += i + 1
		}
		if i := strings.Index(line[start:], s.separator); i >= 0 {
			return start, start + i
		}
		return start, len(line)
	}
	for {
		end = start
		for end < len(line) && (line[end] == ' ' || line[end] == '\t') {
			end++
		}
		for end < len(line) && line[end] != ' ' && line[end] != '\t' {
			end++
		}
		if n == 1 || end == len(line) {
			if n > 1 {
				start = end
			}
			return start, end
		}
		start = end
		n--
	}
}

func (s *sorter) extract(line string, k sortKey) string {
	start, _ := s.field(line, k.fromField)
	if strings.Contains(k.flags, "b") || strings.ContainsAny(k.flags, "nhg") {
		for start < len(line) && (line[start] == ' ' || line[start] == '\t') {
			start++
		}
	}
	start = min(start+k.fromChar-1, len(line))
	end := len(line)
	if k.toField > 0 {
		from, to := s.field(line, k.toField)
		end = to
		if k.toChar > 0 {
			end = min(from+k.toChar, len(line))
		}
	}
	if end < start {
		return ""
	}
	return line[start:end]
}

func (s *sorter) compare(a, b string) int {
	for _, k := range s.keys {
		c := compareKey(s.extract(a, k), s.extract(b, k), k.flags)
		if strings.Contains(k.flags, "r") {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func compareKey(a, b, flags string) int {
	switch {
	case strings.ContainsAny(flags, "ng"):
		return compareFloat(leadingNumber(a), leadingNumber(b))
	case strings.Contains(flags, "h"):
		return compareFloat(leadingNumber(a)*unitOf(a), leadingNumber(b)*unitOf(b))
	case strings.Contains(flags, "M"):
		return monthOf(a) - monthOf(b)
	case strings.Contains(flags, "V"):
		return compareVersion(a, b)
	}
	if strings.Contains(flags, "d") || strings.Contains(flags, "i") {
		keep := func(r rune) rune {
			alnum := r == ' ' || r == '\t' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
			if strings.Contains(flags, "d") && !alnum || r < ' ' {
				return -1
			}
			return r
		}
		a, b = strings.Map(keep, a), strings.Map(keep, b)
	}
	if strings.Contains(flags, "f") {
		a, b = strings.ToUpper(a), strings.ToUpper(b)
	}
	return strings.Compare(a, b)
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func numberEnd(text string) int {
	i := 0
	if i < len(text) && (text[i] == '-' || text[i] == '+') {
		i++
	}
	for i < len(text) && (text[i] >= '0' && text[i] <= '9' || text[i] == '.') {
		i++
	}
	return i
}

func leadingNumber(text string) float64 {
	text = strings.TrimLeft(text, " \t")
	v, _ := strconv.ParseFloat(text[:numberEnd(text)], 64)
	return v
}

func unitOf(text string) float64 {
	text = strings.TrimLeft(text, " \t")
	unit := 1.0
	if i := numberEnd(text); i < len(text) {
		for range strings.IndexByte("KMGTPE", text[i]&^0x20) + 1 {
			unit *= 1024
		}
	}
	return unit
}

func monthOf(text string) int {
	text = strings.ToUpper(strings.TrimLeft(text, " \t"))
	if len(text) < 3 {
		return 0
	}
	i := strings.Index("JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", text[:3])
	if i < 0 || i%3 != 0 {
		return 0
	}
	return i/3 + 1
}

// compareVersion compares runs of digits as numbers and the rest as text.
func compareVersion(a, b string) int {
	digit := func(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	for i, j := 0, 0; ; {
		if i >= len(a) || j >= len(b) {
			return (len(a) - i) - (len(b) - j)
		}
		if digit(a, i) && digit(b, j) {
			si, sj := i, j
			for digit(a, i) {
				i++
			}
			for digit(b, j) {
				j++
			}
			x, y := strings.TrimLeft(a[si:i], "0"), strings.TrimLeft(b[sj:j], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			continue
		}
		if a[i] != b[j] {
			return int(a[i]) - int(b[j])
		}
		i, j = i+1, j+1
	}
}
