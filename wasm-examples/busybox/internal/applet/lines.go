package applet

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

func padLeft(n, width int) string {
	text := strconv.Itoa(n)
	return strings.Repeat(" ", max(0, width-len(text))) + text
}

// countArgs turns the old form -NUM and the +NUM of tail into -n.
func countArgs(p *proc.Proc) *proc.Proc {
	args := append([]string(nil), p.Args...)
	for i := 1; i < len(args); i++ {
		if args[i] == "--" {
			break
		}
		if args[i] == "-n" || args[i] == "-c" || args[i] == "-s" { // what follows is a value
			i++
			continue
		}
		if len(args[i]) > 1 && (args[i][0] == '-' && args[i][1] >= '0' && args[i][1] <= '9') {
			args[i] = "-n" + args[i][1:]
		}
	}
	return p.Command(args)
}

func head(p *proc.Proc) int {
	f, rest, ok := parse(countArgs(p), "n:c:qv", map[string]byte{"lines": 'n', "bytes": 'c'})
	if !ok {
		return 1
	}
	byBytes, count, fromEnd := false, int64(10), false
	for _, letter := range []byte{'n', 'c'} {
		if v, ok := f.value(letter); ok {
			byBytes = letter == 'c'
			v, fromEnd = strings.CutPrefix(v, "-")
			if count, ok = number(v); !ok {
				p.Errorf("invalid number '%s'", v)
				return 1
			}
		}
	}
	titles := (len(rest) > 1 || f.has('v')) && !f.has('q')
	first := true
	return each(p, rest, func(name string, r io.Reader) error {
		if titles {
			title(p, name, first)
		}
		first = false
		if byBytes && !fromEnd {
			_, err := io.CopyN(onlyWriter{p.Stdout}, r, count)
			return err
		}
		if byBytes {
			data, err := io.ReadAll(r)
			p.Stdout.Write(data[:max(0, int64(len(data))-count)])
			return err
		}
		t := newText(p, r)
		defer t.Flush()
		var held [][]byte
		for n := int64(0); fromEnd || n < count; n++ {
			line, ended, err := t.line()
			if err != nil {
				return err
			}
			if ended {
				line = append(line, '\n')
			}
			if fromEnd {
				held = append(held, line)
				if int64(len(held)) <= count {
					continue
				}
				line, held = held[0], held[1:]
			}
			t.Write(line)
		}
		return nil
	})
}

func title(p *proc.Proc, name string, first bool) {
	text := "==> " + name + " <==\n"
	if name == "-" {
		text = "==> standard input <==\n"
	}
	if !first {
		text = "\n" + text
	}
	io.WriteString(p.Stdout, text)
}

