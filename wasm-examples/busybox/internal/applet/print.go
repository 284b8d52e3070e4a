package applet

import (
	"io"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// unescapeTo writes text with its backslash escapes decoded. It reports whether \c stopped the output. zeroOctal: an
// octal escape starts with \0, as for echo and %b.
func unescapeTo(b *strings.Builder, text string, zeroOctal bool) (stopped bool) {
	for i := 0; i < len(text); {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			i++
			continue
		}
		if text[i+1] == 'c' {
			return true
		}
		i += unescapeOne(b, text[i:], zeroOctal)
	}
	return false
}

// unescapeOne decodes the escape at the start of text and returns its length.
func unescapeOne(b *strings.Builder, text string, zeroOctal bool) int {
	digits := func(from, limit, base int) (value, end int) {
		end = from
		for end < len(text) && end < from+limit {
			d := strings.IndexByte("0123456789abcdef", text[end]|0x20)
			if d < 0 || d >= base {
				break
			}
			value = value*base + d
			end++
		}
		return value, end
	}
	switch c := text[1]; c {
	case 'a':
		b.WriteByte('\a')
	case 'b':
		b.WriteByte('\b')
	case 'e':
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
	case '\\':
		b.WriteByte('\\')
	case 'x':
		value, end := digits(2, 2, 16)
		if end == 2 {
			b.WriteString(`\x`)
			return 2
		}
		b.WriteByte(byte(value))
		return end
	case '0', '1', '2', '3', '4', '5', '6', '7':
		from, limit := 1, 3
		if c == '0' && zeroOctal {
			from = 2
		}
		value, end := digits(from, limit, 8)
		b.WriteByte(byte(value))
		return end
	default:
		b.WriteByte('\\')
		b.WriteByte(c)
	}
	return 2
}

func printf(p *proc.Proc) int {
	args := p.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return p.Usage("FORMAT [ARG…]") + 1
	}
	f := &formatter{p: p, format: args[0], args: args[1:]}
	for {
		before := len(f.args)
		f.run()
		if f.stopped || len(f.args) == 0 || len(f.args) == before {
			break
		}
	}
	io.WriteString(p.Stdout, f.out.String())
	return f.status
}

type formatter struct {
	p       *proc.Proc
	format  string
	args    []string
	out     strings.Builder
	status  int
	stopped bool
}

func (f *formatter) next() (string, bool) {
	if len(f.args) == 0 {
		return "", false
	}
	arg := f.args[0]
	f.args = f.args[1:]
	return arg, true
}

func (f *formatter) invalid(format string, args ...any) {
	f.p.Errorf(format, args...)
	f.status = 1
}

func (f *formatter) run() {
	text := f.format
	for i := 0; i < len(text); {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			if text[i+1] == 'c' {
				f.stopped = true
				return
			}
			if text[i+1] == '"' {
				f.out.WriteByte('"')
				i += 2
				continue
			}
			i += unescapeOne(&f.out, text[i:], false)
		case text[i] == '%' && i+1 < len(text) && text[i+1] == '%':
			f.out.WriteByte('%')
			i += 2
		case text[i] == '%':
			n, ok := f.directive(text[i:])
			if !ok {
				f.stopped = true
				return
			}
			i += n
			if f.stopped {
				return
			}
		default:
			f.out.WriteByte(text[i])
			i++
		}
	}
}

// maxFieldWidth bounds what a script can make printf allocate.
const maxFieldWidth = 1 << 20

