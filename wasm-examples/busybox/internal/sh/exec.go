package sh

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// proc is what a command of this shell process gets to see.
func (s *Shell) proc(args, env []string) *proc.Proc {
	return &proc.Proc{
		Ctx: s.ctx, Args: args, Env: env, Dir: s.dir,
		Stdin: s.stdin(), Stdout: stream{s.ctx, s.fds[1]}, Stderr: stream{s.ctx, s.fds[2]},
		Start: s.sys.Start,
	}
}

// external runs a command that is neither function nor builtin.
func (s *Shell) external(args, env []string) int {
	p := s.proc(args, env)
	status, found := s.sys.start(p, s.get("PATH"))
	if !found {
		s.errorf("%s: not found", args[0])
	}
	return status
}

// Start runs p.Args as a command found by the PATH in p's environment, as execvp(3) would.
func (y *System) Start(p *proc.Proc) int {
	status, found := y.start(p, p.Getenv("PATH"))
	if !found {
		p.Errorf("%s: No such file or directory", p.Args[0])
	}
	return status
}

func (y *System) start(p *proc.Proc, searchPath string) (status int, found bool) {
	name := p.Args[0]
	file, main := y.find(name, searchPath, p.Dir)
	switch {
	case main != nil:
		return proc.Invoke(main, p), true
	case file == "":
		return proc.NotFound, false
	}
	return y.runFile(p, file, 0), true
}

// binDirs are the directories in which applets appear to be.
func isBinDir(dir string) bool {
	switch path.Clean(dir) {
	case "/bin", "/usr/bin", "/sbin", "/usr/sbin":
		return true
	}
	return false
}

// find looks a command up: either the path of a file or an applet.
func (y *System) find(name, searchPath, dir string) (file string, main proc.Main) {
	if name == "" {
		return "", nil
	}
	if strings.Contains(name, "/") {
		full := proc.Join(dir, name)
		main := y.Applets[path.Base(name)]
		inBin := main != nil && isBinDir(path.Dir(full))
		if inBin && !filesFirst {
			return "", main
		}
		if _, err := os.Stat(full); err == nil {
			return full, nil
		}
		if inBin {
			return "", main
		}
		return "", nil
	}
	main = y.Applets[name]
	for _, d := range strings.Split(searchPath, ":") {
		if main != nil && !filesFirst && isBinDir(d) {
			return "", main
		}
		full := proc.Join(dir, path.Join(d, name))
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && executable(info) {
			return full, nil
		}
	}
	return "", main
}

// executable reports whether a file may be executed. WASI preview 1 has no file modes, so there every file may.
func executable(info os.FileInfo) bool { return filesFirst || info.Mode()&0o111 != 0 }

// maxInterpreters bounds chains of scripts whose interpreters are scripts, as Linux does.
const maxInterpreters = 4

// runFile interprets a script, by its #! line or as a shell script.
func (y *System) runFile(p *proc.Proc, file string, level int) int {
	info, err := os.Stat(file)
	if err == nil && (info.IsDir() || !executable(info)) {
		p.Errorf("%s: Permission denied", p.Args[0])
		return proc.NotExecutable
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		p.Errorf("%s: %s", p.Args[0], proc.Reason(err))
		return proc.NotExecutable
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	interpreter, isScript := strings.CutPrefix(string(first), "#!")
	if !isScript {
		if bytes.IndexByte(first, 0) >= 0 {
			p.Errorf("%s: Exec format error", p.Args[0])
			return proc.NotExecutable
		}
		return y.script(p, file, text)
	}
	command, arg, hasArg := strings.Cut(strings.TrimSpace(interpreter), " ")
	args := []string{command}
	if hasArg {
		args = append(args, strings.TrimSpace(arg))
	}
	switch base := path.Base(command); {
	case !hasArg && (base == "sh" || base == "ash" || base == "dash" || base == "bash"):
		return y.script(p, file, text)
	case base == "bash" || base == "dash":
		args[0] = "/bin/sh"
	}
	if level >= maxInterpreters {
		p.Errorf("%s: Too many levels of symbolic links", p.Args[0])
		return proc.NotExecutable
	}
	q := p.Command(append(append(args, file), p.Args[1:]...))
	target, main := y.find(q.Args[0], "", p.Dir)
	switch {
	case main != nil:
		return proc.Invoke(main, q)
	case target != "":
		return y.runFile(q, target, level+1)
	}
	p.Errorf("%s: not found", p.Args[0])
	return proc.NotFound
}

// script runs text as a shell script in a new shell process with p's environment.
func (y *System) script(p *proc.Proc, file string, text []byte) int {
	name := p.Args[0]
	if !strings.Contains(name, "/") {
		name = file
	}
	s := New(y, p.Command([]string{name}))
	s.script = true
	s.params = p.Args[1:]
	return s.process(func() { s.runScript(&lineReader{r: bytes.NewReader(text)}, false) })
}

const synopsis = "[-abCefmnuvx] [-o OPTION] [-c COMMANDS [NAME [ARG…]] | FILE [ARG…]]"

// Main is the `sh` command.
func (y *System) Main(p *proc.Proc) int {
	s := New(y, p)
	command, stdin, interactive := false, false, false
	rest, _, bad := s.opts.parse(p.Args[1:], func(letter byte, on bool) bool {
		switch letter {
		case 'c':
			command = on
		case 's':
			stdin = on
		case 'i':
			interactive = on
		case 'l':
		default:
			return false
		}
		return true
	})
	if bad != "" {
		p.Errorf("illegal option %s", bad)
		return p.Usage(synopsis) + 1
	}
	var src io.Reader
	switch {
	case command:
		if len(rest) == 0 {
			p.Errorf("-c requires an argument")
			return 2
		}
		src = strings.NewReader(rest[0])
		if rest = rest[1:]; len(rest) > 0 {
			s.arg0, rest = rest[0], rest[1:]
		}
		interactive = false
	case stdin || len(rest) == 0:
		src = s.stdin()
		interactive = interactive || isTerminal(p)
	default:
		text, err := s.readFile(rest[0])
		if err != nil {
			p.Errorf("%v", err)
			return 2
		}
		src = bytes.NewReader(text)
		s.arg0, s.script, rest = rest[0], true, rest[1:]
	}
	s.params = rest
	return s.process(func() { s.runScript(&lineReader{r: src}, interactive) })
}

// isTerminal guesses whether a person sits at the other end: WASI preview 1 can say that a stream is a character
// device, which /dev/null is too, so TERM has to be set as well.
func isTerminal(p *proc.Proc) bool {
	if p.Getenv("TERM") == "" {
		return false
	}
	for _, f := range []*os.File{os.Stdin, os.Stderr} {
		if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return false
		}
	}
	return true
}
