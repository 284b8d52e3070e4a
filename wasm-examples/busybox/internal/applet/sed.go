package applet

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

type sedAddress struct {
	line  int            // >0: a line number
	last  bool           // $
	re    *regexp.Regexp // /re/; nil with empty set: the last one used
	empty bool
	step  int // first~step
	plus  int // addr1,+N
	kind  byte
}

type sedCommand struct {
	addrs  []sedAddress
	negate bool
	name   byte
	text   string // a, i, c; label; file name; y and l arguments
	re     *regexp.Regexp
	with   []sedPart
	global bool
	print  bool
	nth    int
	file   io.Writer
	table  map[rune]rune
	jump   int // b, t, T, {: index of the next command

	active bool // inside an addr1,addr2 range
	until  int  // line that ends the range; 0: decided by addr2
}

// sedPart is literal text or, when group >= 0, what a group matched.
type sedPart struct {
	text  string
	group int
}

type sedProgram struct {
	p        *proc.Proc
	commands []*sedCommand
	quiet    bool
	extended bool
	files    map[string]io.WriteCloser
	lastRe   *regexp.Regexp
}

func sed(p *proc.Proc) int {
	args := append([]string(nil), p.Args...)
	inPlace, suffix := false, ""
	for i := 1; i < len(args); i++ { // the suffix of -i is optional and joined to it
		if args[i] == "--" || args[i] == "-e" || args[i] == "-f" {
			i++
			continue
		}
		if rest, ok := strings.CutPrefix(args[i], "-i"); ok {
			inPlace, suffix = true, rest
			args = append(args[:i], args[i+1:]...)
			i--
		}
	}
	q := p.Command(args)
	f, rest, ok := parse(q, "nEre:f:sz", map[string]byte{"quiet": 'n', "silent": 'n', "regexp-extended": 'E',
		"expression": 'e', "file": 'f'})
	if !ok {
		return 1
	}
	var script []string
	e, g := 0, 0
	for _, letter := range f.order {
		switch letter {
		case 'e':
			script = append(script, f.values['e'][e])
			e++
		case 'f':
			lines, status := readLines(p, []string{f.values['f'][g]}, '\n')
			if status != 0 {
				return 1
			}
			script = append(script, strings.Join(lines, "\n"))
			g++
		}
	}
	if len(script) == 0 {
		if len(rest) == 0 {
			return p.Usage("[-i[SFX]] [-nrE] [-f FILE]… [-e CMD]… [FILE]…")
		}
		script, rest = rest[:1], rest[1:]
	}
	prog := &sedProgram{p: p, quiet: f.has('n'), extended: f.has('E') || f.has('r'), files: map[string]io.WriteCloser{}}
	defer func() {
		for _, file := range prog.files {
			file.Close()
		}
	}()
	if err := prog.compile(strings.Join(script, "\n")); err != nil {
		p.Errorf("%v", err)
		return 1
	}
	if !inPlace {
		r := &sedRun{prog: prog, names: rest}
		if len(rest) == 0 {
			r.names = []string{"-"}
		}
		return r.run(p.Stdout)
	}
	status := 0
	for _, name := range rest {
		if s := prog.editFile(name, suffix); s != 0 {
			status = s
		}
	}
	return status
}

// editFile writes the result beside the file and renames it over the original.
func (g *sedProgram) editFile(name, suffix string) int {
	full := g.p.Path(name)
	info, err := os.Stat(full)
	if err != nil {
		g.p.Errorf("%s: %s", name, proc.Reason(err))
		return 1
	}
	temp := full + ".sedtmp"
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, createMode(info))
	if err != nil {
		g.p.Errorf("can't create '%s': %s", temp, proc.Reason(err))
		return 1
	}
	for _, c := range g.commands {
		c.active = false
	}
	r := &sedRun{prog: g, names: []string{name}}
	status := r.run(out)
	err = out.Close()
	if err == nil && suffix != "" {
		err = os.Rename(full, full+suffix)
	}
	if err == nil {
		err = os.Rename(temp, full)
	}
	if err != nil {
		g.p.Errorf("%s: %s", name, proc.Reason(err))
		os.Remove(temp)
		return 1
	}
	return status
}

