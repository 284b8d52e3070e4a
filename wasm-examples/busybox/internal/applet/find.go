package applet

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

type findEntry struct {
	name, full string
	info       fs.FileInfo
	depth      int
}

type findExpr func(e *findEntry) bool

type finder struct {
	p          *proc.Proc
	args       []string
	now        time.Time
	minDepth   int
	maxDepth   int
	depthFirst bool
	follow     bool
	prune      bool
	quit       bool
	acted      bool // an action other than the implied -print
	status     int
	batches    []*findBatch
}

// findBatch collects names for -exec … +.
type findBatch struct{ command, names []string }

func find(p *proc.Proc) int {
	args := p.Args[1:]
	f := &finder{p: p, now: time.Now(), maxDepth: 1 << 30}
	for len(args) > 0 && (args[0] == "-L" || args[0] == "-H" || args[0] == "-P") {
		f.follow = args[0] == "-L"
		args = args[1:]
	}
	var roots []string
	for len(args) > 0 && !(len(args[0]) > 1 && args[0][0] == '-') && args[0] != "!" && args[0] != "(" {
		roots = append(roots, args[0])
		args = args[1:]
	}
	if len(roots) == 0 {
		roots = []string{"."}
	}
	f.args = args
	expr := findExpr(func(*findEntry) bool { return true })
	if len(args) > 0 {
		var err error
		if expr, err = f.or(); err == nil && len(f.args) > 0 {
			err = errors.New("unrecognized: " + f.args[0])
		}
		if err != nil {
			p.Errorf("%v", err)
			return 1
		}
	}
	if !f.acted {
		inner := expr
		expr = func(e *findEntry) bool {
			if inner(e) {
				io.WriteString(p.Stdout, e.name+"\n")
			}
			return true
		}
	}
	for _, root := range roots {
		f.walk(expr, root, 0)
	}
	for _, b := range f.batches {
		if len(b.names) > 0 && p.Start(p.Command(append(append([]string(nil), b.command...), b.names...))) != 0 {
			f.status = 1
		}
	}
	return f.status
}

func (f *finder) walk(expr findExpr, name string, depth int) {
	if f.quit || f.p.Ctx.Err() != nil {
		return
	}
	full := f.p.Path(name)
	stat := os.Lstat
	if f.follow {
		stat = os.Stat
	}
	info, err := stat(full)
	if err != nil {
		f.p.Errorf("%s: %s", name, proc.Reason(err))
		f.status = 1
		return
	}
	e := &findEntry{name, full, info, depth}
	f.prune = false
	if !f.depthFirst && depth >= f.minDepth {
		expr(e)
	}
	if info.IsDir() && depth < f.maxDepth && !f.prune && !f.quit {
		entries, err := os.ReadDir(full)
		if err != nil {
			f.p.Errorf("%s: %s", name, proc.Reason(err))
			f.status = 1
		}
		for _, entry := range entries {
			f.walk(expr, strings.TrimRight(name, "/")+"/"+entry.Name(), depth+1)
		}
	}
	if f.depthFirst && depth >= f.minDepth && !f.quit {
		expr(e)
	}
}

func (f *finder) or() (findExpr, error) {
	left, err := f.and()
	for err == nil && len(f.args) > 0 && (f.args[0] == "-o" || f.args[0] == "-or") {
		f.args = f.args[1:]
		var right findExpr
		a := left
		right, err = f.and()
		left = func(e *findEntry) bool { return a(e) || right(e) }
	}
	return left, err
}

func (f *finder) and() (findExpr, error) {
	left, err := f.not()
	for err == nil && len(f.args) > 0 && f.args[0] != "-o" && f.args[0] != "-or" && f.args[0] != ")" {
		if f.args[0] == "-a" || f.args[0] == "-and" {
			f.args = f.args[1:]
		}
		var right findExpr
		a := left
		right, err = f.not()
		left = func(e *findEntry) bool { return a(e) && right(e) }
	}
	return left, err
}

func (f *finder) not() (findExpr, error) {
	if len(f.args) == 0 {
		return nil, errors.New("expression expected")
	}
	if f.args[0] == "!" || f.args[0] == "-not" {
		f.args = f.args[1:]
		inner, err := f.not()
		return func(e *findEntry) bool { return !inner(e) }, err
	}
	if f.args[0] == "(" {
		f.args = f.args[1:]
		inner, err := f.or()
		if err == nil && (len(f.args) == 0 || f.args[0] != ")") {
			err = errors.New("unpaired '('")
		}
		if err == nil {
			f.args = f.args[1:]
		}
		return inner, err
	}
	return f.primary()
}

