package sh

import (
	"io"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/glob"
)

func (s *Shell) stmts(list []*syntax.Stmt) {
	for _, st := range list {
		s.stmt(st)
		if s.skip != skipNone {
			return
		}
	}
}

func (s *Shell) stmt(st *syntax.Stmt) {
	s.checkKilled()
	s.runTraps()
	if s.opts.noexec {
		return
	}
	if line := st.Position.Line(); line > 0 {
		s.line = line
	}
	switch {
	case st.Coprocess || st.Disown:
		s.fatal(2, "syntax error: coprocesses are not supported")
	case st.Background:
		s.background(st)
		s.status = 0
	case st.Negated:
		s.untested(func() { s.command(st) })
		if s.skip == skipNone {
			s.status = boolStatus(s.status != 0)
		}
	default:
		s.command(st)
	}
}

// boolStatus is the exit status of a truth value.
func boolStatus(ok bool) int {
	if ok {
		return 0
	}
	return 1
}

// untested runs f where set -e does not apply.
func (s *Shell) untested(f func()) {
	s.tested++
	defer func() { s.tested-- }()
	f()
}

// checkExit applies set -e after a simple command, pipeline or subshell.
func (s *Shell) checkExit() {
	if s.opts.errexit && s.tested == 0 && s.status != 0 && s.skip == skipNone {
		s.leaving = true
		s.exit(s.status)
	}
}

func (s *Shell) command(st *syntax.Stmt) {
	switch cmd := st.Cmd.(type) {
	case nil:
		s.simple(st, &syntax.CallExpr{})
		return
	case *syntax.CallExpr:
		s.simple(st, cmd)
		return
	case *syntax.DeclClause:
		s.simpleDecl(st, cmd)
		return
	}
	undo, err := s.redirect(st.Redirs)
	defer undo()
	if err != nil {
		s.errorf("%v", err)
		s.status = 1
		s.checkExit()
		return
	}
	switch cmd := st.Cmd.(type) {
	case *syntax.BinaryCmd:
		s.binary(cmd)
	case *syntax.Block:
		s.stmts(cmd.Stmts)
	case *syntax.Subshell:
		sub := s.subshell()
		s.status = sub.process(func() { sub.stmts(cmd.Stmts) })
		s.checkKilled()
		s.checkExit()
	case *syntax.IfClause:
		s.ifClause(cmd)
	case *syntax.WhileClause:
		s.whileClause(cmd)
	case *syntax.ForClause:
		s.forClause(cmd)
	case *syntax.CaseClause:
		s.caseClause(cmd)
	case *syntax.FuncDecl:
		s.funcs[cmd.Name.Value] = cmd.Body
		s.status = 0
	case *syntax.ArithmCmd:
		s.status = boolStatus(s.arith(cmd.X) != 0)
		s.checkExit()
	case *syntax.LetClause:
		var v int64
		for _, x := range cmd.Exprs {
			v = s.arith(x)
		}
		s.status = boolStatus(v != 0)
		s.checkExit()
	case *syntax.TestClause:
		s.status = boolStatus(s.testExpr(cmd.X))
		s.checkExit()
	case *syntax.TimeClause:
		s.timeClause(cmd)
	default:
		s.fatal(2, "syntax error: this construct is not supported")
	}
}

func (s *Shell) binary(cmd *syntax.BinaryCmd) {
	switch cmd.Op {
	case syntax.AndStmt, syntax.OrStmt:
		s.untested(func() { s.stmt(cmd.X) })
		if s.skip == skipNone && (s.status == 0) == (cmd.Op == syntax.AndStmt) {
			s.stmt(cmd.Y)
		}
	default:
		s.pipeline(flattenPipe(nil, cmd))
	}
}

type pipeElem struct {
	st  *syntax.Stmt
	all bool // |&: standard error goes into the pipe as well
}

func flattenPipe(list []pipeElem, cmd *syntax.BinaryCmd) []pipeElem {
	add := func(st *syntax.Stmt) {
		inner, ok := st.Cmd.(*syntax.BinaryCmd)
		if ok && (inner.Op == syntax.Pipe || inner.Op == syntax.PipeAll) && !st.Negated && !st.Background && len(st.Redirs) == 0 {
			list = flattenPipe(list, inner)
			return
		}
		list = append(list, pipeElem{st: st})
	}
	add(cmd.X)
	list[len(list)-1].all = cmd.Op == syntax.PipeAll
	add(cmd.Y)
	return list
}

