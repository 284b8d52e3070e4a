package sh

import (
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// builtin is a command that acts on the shell process itself. A special one, in the sense of POSIX, keeps the
// assignments before it, and an error in it ends the shell.
type builtin struct {
	run     func(s *Shell, args []string) int
	special bool
}

var builtins map[string]builtin

func init() { // the table refers to functions that refer to the table
	builtins = map[string]builtin{
		":":        {func(*Shell, []string) int { return 0 }, true},
		".":        {builtinSource, true},
		"source":   {builtinSource, true},
		"break":    {builtinBreak, true},
		"continue": {builtinBreak, true},
		"eval":     {builtinEval, true},
		"exec":     {builtinExec, true},
		"exit":     {builtinExit, true},
		"export":   {builtinExport, true},
		"readonly": {builtinExport, true},
		"return":   {builtinReturn, true},
		"set":      {builtinSet, true},
		"shift":    {builtinShift, true},
		"times":    {builtinTimes, true},
		"trap":     {builtinTrap, true},
		"unset":    {builtinUnset, true},

		"true":    {func(*Shell, []string) int { return 0 }, false},
		"false":   {func(*Shell, []string) int { return 1 }, false},
		"alias":   {builtinNothing, false},
		"unalias": {builtinNothing, false},
		"hash":    {builtinNothing, false},
		"umask":   {builtinUmask, false},
		"cd":      {builtinCd, false},
		"pwd":     {builtinPwd, false},
		"command": {builtinCommand, false},
		"type":    {builtinType, false},
		"getopts": {builtinGetopts, false},
		"jobs":    {builtinJobs, false},
		"kill":    {builtinKill, false},
		"local":   {builtinLocal, false},
		"declare": {builtinLocal, false},
		"typeset": {builtinLocal, false},
		"read":    {builtinRead, false},
		"wait":    {builtinWait, false},
		"let":     {builtinLet, false},
	}
	for _, name := range []string{"echo", "printf", "test", "["} { // run without a look-up, and in the shell process
		builtins[name] = builtin{run: func(s *Shell, args []string) int {
			p := s.proc(args, nil)
			p.Stdout, p.Stderr = proc.Writer(p.Stdout), proc.Writer(p.Stderr)
			return s.sys.Applets[args[0]](p)
		}}
	}
}

func (s *Shell) print(text string) { io.WriteString(s.stdout(), text) }

func builtinNothing(*Shell, []string) int { return 0 }

// builtinUmask answers with what WASI preview 1 amounts to: it knows no file modes.
func builtinUmask(s *Shell, args []string) int {
	if len(args) == 1 {
		s.print("0022\n")
	}
	return 0
}

func builtinTimes(s *Shell, _ []string) int {
	s.print("0m0.000s 0m0.000s\n0m0.000s 0m0.000s\n")
	return 0
}

// number reads a builtin's numeric operand; one that is not ends the shell.
func (s *Shell) number(builtin, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		s.fatal(2, "%s: Illegal number: %s", builtin, text)
	}
	return n
}

func builtinExit(s *Shell, args []string) int {
	status := s.status
	if len(args) > 1 {
		status = s.number("exit", args[1])
	}
	s.leaving = true
	s.exit(status)
	return 0
}

func builtinReturn(s *Shell, args []string) int {
	status := s.status
	if len(args) > 1 {
		status = s.number("return", args[1])
	}
	if len(s.locals) == 0 && s.sourcing == 0 {
		s.leaving = true
		s.exit(status)
	}
	s.skip = skipReturn
	return status & 0xff
}

func builtinBreak(s *Shell, args []string) int {
	n := 1
	if len(args) > 1 {
		if n = s.number(args[0], args[1]); n < 1 {
			s.fatal(2, "%s: Illegal number: %s", args[0], args[1])
		}
	}
	if s.loops == 0 {
		return 0
	}
	s.skip, s.skipCount = skipBreak, min(n, s.loops)
	if args[0] == "continue" {
		s.skip = skipContinue
	}
	return 0
}

func builtinEval(s *Shell, args []string) int {
	if len(args) == 1 {
		return 0
	}
	if text := strings.Join(args[1:], " "); text != "" {
		if args[1] == "--" {
			text = strings.Join(args[2:], " ")
		}
		before := s.status
		s.status = 0
		if strings.Contains(text, "$?") {
			s.status = before
		}
		s.eval(text)
	}
	return s.status
}