func (f *finder) primary() (findExpr, error) {
	name := f.args[0]
	f.args = f.args[1:]
	arg := ""
	switch name {
	case "-name", "-iname", "-path", "-ipath", "-wholename", "-type", "-maxdepth", "-mindepth", "-mtime", "-mmin", "-newer", "-size",
		"-perm", "-user", "-group":
		if len(f.args) == 0 {
			return nil, errors.New(name + ": argument expected")
		}
		arg, f.args = f.args[0], f.args[1:]
	}
	yes := func(*findEntry) bool { return true }
	switch name {
	case "-name", "-iname":
		return func(e *findEntry) bool {
			base := filepath.Base(e.name)
			return globMatch(arg, base, name == "-iname")
		}, nil
	case "-path", "-ipath", "-wholename":
		return func(e *findEntry) bool { return globMatch(arg, e.name, name == "-ipath") }, nil
	case "-type":
		return func(e *findEntry) bool {
			kind := modeString(e.info.Mode())[:1]
			return kind == arg || kind == "-" && arg == "f"
		}, nil
	case "-maxdepth", "-mindepth":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return nil, errors.New("invalid number '" + arg + "'")
		}
		if name == "-maxdepth" {
			f.maxDepth = n
		} else {
			f.minDepth = n
		}
		return yes, nil
	case "-mtime", "-mmin", "-size":
		return f.numeric(name, arg)
	case "-newer":
		ref, err := os.Stat(f.p.Path(arg))
		if err != nil {
			return nil, errors.New(arg + ": " + proc.Reason(err))
		}
		return func(e *findEntry) bool { return e.info.ModTime().After(ref.ModTime()) }, nil
	case "-user", "-group":
		return func(*findEntry) bool { return arg == "root" || arg == "0" }, nil
	case "-perm":
		n, err := strconv.ParseUint(strings.TrimLeft(arg, "-/"), 8, 32)
		if err != nil {
			return nil, errors.New("invalid mode '" + arg + "'")
		}
		want := fs.FileMode(n)
		return func(e *findEntry) bool {
			have := e.info.Mode().Perm()
			switch arg[0] {
			case '-':
				return have&want == want
			case '/':
				return have&want != 0
			}
			return have == want
		}, nil
	case "-empty":
		return func(e *findEntry) bool {
			if e.info.IsDir() {
				entries, err := os.ReadDir(e.full)
				return err == nil && len(entries) == 0
			}
			return e.info.Mode().IsRegular() && e.info.Size() == 0
		}, nil
	case "-depth":
		f.depthFirst = true
		return yes, nil
	case "-follow":
		f.follow = true
		return yes, nil
	case "-xdev", "-mount", "-true":
		return yes, nil
	case "-false":
		return func(*findEntry) bool { return false }, nil
	case "-prune":
		return func(*findEntry) bool { f.prune = true; return true }, nil
	case "-quit":
		f.acted = true
		return func(*findEntry) bool { f.quit = true; return true }, nil
	case "-print", "-print0":
		f.acted = true
		end := map[string]string{"-print": "\n", "-print0": "\x00"}[name]
		return func(e *findEntry) bool { io.WriteString(f.p.Stdout, e.name+end); return true }, nil
	case "-delete":
		f.acted, f.depthFirst = true, true
		return func(e *findEntry) bool {
			if e.name == "." {
				return true
			}
			if err := os.Remove(e.full); err != nil {
				f.p.Errorf("can't remove '%s': %s", e.name, proc.Reason(err))
				f.status = 1
				return false
			}
			return true
		}, nil
	case "-exec":
		return f.exec()
	}
	return nil, errors.New("unrecognized: " + name)
}