func (s *Shell) pipeline(elems []pipeElem) {
	statuses := make([]int, len(elems))
	done := make(chan struct{}, len(elems))
	var upstream *file
	for i, e := range elems {
		sub := s.subshell()
		if upstream != nil {
			sub.setFile(0, upstream)
		}
		if i < len(elems)-1 {
			r, w := newPipe()
			sub.setFile(1, w)
			if e.all {
				sub.setFile(2, w.retain())
			}
			upstream = r
		}
		run := func() {
			statuses[i] = sub.process(func() { sub.stmt(e.st) })
			done <- struct{}{}
		}
		if i < len(elems)-1 {
			go run()
		} else {
			run()
		}
	}
	for range elems {
		<-done
	}
	s.checkKilled()
	s.status = statuses[len(statuses)-1]
	if s.opts.pipefail {
		for i := len(statuses) - 1; i >= 0 && s.status == 0; i-- {
			s.status = statuses[i]
		}
	}
	s.checkExit()
}

func (s *Shell) ifClause(c *syntax.IfClause) {
	for ; c != nil; c = c.Else {
		if len(c.Cond) == 0 { // else
			s.stmts(c.Then)
			return
		}
		s.untested(func() { s.stmts(c.Cond) })
		if s.skip != skipNone {
			return
		}
		if s.status == 0 {
			s.stmts(c.Then)
			return
		}
	}
	s.status = 0
}

// loopDone runs one iteration's consequences of break and continue and reports whether the loop ends.
func (s *Shell) loopDone() bool {
	switch s.skip {
	case skipBreak, skipContinue:
		if s.skipCount--; s.skipCount > 0 {
			return true
		}
		ends := s.skip == skipBreak
		s.skip = skipNone
		return ends
	case skipReturn:
		return true
	}
	return false
}

func (s *Shell) whileClause(c *syntax.WhileClause) {
	s.loops++
	defer func() { s.loops-- }()
	status := 0
	for {
		s.untested(func() { s.stmts(c.Cond) })
		if s.skip != skipNone {
			if s.loopDone() {
				break
			}
			continue
		}
		if (s.status == 0) == c.Until {
			break
		}
		s.stmts(c.Do)
		status = s.status
		if s.loopDone() {
			break
		}
	}
	if s.skip != skipReturn {
		s.status = status
	}
}

func (s *Shell) forClause(c *syntax.ForClause) {
	if c.Select {
		s.fatal(2, "syntax error: select is not supported")
	}
	s.loops++
	defer func() { s.loops-- }()
	switch loop := c.Loop.(type) {
	case *syntax.WordIter:
		items := s.params
		if loop.InPos.IsValid() {
			items = s.fields(loop.Items)
		}
		s.status = 0
		for _, item := range items {
			s.set(loop.Name.Value, item)
			s.stmts(c.Do)
			if s.loopDone() {
				return
			}
		}
	case *syntax.CStyleLoop:
		if loop.Init != nil {
			s.arith(loop.Init)
		}
		s.status = 0
		for loop.Cond == nil || s.arith(loop.Cond) != 0 {
			s.stmts(c.Do)
			if s.loopDone() {
				return
			}
			if loop.Post != nil {
				s.arith(loop.Post)
			}
		}
	}
}

func (s *Shell) caseClause(c *syntax.CaseClause) {
	subject := s.word(c.Word)
	status, fall := 0, false
	for _, item := range c.Items {
		hit := fall
		for _, pattern := range item.Patterns {
			hit = hit || glob.Match(s.pattern(pattern), subject)
			if hit {
				break
			}
		}
		if !hit {
			continue
		}
		s.status = 0
		s.stmts(item.Stmts)
		status = s.status
		if s.skip != skipNone || item.Op != syntax.Fallthrough {
			return
		}
		fall = true
	}
	s.status = status
}