func builtinSource(s *Shell, args []string) int {
	if len(args) < 2 {
		return 2
	}
	file := args[1]
	if !strings.Contains(file, "/") {
		for _, dir := range strings.Split(s.get("PATH"), ":") {
			candidate := filepath.Join(dir, file)
			if info, err := os.Stat(proc.Join(s.dir, candidate)); err == nil && info.Mode().IsRegular() {
				file = candidate
				break
			}
		}
	}
	text, err := s.readFile(file)
	if err != nil {
		s.fatal(2, "%s: %v", args[0], err)
	}
	s.enter()
	params := s.params
	if len(args) > 2 {
		s.params = args[2:]
	}
	s.sourcing++
	s.status = 0
	defer func() {
		s.sourcing--
		if len(args) > 2 {
			s.params = params
		}
		s.leave()
	}()
	s.runScript(&lineReader{r: strings.NewReader(string(text))}, false)
	if s.skip == skipReturn {
		s.skip = skipNone
	}
	return s.status
}

func builtinExec(s *Shell, args []string) int {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1], args[2:]...)
	}
	if len(args) == 1 {
		s.keepRedirs = true
		return 0
	}
	s.traps = map[string]string{}
	s.leaving = true
	s.exit(s.external(args[1:], s.environ()))
	return 0
}

// builtinExport is `export` and `readonly`.
func builtinExport(s *Shell, args []string) int {
	readonly := args[0] == "readonly"
	unexport := false
	rest := args[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") && len(rest[0]) > 1 {
		if rest[0] == "-n" {
			unexport = true
		}
		rest = rest[1:]
	}
	if len(rest) == 0 {
		var names []string
		for name, v := range s.vars {
			if readonly && v.readonly || !readonly && v.exported {
				names = append(names, name)
			}
		}
		sort.Strings(names)
		for _, name := range names {
			line := args[0] + " " + name
			if v := s.vars[name]; v.set {
				line += "=" + quote(v.value)
			}
			s.print(line + "\n")
		}
		return 0
	}
	for _, arg := range rest {
		name, value, assigned := strings.Cut(arg, "=")
		if !syntax.ValidName(name) {
			s.fatal(2, "%s: %s: bad variable name", args[0], name)
		}
		if assigned {
			s.set(name, value)
		} else if s.vars[name] == nil {
			s.vars[name] = &variable{}
		}
		v := s.vars[name]
		if readonly {
			v.readonly = true
		} else {
			v.exported = !unexport
		}
	}
	return 0
}

func builtinLocal(s *Shell, args []string) int {
	if len(s.locals) == 0 {
		if args[0] != "local" {
			return builtinExport(s, append([]string{"export", "-n"}, args[1:]...))
		}
		s.fatal(2, "local: not in a function")
	}
	hidden := s.locals[len(s.locals)-1]
	for _, arg := range args[1:] {
		if strings.HasPrefix(arg, "-") {
			continue
		}
		name, value, assigned := strings.Cut(arg, "=")
		if !syntax.ValidName(name) {
			s.fatal(2, "%s: %s: bad variable name", args[0], name)
		}
		old := s.vars[name]
		if _, seen := hidden[name]; !seen {
			hidden[name] = old
			fresh := &variable{}
			if old != nil {
				*fresh = *old // like the Almquist shell, a local starts with the outer value
			}
			s.vars[name] = fresh
		}
		if assigned {
			s.set(name, value)
		}
	}
	return 0
}

func builtinUnset(s *Shell, args []string) int {
	functions := false
	for _, name := range args[1:] {
		switch {
		case name == "-f":
			functions = true
		case name == "-v":
			functions = false
		case functions:
			delete(s.funcs, name)
		default:
			if v := s.vars[name]; v != nil && v.readonly {
				s.fatal(2, "unset: %s: is read only", name)
			}
			delete(s.vars, name)
		}
	}
	return 0
}

func builtinShift(s *Shell, args []string) int {
	n := 1
	if len(args) > 1 {
		n = s.number("shift", args[1])
	}
	if n > len(s.params) {
		return 1
	}
	s.params = s.params[n:]
	return 0
}

