// Package sh is a POSIX shell for guests without processes: it walks the syntax trees of mvdan.cc/sh/v3/syntax and runs
// subshells, pipelines, background jobs and commands as goroutines of one instance, with in-memory pipes between them.
package sh

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// System is what all shell processes of one instance share.
type System struct {
	// Applets are the commands that live in /bin without being files.
	Applets map[string]proc.Main

	mu      sync.Mutex
	nextPid int
	jobs    map[int]*job
	first   bool // the shell that gets the instance's signals is there
}

// pid allocates a process id that no job of this instance has had.
func (y *System) pid() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.nextPid == 0 {
		y.nextPid = os.Getpid()
	}
	y.nextPid++
	return y.nextPid
}

type variable struct {
	value    string
	set      bool
	exported bool
	readonly bool
}

// skip says which enclosing construct the shell is leaving.
type skip int

const (
	skipNone skip = iota
	skipBreak
	skipContinue
	skipReturn
)

type options struct {
	errexit, nounset, noexec, noglob, noclobber, allexport, xtrace, pipefail bool
	monitor, verbose, notify, ignoreeof                                      bool // accepted, without effect
}

// A Shell is one shell process: the main shell, a subshell, or one side of a pipeline. It belongs to one goroutine.
type Shell struct {
	sys    *System
	ctx    context.Context
	cancel context.CancelCauseFunc
	pid    int

	arg0    string
	script  bool // arg0 is a script file: messages give line numbers
	params  []string
	vars    map[string]*variable
	funcs   map[string]*syntax.Stmt
	dir     string
	opts    options
	fds     map[int]*file
	traps   map[string]string
	pending []string       // signals that arrived for traps
	arrived chan os.Signal // those of the instance; nil in all shells but its first

	notified   bool // something may come to arrived
	statements uint

	locals    []map[string]*variable // what `local` hid, one map for each function being run
	skip      skip
	skipCount int
	loops     int
	sourcing  int
	depth     int
	tested    int // >0 inside a condition, where set -e does not apply
	line      uint
	inTrap    bool
	isSub     bool
	leaving   bool // by exit, not by an error: ends an interactive shell too

	status      int
	substStatus int // of the last command substitution in the current simple command
	keepRedirs  bool
	getopts     getoptsState
	jobs        []*job
	lastJob     *job
}

// maxDepth bounds recursion of functions, sourced files and evals: a Go stack overflow could not be recovered.
const maxDepth = 500

// exitSignal is the cause with which a job's context is cancelled.
type exitSignal int

func (e exitSignal) Error() string { return fmt.Sprintf("signal %d", int(e)) }

// New returns a shell process with p's environment and streams.
func New(sys *System, p *proc.Proc) *Shell {
	ctx, cancel := context.WithCancelCause(p.Ctx)
	s := &Shell{
		sys: sys, ctx: ctx, cancel: cancel, pid: os.Getpid(),
		arg0: p.Args[0], dir: p.Dir,
		vars:  map[string]*variable{},
		funcs: map[string]*syntax.Stmt{},
		traps: map[string]string{},
		fds: map[int]*file{
			0: newFile(p.Stdin, nil, nil),
			1: newFile(nil, p.Stdout, nil),
			2: newFile(nil, p.Stderr, nil),
		},
	}
	for _, kv := range p.Env {
		name, value, ok := strings.Cut(kv, "=")
		if ok && syntax.ValidName(name) {
			s.vars[name] = &variable{value: value, set: true, exported: true}
		}
	}
	for _, d := range []struct{ name, value string }{
		{"IFS", " \t\n"}, {"OPTIND", "1"}, {"PS1", "$ "}, {"PS2", "> "}, {"PS4", "+ "},
	} {
		if v := s.vars[d.name]; v == nil || d.name == "IFS" || d.name == "OPTIND" {
			s.vars[d.name] = &variable{value: d.value, set: true}
		}
	}
	sys.mu.Lock()
	if !sys.first {
		sys.first = true
		s.arrived = make(chan os.Signal, 16)
	}
	sys.mu.Unlock()
	s.vars["PPID"] = &variable{value: fmt.Sprint(os.Getppid()), set: true}
	if v := s.vars["PWD"]; v == nil {
		s.vars["PWD"] = &variable{value: s.dir, set: true}
	} else {
		v.value = s.dir
	}
	return s
}

// subshell returns a copy of s that shares its files and nothing else.
func (s *Shell) subshell() *Shell {
	c := *s
	c.ctx, c.cancel = context.WithCancelCause(s.ctx)
	c.isSub = true
	c.vars = make(map[string]*variable, len(s.vars))
	for name, v := range s.vars {
		copied := *v
		c.vars[name] = &copied
	}
	c.funcs = maps.Clone(s.funcs)
	c.fds = make(map[int]*file, len(s.fds))
	for n, f := range s.fds {
		c.fds[n] = f.retain()
	}
	c.params = append([]string(nil), s.params...)
	c.locals = nil
	for range s.locals { // `local` stays allowed in a subshell of a function
		c.locals = append(c.locals, map[string]*variable{})
	}
	c.traps = map[string]string{}
	for name, action := range s.traps {
		if action == "" && name != "EXIT" { // ignored signals stay ignored
			c.traps[name] = action
		}
	}
	c.pending, c.arrived, c.notified = nil, nil, false
	c.jobs = nil
	c.inTrap = false
	c.keepRedirs = false
	return &c
}