func (f *finder) numeric(name, arg string) (findExpr, error) {
	text := strings.TrimLeft(arg, "+-")
	unit := int64(1)
	if name == "-size" {
		unit = 512
		if text != "" {
			if u, ok := map[byte]int64{'c': 1, 'b': 512, 'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[text[len(text)-1]]; ok {
				unit, text = u, text[:len(text)-1]
			}
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, errors.New("invalid number '" + arg + "'")
	}
	return func(e *findEntry) bool {
		var v int64
		switch name {
		case "-size":
			v = (e.info.Size() + unit - 1) / unit
		case "-mtime":
			v = int64(f.now.Sub(e.info.ModTime()) / (24 * time.Hour))
		default:
			v = int64(f.now.Sub(e.info.ModTime()) / time.Minute)
		}
		switch arg[0] {
		case '+':
			return v > n
		case '-':
			return v < n
		}
		return v == n
	}, nil
}

func (f *finder) exec() (findExpr, error) {
	f.acted = true
	for i, a := range f.args {
		if a == ";" || a == "+" && i > 0 && f.args[i-1] == "{}" {
			command := f.args[:i]
			f.args = f.args[i+1:]
			if a == "+" {
				b := &findBatch{command: command[:len(command)-1]}
				f.batches = append(f.batches, b)
				return func(e *findEntry) bool { b.names = append(b.names, e.name); return true }, nil
			}
			if len(command) == 0 {
				break
			}
			return func(e *findEntry) bool {
				args := make([]string, len(command))
				for i, c := range command {
					args[i] = strings.ReplaceAll(c, "{}", e.name)
				}
				return f.p.Start(f.p.Command(args)) == 0
			}, nil
		}
	}
	return nil, errors.New("-exec: no ';' found")
}

func xargs(p *proc.Proc) int {
	f, rest, ok := parse(p, "+0rtI:n:L:s:P:d:ex", map[string]byte{"null": '0', "no-run-if-empty": 'r', "max-args": 'n', "max-procs": 'P'})
	if !ok {
		return 1
	}
	if len(rest) == 0 {
		rest = []string{"echo"}
	}
	data, err := io.ReadAll(p.Stdin)
	if err != nil {
		p.Errorf("%s", proc.Reason(err))
		return 1
	}
	replace, replacing := f.value('I')
	var items []string
	switch {
	case f.has('0'):
		items = strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	case f.has('d'):
		d, _ := f.value('d')
		items = strings.Split(strings.TrimSuffix(string(data), "\n"), d)
	case replacing || f.has('L'):
		for _, line := range strings.Split(string(data), "\n") {
			if line = strings.TrimLeft(line, " \t"); line != "" {
				items = append(items, line)
			}
		}
	default:
		if items, err = xargsWords(string(data)); err != nil {
			p.Errorf("%v", err)
			return 1
		}
	}
	if len(data) == 0 {
		items = nil
	}
	per := 1 << 16
	for _, letter := range []byte("nL") {
		if v, ok := f.value(letter); ok {
			n, ok := number(v)
			if !ok || n < 1 {
				p.Errorf("invalid number '%s'", v)
				return 1
			}
			per = int(min(n, 1<<16))
		}
	}
	status := 0
	start := func(args []string) (stop bool) {
		if f.has('t') {
			io.WriteString(p.Stderr, strings.Join(args, " ")+"\n")
		}
		q := p.Command(args)
		q.Stdin = strings.NewReader("")
		switch s := p.Start(q); {
		case s == 255:
			p.Errorf("%s: exited with status 255; aborting", args[0])
			status = 124
			return true
		case s == proc.NotFound || s == proc.NotExecutable:
			status = s
			return true
		case s != 0:
			status = 123
		}
		return p.Ctx.Err() != nil
	}
	if replacing {
		for _, item := range items {
			args := make([]string, len(rest))
			for i, a := range rest {
				args[i] = strings.ReplaceAll(a, replace, item)
			}
			if start(args) {
				break
			}
		}
		return status
	}
	if len(items) == 0 {
		if !f.has('r') {
			start(rest)
		}
		return status
	}
	for len(items) > 0 {
		n := min(per, len(items))
		if start(append(append([]string(nil), rest...), items[:n]...)) {
			break
		}
		items = items[n:]
	}
	return status
}

// xargsWords splits by white space, with quotes and backslashes.
func xargsWords(text string) ([]string, error) {
	var out []string
	var b strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == '\n' {
				return nil, errors.New("unmatched quote")
			}
			if c == quote {
				quote = 0
			} else {
				b.WriteByte(c)
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			inWord = true
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				out = append(out, b.String())
				b.Reset()
				inWord = false
			}
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("unmatched quote")
	}
	if inWord {
		out = append(out, b.String())
	}
	return out, nil
}
