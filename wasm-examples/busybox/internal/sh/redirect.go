package sh

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// redirect applies redirections in order. undo puts the descriptors back as they were; it is never nil and is to be
// called also after an error, which has undone nothing yet.
func (s *Shell) redirect(list []*syntax.Redirect) (undo func(), err error) {
	if len(list) == 0 {
		return func() {}, nil
	}
	saved := map[int]*file{}
	undo = func() {
		for n, old := range saved {
			if cur := s.fds[n]; cur != nil {
				cur.release()
			}
			if old == nil {
				delete(s.fds, n)
			} else {
				s.fds[n] = old
			}
		}
	}
	replace := func(n int, f *file) {
		old := s.fds[n]
		if _, seen := saved[n]; !seen {
			saved[n] = old // the reference moves there
		} else if old != nil {
			old.release()
		}
		if f == nil {
			delete(s.fds, n)
		} else {
			s.fds[n] = f
		}
	}
	for _, rd := range list {
		if err := s.redirectOne(rd, replace); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

func (s *Shell) redirectOne(rd *syntax.Redirect, replace func(int, *file)) error {
	n := 1
	switch rd.Op {
	case syntax.RdrIn, syntax.RdrInOut, syntax.DplIn, syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc:
		n = 0
	}
	if rd.N != nil {
		v, err := strconv.Atoi(rd.N.Value)
		if err != nil || v > 255 {
			return fmt.Errorf("%s: bad file descriptor", rd.N.Value)
		}
		n = v
	}
	switch rd.Op {
	case syntax.Hdoc, syntax.DashHdoc:
		replace(n, textFile(s.heredoc(rd)))
		return nil
	case syntax.WordHdoc:
		replace(n, textFile(s.word(rd.Word)+"\n"))
		return nil
	}
	name := s.word(rd.Word)
	switch rd.Op {
	case syntax.DplIn, syntax.DplOut:
		if name == "-" {
			replace(n, nil)
			return nil
		}
		m, err := strconv.Atoi(name)
		if err != nil {
			if rd.Op == syntax.DplOut && rd.N == nil { // >&file
				return s.openBoth(name, os.O_TRUNC, replace)
			}
			return fmt.Errorf("%s: bad file descriptor", name)
		}
		f := s.fds[m]
		if f == nil {
			return fmt.Errorf("%d: Bad file descriptor", m)
		}
		replace(n, f.retain())
		return nil
	case syntax.RdrIn:
		f, err := s.open(name, os.O_RDONLY)
		if err != nil {
			return err
		}
		replace(n, f)
	case syntax.RdrInOut:
		f, err := s.open(name, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return err
		}
		replace(n, f)
	case syntax.RdrOut:
		if s.opts.noclobber {
			if info, err := os.Stat(proc.Join(s.dir, name)); err == nil && info.Mode().IsRegular() {
				return fmt.Errorf("can't create %s: File exists", name)
			}
		}
		fallthrough
	case syntax.RdrClob:
		f, err := s.open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		replace(n, f)
	case syntax.AppOut:
		f, err := s.open(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
		if err != nil {
			return err
		}
		replace(n, f)
	case syntax.RdrAll:
		return s.openBoth(name, os.O_TRUNC, replace)
	case syntax.AppAll:
		return s.openBoth(name, os.O_APPEND, replace)
	default:
		return errors.New("this redirection is not supported")
	}
	return nil
}

// openBoth is &>file: standard output and standard error.
func (s *Shell) openBoth(name string, flag int, replace func(int, *file)) error {
	f, err := s.open(name, os.O_WRONLY|os.O_CREATE|flag)
	if err != nil {
		return err
	}
	replace(1, f)
	replace(2, f.retain())
	return nil
}

// open opens a file by the shell's own working directory. The usual names under /dev work without a /dev.
func (s *Shell) open(name string, flags int) (*file, error) {
	dup := -1
	switch name {
	case "":
		return nil, errors.New("can't open : no such file")
	case "/dev/null":
		return newFile(strings.NewReader(""), io.Discard, nil), nil
	case "/dev/stdin":
		dup = 0
	case "/dev/stdout":
		dup = 1
	case "/dev/stderr":
		dup = 2
	default:
		if rest, ok := strings.CutPrefix(name, "/dev/fd/"); ok {
			if v, err := strconv.Atoi(rest); err == nil {
				dup = v
			}
		}
	}
	if dup >= 0 && s.fds[dup] != nil {
		return s.fds[dup].retain(), nil
	}
	f, err := os.OpenFile(proc.Join(s.dir, name), flags, 0o666)
	if err == nil && flags&(os.O_WRONLY|os.O_RDWR) == 0 {
		return newFile(f, nil, func() { f.Close() }), nil
	}
	if err == nil && flags&os.O_WRONLY != 0 {
		return newFile(nil, f, func() { f.Close() }), nil
	}
	if err == nil {
		return newFile(f, f, func() { f.Close() }), nil
	}
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case flags&os.O_CREATE == 0 && missing:
		return nil, fmt.Errorf("can't open %s: no such file", name)
	case flags&os.O_CREATE == 0:
		return nil, fmt.Errorf("can't open %s: %s", name, proc.Reason(err))
	case missing:
		return nil, fmt.Errorf("can't create %s: nonexistent directory", name)
	}
	return nil, fmt.Errorf("can't create %s: %s", name, proc.Reason(err))
}

// readFile reads all of a file that the shell can open.
func (s *Shell) readFile(name string) ([]byte, error) {
	f, err := s.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.release()
	return io.ReadAll(stream{s.ctx, f})
}

func textFile(text string) *file { return newFile(strings.NewReader(text), nil, nil) }

// heredoc returns the text of a here-document: literal if any of its delimiter was quoted, and without leading tabs
// after <<-.
func (s *Shell) heredoc(rd *syntax.Redirect) string {
	if rd.Hdoc == nil {
		return ""
	}
	body := rd.Hdoc
	if rd.Op == syntax.DashHdoc {
		body = stripTabs(body)
	}
	for _, part := range rd.Word.Parts {
		lit, ok := part.(*syntax.Lit)
		if ok && !strings.Contains(lit.Value, `\`) {
			continue
		}
		var b strings.Builder
		for _, p := range body.Parts {
			if l, ok := p.(*syntax.Lit); ok {
				b.WriteString(l.Value)
			}
		}
		return b.String()
	}
	return s.document(body)
}

// stripTabs removes the tabs at the start of each line, which may begin after an expansion.
func stripTabs(body *syntax.Word) *syntax.Word {
	out := &syntax.Word{}
	lineStart := true
	for _, part := range body.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			lineStart = false
			out.Parts = append(out.Parts, part)
			continue
		}
		var b strings.Builder
		for _, line := range strings.SplitAfter(lit.Value, "\n") {
			if lineStart {
				line = strings.TrimLeft(line, "\t")
			}
			b.WriteString(line)
			lineStart = strings.HasSuffix(line, "\n")
		}
		out.Parts = append(out.Parts, &syntax.Lit{Value: b.String()})
	}
	return out
}