// sedRun is one pass over the input.
type sedRun struct {
	prog   *sedProgram
	names  []string
	out    *text
	in     io.ReadCloser
	t      *text
	number int
	space  string
	ended  bool // the line had a newline
	hold   string
	next   string // one line of look-ahead, for $
	nextOK bool
	nextEn bool
	queue  []string // output of a and r at the end of the cycle
	status int
	lost   bool // the last line written lacked its newline
}

func (r *sedRun) run(w io.Writer) int {
	q := *r.prog.p
	q.Stdout = w
	r.out = newText(&q, strings.NewReader(""))
	defer r.out.Flush()
	defer func() {
		if r.in != nil {
			r.in.Close()
		}
	}()
	r.fetch()
	for r.advance() {
		if quit := r.cycle(); quit {
			break
		}
	}
	return r.status
}

// fetch reads the line after the current one.
func (r *sedRun) fetch() {
	r.nextOK = false
	for {
		if r.in == nil {
			if len(r.names) == 0 {
				return
			}
			name := r.names[0]
			r.names = r.names[1:]
			in, err := r.prog.p.Open(name)
			if err != nil {
				r.prog.p.Errorf("%s: %s", name, proc.Reason(err))
				r.status = 1
				continue
			}
			r.in = in
			r.t = newText(r.prog.p, in)
		}
		if r.t.r.Buffered() == 0 {
			r.out.Flush()
		}
		line, ended, err := r.t.line()
		if err == nil {
			r.next, r.nextEn, r.nextOK = string(line), ended, true
			return
		}
		r.in.Close()
		r.in = nil
	}
}

// advance makes the look-ahead line the current one.
func (r *sedRun) advance() bool {
	if !r.nextOK {
		return false
	}
	r.space, r.ended = r.next, r.nextEn
	r.number++
	r.fetch()
	return true
}

func (r *sedRun) print(line string, ended bool) {
	if r.lost {
		r.out.WriteByte('\n')
	}
	r.out.WriteString(line)
	if r.lost = !ended; ended {
		r.out.WriteByte('\n')
	}
}

// finish ends a cycle.
func (r *sedRun) finish() {
	if !r.prog.quiet {
		r.print(r.space, r.ended)
	}
	r.flushQueue()
}

func (r *sedRun) flushQueue() {
	for _, text := range r.queue {
		if r.lost {
			r.out.WriteByte('\n')
			r.lost = false
		}
		r.out.WriteString(text)
	}
	r.queue = nil
}

func (r *sedRun) matchAddr(a *sedAddress) bool {
	switch {
	case a.last:
		return !r.nextOK
	case a.kind == '~':
		if a.step <= 0 {
			return r.number == a.line
		}
		return r.number >= a.line && (r.number-a.line)%a.step == 0
	case a.re != nil || a.empty:
		return r.prog.regexp(a.re).MatchString(r.space)
	}
	return r.number == a.line
}

// regexp returns re, or the last one used for an empty expression.
func (g *sedProgram) regexp(re *regexp.Regexp) *regexp.Regexp {
	if re != nil {
		g.lastRe = re
	} else if g.lastRe == nil {
		g.lastRe = regexp.MustCompile("")
	}
	return g.lastRe
}

func (r *sedRun) selected(c *sedCommand) bool {
	switch len(c.addrs) {
	case 0:
		return true
	case 1:
		return r.matchAddr(&c.addrs[0])
	}
	second := &c.addrs[1]
	if !c.active {
		zero := c.addrs[0].kind == '0' && r.number == 1
		if !zero && !r.matchAddr(&c.addrs[0]) {
			return false
		}
		c.until = 0
		switch {
		case second.kind == '+':
			c.until = r.number + second.plus
			c.active = second.plus > 0
		case second.kind == 'n':
			c.until = second.line
			c.active = second.line > r.number
		case zero:
			c.active = !r.matchAddr(second)
		default:
			c.active = !second.last || r.nextOK
		}
		return true
	}
	if c.until > 0 {
		if r.number >= c.until {
			c.active = false
		}
		return r.number <= c.until || r.matchAddr(&c.addrs[0])
	}
	if r.matchAddr(second) {
		c.active = false
	}
	return true
}

