package applet

import (
	"sort"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

func cut(p *proc.Proc) int {
	f, rest, ok := parse(p, "b:c:f:d:sn", nil)
	if !ok {
		return 1
	}
	mode, spec := byte(0), ""
	for _, letter := range []byte("bcf") {
		if v, ok := f.value(letter); ok {
			mode, spec = letter, v
		}
	}
	ranges, ok := parseRanges(spec)
	if !ok {
		p.Errorf("expected a list of bytes, characters, or fields")
		return 1
	}
	delimiter := "\t"
	if v, ok := f.value('d'); ok {
		if len(v) > 1 {
			p.Errorf("the delimiter must be a single character")
			return 1
		}
		delimiter = v
	}
	return filter(p, rest, func(t *text, line []byte) {
		switch mode {
		case 'f':
			fields := strings.Split(string(line), delimiter)
			if len(fields) == 1 {
				if !f.has('s') {
					t.Write(append(line, '\n'))
				}
				return
			}
			t.WriteString(strings.Join(pick(fields, ranges), delimiter))
		case 'c':
			t.WriteString(string(pick([]rune(string(line)), ranges)))
		default:
			t.Write(pick(line, ranges))
		}
		t.WriteByte('\n')
	})
}

type span struct{ from, to int }

func parseRanges(spec string) (out []span, ok bool) {
	for _, part := range strings.Split(spec, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		r := span{1, 1 << 30}
		var err error
		if lo != "" {
			if r.from, err = strconv.Atoi(lo); err != nil || r.from < 1 {
				return nil, false
			}
		}
		if !isRange {
			r.to = r.from
		} else if hi != "" {
			if r.to, err = strconv.Atoi(hi); err != nil || r.to < r.from {
				return nil, false
			}
		}
		if lo == "" && hi == "" {
			return nil, false
		}
		out = append(out, r)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].from < out[j].from })
	return out, true
}

// pick returns the elements in the ranges, each once.
func pick[T any](list []T, ranges []span) []T {
	var out []T
	next := 1
	for _, r := range ranges {
		for i := max(r.from, next); i <= r.to && i <= len(list); i++ {
			out = append(out, list[i-1])
			next = i + 1
		}
	}
	return out
}

// tr translates, squeezes and deletes bytes.
func tr(p *proc.Proc) int {
	f, rest, ok := parse(p, "+cCdst", nil)
	if !ok || len(rest) == 0 || len(rest) > 2 {
		return p.Usage("[-cds] STRING1 [STRING2]")
	}
	set1 := trSet(rest[0])
	var set2 []byte
	if len(rest) == 2 {
		set2 = trSet(rest[1])
	}
	if f.has('c') || f.has('C') {
		var in [256]bool
		for _, c := range set1 {
			in[c] = true
		}
		set1 = nil
		for c := range 256 {
			if !in[c] {
				set1 = append(set1, byte(c))
			}
		}
	}
	if len(rest) == 1 && !f.has('d') && !f.has('s') || f.has('d') && len(rest) == 2 && !f.has('s') {
		return p.Usage("[-cds] STRING1 [STRING2]")
	}
	var table [256]byte
	var del, squeeze [256]bool
	for i := range table {
		table[i] = byte(i)
	}
	for i, c := range set1 {
		if f.has('d') {
			del[c] = true
		} else if len(set2) > 0 {
			table[c] = set2[min(i, len(set2)-1)]
		}
	}
	if f.has('s') {
		set := set2
		if len(rest) == 1 {
			set = set1
		}
		for _, c := range set {
			squeeze[c] = true
		}
	}
	buf := make([]byte, 32<<10)
	last := -1
	for {
		n, err := p.Stdin.Read(buf)
		out := buf[:0]
		for _, c := range buf[:n] {
			if del[c] {
				continue
			}
			c = table[c]
			if squeeze[c] && last == int(c) {
				continue
			}
			last = int(c)
			out = append(out, c)
		}
		if len(out) > 0 {
			p.Stdout.Write(out)
		}
		if err != nil {
			return 0
		}
	}
}

// trSet expands escapes, ranges and classes.
func trSet(spec string) []byte {
	var out []byte
	var b strings.Builder
	for i := 0; i < len(spec); i++ {
		if strings.HasPrefix(spec[i:], "[:") {
			if end := strings.Index(spec[i+2:], ":]"); end >= 0 {
				if class := byteClass(spec[i+2 : i+2+end]); class != nil {
					out = append(out, class...)
					i += end + 3
					continue
				}
			}
		}
		c := spec[i]
		if c == '\\' && i+1 < len(spec) {
			b.Reset()
			size := unescapeOne(&b, spec[i:], false)
			out = append(out, b.String()...)
			i += size - 1
			continue
		}
		if i+2 < len(spec) && spec[i+1] == '-' && spec[i+2] != '\\' {
			for v := int(c); v <= int(spec[i+2]); v++ {
				out = append(out, byte(v))
			}
			i += 2
			continue
		}
		out = append(out, c)
	}
	return out
}

func byteClass(name string) []byte {
	var out []byte
	for i := range 128 {
		c := byte(i)
		lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
		in := false
		switch name {
		case "lower":
			in = lower
		case "upper":
			in = upper
		case "digit":
			in = digit
		case "alpha":
			in = lower || upper
		case "alnum":
			in = lower || upper || digit
		case "space":
			in = c == ' ' || c >= '\t' && c <= '\r'
		case "blank":
			in = c == ' ' || c == '\t'
		case "punct":
			in = c > ' ' && c < 0x7f && !lower && !upper && !digit
		case "cntrl":
			in = c < ' ' || c == 0x7f
		case "print":
			in = c >= ' ' && c < 0x7f
		case "graph":
			in = c > ' ' && c < 0x7f
		case "xdigit":
			in = digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		default:
			return nil
		}
		if in {
			out = append(out, c)
		}
	}
	return out
}
