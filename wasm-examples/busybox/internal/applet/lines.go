package applet

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
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

// followInterval is how often tail -f looks: WASI preview 1 has nothing that would tell of a change.
const followInterval = 250 * time.Millisecond

type tailOptions struct {
	count     int64
	byBytes   bool
	fromStart bool // count from the start of the file, 1 being the first
}

func tail(p *proc.Proc) int {
	args := append([]string(nil), p.Args...)
	if len(args) > 1 && len(args[1]) > 1 && args[1][0] == '+' {
		args[1] = "-n" + args[1]
	}
	f, rest, ok := parse(countArgs(p.Command(args)), "n:c:fFqvs:", map[string]byte{"lines": 'n', "bytes": 'c', "follow": 'f', "retry": 'F'})
	if !ok {
		return 1
	}
	opts := tailOptions{count: 10}
	for _, letter := range f.order {
		if letter != 'n' && letter != 'c' {
			continue
		}
		v, _ := f.value(letter)
		opts.byBytes = letter == 'c'
		v, opts.fromStart = strings.CutPrefix(v, "+")
		v = strings.TrimPrefix(v, "-")
		if opts.count, ok = number(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
	}
	interval := followInterval
	if v, ok := f.value('s'); ok {
		if interval, ok = duration(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
		interval = max(interval, 10*time.Millisecond)
	}
	if len(rest) == 0 {
		rest = []string{"-"}
	}
	t := &tailer{p: p, opts: opts, titles: (len(rest) > 1 || f.has('v')) && !f.has('q')}
	defer t.close()
	status := 0
	for _, name := range rest {
		file := &tailed{name: name}
		if !t.open(file) {
			status = 1
			if !f.has('F') {
				continue
			}
		} else if err := t.start(file); err != nil {
			p.Errorf("%s: %s", name, proc.Reason(err))
			status = 1
			continue
		}
		t.files = append(t.files, file)
	}
	if len(t.files) == 0 {
		p.Errorf("no files")
		return status
	}
	if !f.has('f') && !f.has('F') {
		return status
	}
	for pause(p, interval) {
		for _, file := range t.files {
			t.poll(file, f.has('F'))
		}
	}
	return 128 + 15
}

type tailed struct {
	name   string
	file   *os.File // nil for standard input, and while the file does not exist
	r      io.Reader
	offset int64
}

type tailer struct {
	p      *proc.Proc
	opts   tailOptions
	files  []*tailed
	titles bool
	last   *tailed // whose output was printed last
	shown  bool
}

func (t *tailer) close() {
	for _, f := range t.files {
		if f.file != nil {
			f.file.Close()
		}
	}
}

func (t *tailer) open(f *tailed) bool {
	if f.name == "-" {
		f.r = t.p.Stdin
		return true
	}
	file, err := os.Open(t.p.Path(f.name))
	if err != nil {
		t.p.Errorf("can't open '%s': %s", f.name, proc.Reason(err))
		return false
	}
	f.file, f.r, f.offset = file, file, 0
	return true
}

// title says whose output follows, when it changes.
func (t *tailer) title(f *tailed) {
	if t.titles && t.last != f {
		title(t.p, f.name, !t.shown)
		t.shown = true
	}
	t.last = f
}

// start prints the part of the file that the options ask for and leaves the offset at its end.
func (t *tailer) start(f *tailed) error {
	t.title(f)
	r := bufio.NewReaderSize(f.r, 32<<10)
	var err error
	switch {
	case t.opts.fromStart && t.opts.byBytes:
		_, err = io.CopyN(io.Discard, r, max(0, t.opts.count-1))
	case t.opts.fromStart:
		for n := int64(1); n < t.opts.count && err == nil; n++ {
			err = skipLine(r)
		}
	default:
		return t.startFromEnd(f, r)
	}
	if err == nil {
		_, err = io.Copy(onlyWriter{t.p.Stdout}, r)
	}
	if err == io.EOF {
		err = nil
	}
	f.remember()
	return err
}

func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if err != bufio.ErrBufferFull {
			return err
		}
	}
}

// tailWindow bounds what is kept of a file that is read through; a seekable file is read backwards instead.
const tailWindow = 64 << 10

func (t *tailer) startFromEnd(f *tailed, r io.Reader) error {
	var kept []byte
	if f.file != nil {
		info, err := f.file.Stat()
		if err == nil && info.Mode().IsRegular() {
			for window := int64(tailWindow); ; window *= 4 {
				from := max(0, info.Size()-window)
				kept = make([]byte, info.Size()-from)
				n, err := f.file.ReadAt(kept, from)
				if err != nil && err != io.EOF {
					return err
				}
				kept = kept[:n]
				if start, enough := t.lastPart(kept); enough || from == 0 {
					t.p.Stdout.Write(kept[start:])
					f.offset = from + int64(n)
					return nil
				}
			}
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		if len(kept) > tailWindow {
			if start, enough := t.lastPart(kept); enough && start > 0 {
				kept = append(kept[:0], kept[start:]...)
			}
		}
		if err != nil {
			start, _ := t.lastPart(kept)
			t.p.Stdout.Write(kept[start:])
			f.remember()
			if err == io.EOF {
				err = nil
			}
			return err
		}
	}
}

// lastPart finds where the wanted end of data starts, and whether data was certainly long enough to tell.
func (t *tailer) lastPart(data []byte) (start int, enough bool) {
	if t.opts.byBytes {
		start = len(data) - int(min(t.opts.count, int64(len(data))))
		return start, start > 0
	}
	if t.opts.count == 0 {
		return len(data), true
	}
	end := len(data)
	if end > 0 && data[end-1] == '\n' {
		end--
	}
	for n := int64(0); ; n++ {
		i := bytes.LastIndexByte(data[:end], '\n')
		if i < 0 {
			return 0, false
		}
		if n+1 == t.opts.count {
			return i + 1, true
		}
		end = i
	}
}

func (f *tailed) remember() {
	if f.file != nil {
		f.offset, _ = f.file.Seek(0, io.SeekCurrent)
	}
}

// poll prints what a file has grown by. byName: the name counts, so that a file that was rotated away is replaced.
func (t *tailer) poll(f *tailed, byName bool) {
	if f.name == "-" {
		return
	}
	if byName {
		byPath, err := os.Stat(t.p.Path(f.name))
		if f.file == nil {
			if errors.Is(err, fs.ErrNotExist) || !t.open(f) {
				return
			}
			t.p.Errorf("%s has appeared; following end of new file", f.name)
		} else if byOpen, ferr := f.file.Stat(); err == nil && ferr == nil && !os.SameFile(byPath, byOpen) {
			t.copy(f)
			f.file.Close()
			f.file = nil
			if !t.open(f) {
				return
			}
			t.p.Errorf("%s has been replaced; following end of new file", f.name)
		}
	}
	if info, err := f.file.Stat(); err == nil && info.Size() < f.offset {
		t.p.Errorf("%s: file truncated", f.name)
		f.offset = 0
	}
	t.copy(f)
}

func (t *tailer) copy(f *tailed) {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.file.ReadAt(buf, f.offset)
		if n > 0 {
			t.title(f)
			t.p.Stdout.Write(buf[:n])
			f.offset += int64(n)
		}
		if err != nil || n == 0 {
			return
		}
	}
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