// cycle runs the script on the current line. quit: no more cycles.
func (r *sedRun) cycle() (quit bool) {
	replaced := false
	commands := r.prog.commands
	for pc := 0; pc < len(commands); pc++ {
		c := commands[pc]
		if r.selected(c) == c.negate {
			if c.name == '{' {
				pc = c.jump - 1
			}
			continue
		}
		switch c.name {
		case '{', '}', ':', '#':
		case '=':
			r.print(strconv.Itoa(r.number), true)
		case 'a':
			r.queue = append(r.queue, c.text+"\n")
		case 'i':
			r.print(c.text, true)
		case 'c':
			if len(c.addrs) < 2 || !c.active || c.negate {
				r.print(c.text, true)
			}
			r.flushQueue()
			return false
		case 'd':
			r.flushQueue()
			return false
		case 'D':
			_, rest, more := strings.Cut(r.space, "\n")
			r.flushQueue()
			if !more {
				return false
			}
			r.space = rest
			pc, replaced = -1, false
		case 'g':
			r.space = r.hold
		case 'G':
			r.space += "\n" + r.hold
		case 'h':
			r.hold = r.space
		case 'H':
			r.hold += "\n" + r.space
		case 'x':
			r.space, r.hold = r.hold, r.space
		case 'l':
			r.print(strconv.Quote(r.space)[1:len(strconv.Quote(r.space))-1]+"$", true)
		case 'n', 'N':
			if !r.nextOK {
				if c.name == 'n' || !r.prog.quiet {
					r.finish()
				}
				return true
			}
			if c.name == 'n' {
				r.finish()
				r.advance()
				break
			}
			r.flushQueue()
			before := r.space
			r.advance()
			r.space = before + "\n" + r.space
		case 'p':
			r.print(r.space, true)
		case 'P':
			head, _, _ := strings.Cut(r.space, "\n")
			r.print(head, true)
		case 'q':
			r.finish()
			if c.text != "" {
				r.status, _ = strconv.Atoi(c.text)
			}
			return true
		case 'Q':
			if c.text != "" {
				r.status, _ = strconv.Atoi(c.text)
			}
			return true
		case 'r':
			if data, err := os.ReadFile(r.prog.p.Path(c.text)); err == nil {
				r.queue = append(r.queue, string(data))
			}
		case 's':
			if r.substitute(c) {
				replaced = true
			}
		case 'w':
			io.WriteString(c.file, r.space+"\n")
		case 'y':
			r.space = strings.Map(func(ch rune) rune {
				if to, ok := c.table[ch]; ok {
					return to
				}
				return ch
			}, r.space)
		case 'b':
			pc = c.jump - 1
		case 't', 'T':
			if replaced == (c.name == 't') {
				pc = c.jump - 1
			}
			replaced = false
		}
	}
	r.finish()
	return false
}

func (r *sedRun) substitute(c *sedCommand) bool {
	re := r.prog.regexp(c.re)
	matches := re.FindAllStringSubmatchIndex(r.space, -1)
	if len(matches) < c.nth {
		return false
	}
	var b strings.Builder
	last := 0
	for i, m := range matches {
		if i+1 < c.nth {
			continue
		}
		if i+1 > c.nth && !c.global {
			break
		}
		b.WriteString(r.space[last:m[0]])
		writeReplacement(&b, c.with, r.space, m)
		last = m[1]
	}
	b.WriteString(r.space[last:])
	r.space = b.String()
	if c.print {
		r.print(r.space, true)
	}
	if c.file != nil {
		io.WriteString(c.file, r.space+"\n")
	}
	return true
}

// writeReplacement writes the parts; the case conversions \U \L \u \l \E are parts with a negative group.
func writeReplacement(b *strings.Builder, parts []sedPart, line string, m []int) {
	mode, once := byte(0), byte(0)
	for _, part := range parts {
		if part.group < -1 {
			switch c := byte(-part.group); c {
			case 'u', 'l':
				once = c
			default:
				mode, once = c, 0
			}
			continue
		}
		text := part.text
		if part.group >= 0 {
			text = ""
			if i := 2 * part.group; i+1 < len(m) && m[i] >= 0 {
				text = line[m[i]:m[i+1]]
			}
		}
		switch mode {
		case 'U':
			text = strings.ToUpper(text)
		case 'L':
			text = strings.ToLower(text)
		}
		if once != 0 && text != "" {
			first := text[:1]
			if once == 'u' {
				first = strings.ToUpper(first)
			} else {
				first = strings.ToLower(first)
			}
			text, once = first+text[1:], 0
		}
		b.WriteString(text)
	}
}