func wc(p *proc.Proc) int {
	f, rest, ok := parse(p, "clwmL", nil)
	if !ok {
		return 1
	}
	if len(f.given) == 0 {
		f.given = map[byte]int{'l': 1, 'w': 1, 'c': 1}
	}
	letters := "lwmcL"
	width := 1
	if len(f.given) > 1 || len(rest) > 1 {
		width = 9
	}
	print := func(counts [5]int, name string) {
		var b strings.Builder
		firstColumn := true
		for i := range letters {
			if f.has(letters[i]) {
				if !firstColumn {
					b.WriteByte(' ')
				}
				firstColumn = false
				b.WriteString(padLeft(counts[i], width))
			}
		}
		if name != "" {
			b.WriteString(" " + name)
		}
		io.WriteString(p.Stdout, b.String()+"\n")
	}
	var total [5]int
	files := 0
	status := each(p, rest, func(name string, r io.Reader) error {
		var c [5]int
		inWord, length := false, 0
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			for _, b := range buf[:n] {
				c[3]++
				if utf8.RuneStart(b) {
					c[2]++
				}
				space := b == ' ' || b >= '\t' && b <= '\r'
				if !space && !inWord {
					c[1]++
				}
				inWord = !space
				if b == '\n' {
					c[0]++
					length = 0
				} else if utf8.RuneStart(b) {
					length++
					c[4] = max(c[4], length)
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		if len(rest) == 0 {
			name = ""
		}
		print(c, name)
		files++
		for i := range c {
			total[i] += c[i]
		}
		total[4] = max(total[4]-c[4], c[4])
		return nil
	})
	if len(rest) > 1 {
		print(total, "total")
	}
	return status
}

// readLines reads all lines of the named inputs; a last line without an end counts.
func readLines(p *proc.Proc, names []string, delimiter byte) (lines []string, status int) {
	status = each(p, names, func(_ string, r io.Reader) error {
		data, err := io.ReadAll(r)
		text := string(data)
		for text != "" {
			line, rest, _ := strings.Cut(text, string(rune(delimiter)))
			lines = append(lines, line)
			text = rest
		}
		return err
	})
	return lines, status
}

func tac(p *proc.Proc) int {
	lines, status := readLines(p, p.Args[1:], '\n')
	t := newText(p, strings.NewReader(""))
	for i := len(lines) - 1; i >= 0; i-- {
		t.WriteString(lines[i] + "\n")
	}
	t.Flush()
	return status
}

func rev(p *proc.Proc) int {
	return filter(p, p.Args[1:], func(t *text, line []byte) {
		for len(line) > 0 {
			r, size := utf8.DecodeLastRune(line)
			if r == utf8.RuneError && size == 1 {
				t.WriteByte(line[len(line)-1])
			} else {
				t.WriteRune(r)
			}
			line = line[:len(line)-size]
		}
		t.WriteByte('\n')
	})
}

// filter calls f for each line of the named inputs.
func filter(p *proc.Proc, names []string, f func(t *text, line []byte)) int {
	return each(p, names, func(_ string, r io.Reader) error {
		t := newText(p, r)
		defer t.Flush()
		for {
			line, _, err := t.line()
			if err != nil {
				return err
			}
			f(t, line)
		}
	})
}

func uniq(p *proc.Proc) int {
	f, rest, ok := parse(p, "cduif:s:w:", nil)
	if !ok {
		return 1
	}
	out := p
	if len(rest) > 1 {
		file, err := p.Create(rest[1], os.O_TRUNC)
		if err != nil {
			p.Errorf("can't create '%s': %s", rest[1], proc.Reason(err))
			return 1
		}
		defer file.Close()
		q := *p
		q.Stdout = file
		out, rest = &q, rest[:1]
	}
	limits := map[byte]int64{}
	for _, letter := range []byte("fsw") {
		if v, ok := f.value(letter); ok {
			if limits[letter], ok = number(v); !ok {
				p.Errorf("invalid number '%s'", v)
				return 1
			}
		}
	}
	key := func(line string) string {
		for range limits['f'] {
			line = strings.TrimLeft(line, " \t")
			if i := strings.IndexAny(line, " \t"); i >= 0 {
				line = line[i:]
			} else {
				line = ""
			}
		}
		line = line[min(int64(len(line)), limits['s']):]
		if f.has('w') {
			line = line[:min(int64(len(line)), limits['w'])]
		}
		if f.has('i') {
			line = strings.ToLower(line)
		}
		return line
	}
	var current string
	count := 0
	emit := func(t *text) {
		if count == 0 || f.has('d') && count < 2 || f.has('u') && count > 1 {
			return
		}
		if f.has('c') {
			t.WriteString(padLeft(count, 7) + " ")
		}
		t.WriteString(current + "\n")
	}
	return each(out, rest, func(_ string, r io.Reader) error {
		t := newText(out, r)
		defer t.Flush()
		for {
			line, _, err := t.line()
			if err != nil {
				emit(t)
				return err
			}
			if count > 0 && key(string(line)) == key(current) {
				count++
				continue
			}
			emit(t)
			current, count = string(line), 1
		}
	})
}

func tee(p *proc.Proc) int {
	f, rest, ok := parse(p, "ai", nil)
	if !ok {
		return 1
	}
	mode := os.O_TRUNC
	if f.has('a') {
		mode = os.O_APPEND
	}
	status := 0
	writers := []io.Writer{p.Stdout}
	for _, name := range rest {
		file, err := p.Create(name, mode)
		if err != nil {
			p.Errorf("can't open '%s': %s", name, proc.Reason(err))
			status = 1
			continue
		}
		defer file.Close()
		writers = append(writers, file)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := p.Stdin.Read(buf)
		for _, w := range writers {
			if _, werr := w.Write(buf[:n]); werr != nil {
				status = 1
			}
		}
		if err != nil {
			return status
		}
	}
}