func builtinSet(s *Shell, args []string) int {
	if len(args) == 1 {
		var names []string
		for name, v := range s.vars {
			if v.set {
				names = append(names, name)
			}
		}
		sort.Strings(names)
		for _, name := range names {
			s.print(name + "=" + quote(s.vars[name].value) + "\n")
		}
		return 0
	}
	if len(args) == 2 && (args[1] == "-o" || args[1] == "+o") {
		for _, t := range optionTable {
			state := map[bool]string{true: "on", false: "off"}[*t.field(&s.opts)]
			s.print(t.name + strings.Repeat(" ", max(1, 16-len(t.name))) + state + "\n")
		}
		return 0
	}
	rest, dashes, bad := s.opts.parse(args[1:], nil)
	if bad != "" {
		s.fatal(2, "set: illegal option %s", bad)
	}
	if len(rest) > 0 && rest[0] == "-" {
		s.opts.xtrace, s.opts.verbose = false, false
		rest = rest[1:]
		if len(rest) == 0 {
			return 0
		}
	}
	if dashes || len(rest) > 0 {
		s.params = append([]string(nil), rest...)
	}
	return 0
}

func builtinCd(s *Shell, args []string) int {
	physical := false
	rest := args[1:]
	for len(rest) > 0 && (rest[0] == "-P" || rest[0] == "-L" || rest[0] == "--") {
		physical = rest[0] == "-P"
		rest = rest[1:]
	}
	dir, show := s.get("HOME"), false
	if len(rest) > 0 {
		dir = rest[0]
	}
	if dir == "-" {
		dir, show = s.get("OLDPWD"), true
	}
	if dir == "" {
		dir = "."
	}
	target := strings.TrimRight(proc.Join(s.dir, dir), "/")
	if target == "" {
		target = "/"
	}
	if physical {
		if resolved, err := filepath.EvalSymlinks(target); err == nil {
			target = resolved
		}
	}
	info, err := os.Stat(target)
	if err != nil {
		s.errorf("cd: can't cd to %s: %s", dir, proc.Reason(err))
		return 2
	}
	if !info.IsDir() {
		s.errorf("cd: can't cd to %s: Not a directory", dir)
		return 2
	}
	s.set("OLDPWD", s.dir)
	s.dir = target
	s.set("PWD", target)
	if show {
		s.print(target + "\n")
	}
	return 0
}

func builtinPwd(s *Shell, args []string) int {
	dir := s.dir
	if len(args) > 1 && args[1] == "-P" {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved
		}
	}
	s.print(dir + "\n")
	return 0
}

func builtinLet(s *Shell, args []string) int {
	var v int64
	for _, arg := range args[1:] {
		v = s.arithText(arg)
	}
	return boolStatus(v != 0)
}

// builtinCommand is `command [-pvV] NAME [ARG…]`.
func builtinCommand(s *Shell, args []string) int {
	rest := args[1:]
	show := byte(0)
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		if rest[0] == "--" {
			rest = rest[1:]
			break
		}
		for _, c := range rest[0][1:] {
			if c == 'v' || c == 'V' {
				show = byte(c)
			}
		}
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return 0
	}
	if show != 0 {
		status := 0
		for _, name := range rest {
			if !s.describe(name, show == 'V') {
				status = proc.NotFound
			}
		}
		return status
	}
	if b, ok := builtins[rest[0]]; ok {
		return b.run(s, rest)
	}
	status := s.external(rest, s.environ())
	s.checkKilled()
	return status
}

func builtinType(s *Shell, args []string) int {
	status := 0
	for _, name := range args[1:] {
		if !s.describe(name, true) {
			status = proc.NotFound
		}
	}
	return status
}

// describe prints what a name would run.
func (s *Shell) describe(name string, verbose bool) bool {
	text, long := name, ""
	file, main := "", proc.Main(nil)
	if _, ok := s.funcs[name]; ok {
		long = " is a function"
	} else if _, ok := builtins[name]; ok {
		long = " is a shell builtin"
	} else if syntax.IsKeyword(name) {
		long = " is a shell keyword"
	} else if file, main = s.sys.find(name, s.get("PATH"), s.dir); file != "" {
		text, long = file, " is "+file
	} else if main != nil {
		if !strings.Contains(name, "/") {
			text = "/bin/" + name
		}
		long = " is " + text
	} else {
		if verbose {
			s.print(name + ": not found\n")
		}
		return false
	}
	if verbose {
		text = name + long
	}
	s.print(text + "\n")
	return true
}

func (s *Shell) timeClause(c *syntax.TimeClause) {
	start := time.Now()
	if c.Stmt != nil {
		s.stmt(c.Stmt)
	}
	d := time.Since(start)
	mins := int(d.Minutes())
	secs := strconv.FormatFloat(d.Seconds()-float64(60*mins), 'f', 2, 64)
	io.WriteString(s.stderr(), "real\t"+strconv.Itoa(mins)+"m "+secs+"s\nuser\t0m 0.00s\nsys\t0m 0.00s\n")
}