// directive handles one conversion and returns its length in the format.
func (f *formatter) directive(text string) (int, bool) {
	i := 1
	var left, zero, plus, space, alt bool
	for ; i < len(text); i++ {
		switch text[i] {
		case '-':
			left = true
			continue
		case '0':
			zero = true
			continue
		case '+':
			plus = true
			continue
		case ' ':
			space = true
			continue
		case '#':
			alt = true
			continue
		}
		break
	}
	count := func() int {
		if i < len(text) && text[i] == '*' {
			i++
			arg, _ := f.next()
			return int(min(max(f.integer(arg), -maxFieldWidth), maxFieldWidth))
		}
		n := 0
		for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
			n = min(n*10+int(text[i]-'0'), maxFieldWidth)
		}
		return n
	}
	width, precision := count(), -1
	if width < 0 {
		left, width = true, -width
	}
	if i < len(text) && text[i] == '.' {
		i++
		precision = count()
	}
	for i < len(text) && strings.IndexByte("hlLjzt", text[i]) >= 0 {
		i++
	}
	if i == len(text) {
		f.invalid("%s: invalid format", text)
		return 0, false
	}
	var body, sign string
	arg, given := f.next()
	switch c := text[i]; c {
	case 'b':
		var b strings.Builder
		f.stopped = unescapeTo(&b, arg, true)
		body, zero = truncate(b.String(), precision), false
	case 's':
		body, zero = truncate(arg, precision), false
	case 'c':
		if arg != "" {
			body = arg[:1]
		}
		zero = false
	case 'd', 'i', 'u', 'o', 'x', 'X':
		var n int64
		if given {
			n = f.integer(arg)
		}
		base := map[byte]int{'o': 8, 'x': 16, 'X': 16}[c]
		if c == 'd' || c == 'i' {
			body = strconv.FormatInt(n, 10)
			if rest, negative := strings.CutPrefix(body, "-"); negative {
				sign, body = "-", rest
			} else if plus {
				sign = "+"
			} else if space {
				sign = " "
			}
		} else {
			if base == 0 {
				base = 10
			}
			body = strconv.FormatUint(uint64(n), base)
			if alt && n != 0 {
				sign = map[byte]string{'o': "0", 'x': "0x", 'X': "0X"}[c]
			}
			if c == 'X' {
				body = strings.ToUpper(body)
			}
		}
		if precision >= 0 {
			body = strings.Repeat("0", max(0, precision-len(body))) + body
			zero = false
		}
	case 'e', 'E', 'f', 'F', 'g', 'G':
		v, err := strconv.ParseFloat(strings.TrimSpace(arg), 64)
		if err != nil && given && arg != "" {
			f.invalid("invalid number '%s'", arg)
		}
		if precision < 0 {
			precision = 6
		}
		body = formatFloat(v, c, precision)
		if rest, negative := strings.CutPrefix(body, "-"); negative {
			sign, body = "-", rest
		} else if plus {
			sign = "+"
		}
	default:
		f.invalid("%s: invalid format", text[:i+1])
		return 0, false
	}
	pad := max(0, width-len(sign)-len(body))
	switch {
	case left:
		f.out.WriteString(sign + body + strings.Repeat(" ", pad))
	case zero:
		f.out.WriteString(sign + strings.Repeat("0", pad) + body)
	default:
		f.out.WriteString(strings.Repeat(" ", pad) + sign + body)
	}
	return i + 1, true
}

// formatFloat prints as C does; %g differs from Go's 'g' in its exponent and in trailing zeros.
func formatFloat(v float64, verb byte, precision int) string {
	switch verb {
	case 'f', 'F':
		return strconv.FormatFloat(v, 'f', precision, 64)
	case 'e', 'E':
		return strconv.FormatFloat(v, verb, precision, 64)
	}
	precision = max(precision, 1)
	text := strconv.FormatFloat(v, 'e', precision-1, 64)
	mantissa, exponent, ok := strings.Cut(text, "e")
	if !ok {
		return text // Inf, NaN
	}
	x, _ := strconv.Atoi(exponent)
	trim := func(s string) string {
		if strings.IndexByte(s, '.') >= 0 {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	if x < -4 || x >= precision {
		text = trim(mantissa) + "e" + exponent
	} else {
		text = trim(strconv.FormatFloat(v, 'f', max(0, precision-1-x), 64))
	}
	if verb == 'G' {
		text = strings.ToUpper(text)
	}
	return text
}

func truncate(text string, precision int) string {
	if precision >= 0 && precision < len(text) {
		return text[:precision]
	}
	return text
}

// integer reads a C constant or, after a quote, a character's code.
func (f *formatter) integer(arg string) int64 {
	if arg == "" {
		return 0
	}
	if arg[0] == '\'' || arg[0] == '"' {
		for _, r := range arg[1:] {
			return int64(r)
		}
		return 0
	}
	text := strings.TrimSpace(arg)
	n, err := strconv.ParseInt(text, 0, 64)
	if err == nil && !strings.ContainsAny(text, "_") {
		return n
	}
	if u, uerr := strconv.ParseUint(text, 0, 64); uerr == nil {
		return int64(u)
	}
	f.invalid("invalid number '%s'", arg)
	return 0
}