// simple runs a simple command: expansion, redirection, assignment, and then a function, a builtin or a command.
func (s *Shell) simple(st *syntax.Stmt, c *syntax.CallExpr) {
	s.substStatus = 0
	fields := s.fields(c.Args)
	if len(fields) == 0 {
		undo, err := s.redirect(st.Redirs)
		defer undo()
		if err != nil {
			s.errorf("%v", err)
			s.status = 1
			s.checkExit()
			return
		}
		for _, as := range c.Assigns {
			name, value := s.assignValue(as)
			s.trace(name + "=" + quoteForTrace(value))
			s.set(name, value)
		}
		s.status = s.substStatus
		s.checkExit()
		return
	}
	s.run(st.Redirs, c.Assigns, fields)
}

// simpleDecl runs export, readonly and local, whose arguments the parser has read as assignments.
func (s *Shell) simpleDecl(st *syntax.Stmt, c *syntax.DeclClause) {
	s.substStatus = 0
	fields := []string{c.Variant.Value}
	for _, as := range c.Args {
		switch {
		case as.Name == nil:
			fields = append(fields, s.fields([]*syntax.Word{as.Value})...)
		case as.Naked:
			fields = append(fields, as.Name.Value)
		default:
			name, value := s.assignValue(as)
			fields = append(fields, name+"="+value)
		}
	}
	s.run(st.Redirs, nil, fields)
}

// assignValue expands one assignment.
func (s *Shell) assignValue(as *syntax.Assign) (name, value string) {
	if as.Array != nil || as.Index != nil {
		s.fatal(2, "syntax error: arrays are not supported")
	}
	name = as.Name.Value
	if as.Value != nil {
		value = s.assignWord(as.Value)
	}
	if as.Append {
		value = s.get(name) + value
	}
	return name, value
}

// run runs a command whose words have been expanded.
func (s *Shell) run(redirs []*syntax.Redirect, assigns []*syntax.Assign, fields []string) {
	name := fields[0]
	body, isFunc := s.funcs[name]
	b, isBuiltin := builtins[name]
	special := isBuiltin && b.special && !isFunc

	undo, err := s.redirect(redirs)
	keep := false
	defer func() {
		if !keep {
			undo()
		}
	}()
	if err != nil {
		s.errorf("%v", err)
		s.status = 1
		if special {
			s.exit(1)
		}
		s.checkExit()
		return
	}
	var restore []func()
	defer func() {
		for i := len(restore) - 1; i >= 0; i-- {
			restore[i]()
		}
	}()
	prefix := ""
	for _, as := range assigns {
		n, value := s.assignValue(as)
		prefix += n + "=" + quoteForTrace(value) + " "
		if special {
			s.set(n, value)
			continue
		}
		old := s.vars[n]
		if old != nil && old.readonly {
			s.fatal(2, "%s: is read only", n)
		}
		s.vars[n] = &variable{value: value, set: true, exported: true}
		restore = append(restore, func() {
			if old == nil {
				delete(s.vars, n)
			} else {
				s.vars[n] = old
			}
		})
	}
	if s.opts.xtrace {
		words := make([]string, len(fields))
		for i, f := range fields {
			words[i] = quoteForTrace(f)
		}
		s.trace(prefix + strings.Join(words, " "))
	}
	switch {
	case isFunc:
		s.callFunction(body, fields[1:])
	case isBuiltin:
		s.status = b.run(s, fields)
		keep = s.keepRedirs
		s.keepRedirs = false
	default:
		s.status = s.external(fields, s.environ())
		s.checkKilled()
	}
	s.checkExit()
}

func (s *Shell) callFunction(body *syntax.Stmt, args []string) {
	s.enter()
	params, loops := s.params, s.loops
	s.params, s.loops = args, 0
	s.locals = append(s.locals, map[string]*variable{})
	defer func() {
		for name, old := range s.locals[len(s.locals)-1] {
			if old == nil {
				delete(s.vars, name)
			} else {
				s.vars[name] = old
			}
		}
		s.locals = s.locals[:len(s.locals)-1]
		s.params, s.loops = params, loops
		s.leave()
	}()
	s.stmt(body)
	if s.skip == skipReturn {
		s.skip = skipNone
	}
}

// trace prints a command for set -x.
func (s *Shell) trace(text string) {
	if s.opts.xtrace {
		io.WriteString(s.stderr(), s.get("PS4")+text+"\n")
	}
}

func quoteForTrace(f string) string {
	if f == "" || strings.ContainsAny(f, " \t\n'\"\\$`*?[]|&;<>()!{}") {
		return "'" + strings.ReplaceAll(f, "'", `'"'"'`) + "'"
	}
	return f
}