// setFile makes descriptor n refer to f and takes over the caller's reference.
func (s *Shell) setFile(n int, f *file) {
	if old := s.fds[n]; old != nil {
		old.release()
	}
	s.fds[n] = f
}

// process runs body as the life of this shell process, its EXIT trap and closing of files included.
func (s *Shell) process(body func()) int {
	defer func() {
		for _, f := range s.fds {
			f.release()
		}
		s.fds = nil
		s.cancel(nil)
	}()
	s.protect(func() {
		body()
		s.runTraps()
	})
	if action, ok := s.traps["EXIT"]; ok && action != "" && s.ctx.Err() == nil {
		delete(s.traps, "EXIT")
		status := s.status
		if !s.protect(func() { s.inTrap = true; s.eval(action) }) {
			s.status = status
		}
	}
	return s.status & 0xff
}

// protect runs f and reports whether it ended the shell process.
func (s *Shell) protect(f func()) (ended bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case proc.Ended:
			s.status = r.Status
			s.skip, s.skipCount = skipNone, 0
			ended = true
		default:
			panic(r)
		}
	}()
	f()
	return false
}

// exit ends the shell process.
func (s *Shell) exit(status int) { panic(proc.Ended{Status: status & 0xff}) }

// fatal reports an error that ends a non-interactive shell.
func (s *Shell) fatal(status int, format string, args ...any) {
	s.errorf(format, args...)
	s.exit(status)
}

func (s *Shell) stdin() io.Reader  { return stream{s.ctx, s.fds[0]} }
func (s *Shell) stdout() io.Writer { return proc.Writer(stream{s.ctx, s.fds[1]}) }
func (s *Shell) stderr() io.Writer { return proc.Writer(stream{s.ctx, s.fds[2]}) }

func (s *Shell) errorf(format string, args ...any) {
	prefix := s.arg0 + ": "
	if s.script && s.line > 0 {
		prefix += fmt.Sprintf("line %d: ", s.line)
	}
	io.WriteString(s.stderr(), prefix+fmt.Sprintf(format, args...)+"\n")
}

// checkKilled ends the shell process if a signal did.
func (s *Shell) checkKilled() {
	if s.ctx.Err() == nil {
		return
	}
	var sig exitSignal = 15
	if e, ok := context.Cause(s.ctx).(exitSignal); ok {
		sig = e
	}
	s.exit(128 + int(sig))
}

// runTraps runs the actions of signals that have arrived.
func (s *Shell) runTraps() {
	if s.notified {
		// A guest has one thread: the goroutine that brings signals gets it when all
		// others wait, which those of a script that computes never do.
		if s.statements++; s.statements%1024 == 0 {
			time.Sleep(50 * time.Microsecond)
		}
		for len(s.arrived) > 0 {
			s.take(<-s.arrived)
		}
	}
	for len(s.pending) > 0 && !s.inTrap {
		name := s.pending[0]
		s.pending = s.pending[1:]
		status := s.status
		s.inTrap = true
		s.eval(s.traps[name])
		s.inTrap = false
		s.status = status
	}
}

// eval parses and runs text in the current environment.
func (s *Shell) eval(text string) {
	s.enter()
	defer s.leave()
	s.runScript(&lineReader{r: strings.NewReader(text)}, false)
}

func (s *Shell) enter() {
	if s.depth++; s.depth > maxDepth {
		s.depth--
		s.fatal(2, "recursion deeper than %d levels", maxDepth)
	}
}

func (s *Shell) leave() { s.depth-- }

// lineReader gives out at most one line a time and never reads past it, so that commands in a script read from standard
// input find the lines that follow them.
type lineReader struct {
	r    io.Reader
	last byte
	done bool
}

func (l *lineReader) Read(b []byte) (int, error) {
	if l.done {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) {
		k, err := l.r.Read(b[n : n+1])
		if k == 0 && err == nil {
			continue
		}
		if k == 0 {
			l.done = true
			if l.last != '\n' && l.last != 0 { // the parser hands over a line at its end
				l.last = '\n'
				b[n] = '\n'
				return n + 1, nil
			}
			if n > 0 {
				return n, nil
			}
			return 0, io.EOF
		}
		l.last = b[n]
		n++
		if l.last == '\n' {
			break
		}
	}
	return n, nil
}

// runScript runs commands as it reads them, a line at a time, as shells do: what stands before a syntax error has run.
func (s *Shell) runScript(r io.Reader, interactive bool) {
	parser := syntax.NewParser(syntax.Variant(syntax.LangBash))
	prompt := func(name string) {
		if interactive {
			io.WriteString(s.stderr(), s.get(name))
		}
	}
	prompt("PS1")
	for stmts, err := range parser.InteractiveSeq(r) {
		if err != nil {
			s.errorf("syntax error: %s", syntaxMessage(err))
			s.exit(2)
		}
		if parser.Incomplete() {
			prompt("PS2")
			continue
		}
		if !interactive {
			s.stmts(stmts)
		} else if s.protect(func() { s.stmts(stmts) }) && (s.leaving || s.ctx.Err() != nil) {
			s.exit(s.status)
		}
		if s.skip != skipNone {
			return
		}
		prompt("PS1")
	}
	s.runTraps()
}

func syntaxMessage(err error) string {
	if pe, ok := err.(syntax.ParseError); ok {
		return pe.Text
	}
	return err.Error()
}

// filesFirst: in a container, a file in a directory of PATH goes before the applet of that name. On a host, where /bin
// is full of other people's binaries that cannot be run from here, the applet goes first.
const filesFirst = runtime.GOOS == "wasip1"
