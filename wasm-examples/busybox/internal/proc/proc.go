// Package proc is what one in-process command sees of the world: its arguments, environment, working directory and
// standard streams. WASI preview 1 has neither fork nor exec, so every command of a shell script runs as a function call
// on a Proc, often several at a time in one instance.
package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit statuses that POSIX gives a meaning to.
const (
	NotExecutable = 126
	NotFound      = 127
	BrokenPipe    = 128 + 13
)

// ErrBrokenPipe is the error of a write to an in-memory pipe that has no reader left.
var ErrBrokenPipe error = syscall.EPIPE

// Ended is the panic value that unwinds a command, or a whole shell process, to the place that collects its status: the
// in-process stand-in for _exit(2) and for death by SIGPIPE.
type Ended struct{ Status int }

// A Proc is one running command. It belongs to one goroutine; the streams may be shared with other commands.
type Proc struct {
	Ctx    context.Context // done when the command is to be killed
	Args   []string        // Args[0] is the command's name
	Env    []string        // KEY=value
	Dir    string          // absolute working directory
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Start runs p.Args as a command found by PATH look-up and returns its status.
	Start func(p *Proc) int
}

// Main is the body of a command; it returns the exit status.
type Main func(p *Proc) int

// Invoke runs main and turns the death of the command by a broken pipe into its status.
func Invoke(main Main, p *Proc) (status int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case Ended:
			status = r.Status
		default:
			panic(r)
		}
	}()
	q := *p
	q.Stdout, q.Stderr = Writer(p.Stdout), Writer(p.Stderr)
	return main(&q) & 0xff
}

// Writer returns a writer on which a broken pipe ends the command, so that `yes | head` stops without every command
// checking every write.
func Writer(w io.Writer) io.Writer {
	if _, ok := w.(fatalWriter); ok {
		return w
	}
	return fatalWriter{w}
}

type fatalWriter struct{ w io.Writer }

func (f fatalWriter) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err != nil && (errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)) {
		panic(Ended{BrokenPipe})
	}
	return n, err
}

// Command returns a copy of p that runs args with the same streams.
func (p *Proc) Command(args []string) *Proc {
	q := *p
	q.Args = args
	return &q
}

// Path resolves name against the command's working directory.
func (p *Proc) Path(name string) string { return Join(p.Dir, name) }

// Join resolves name against dir. A trailing slash is kept, since it asks for a directory.
func Join(dir, name string) string {
	if name == "" {
		return ""
	}
	out := name
	if !filepath.IsAbs(name) {
		out = dir + "/" + name
	}
	clean := filepath.Clean(out)
	if strings.HasSuffix(name, "/") && clean != "/" {
		return clean + "/"
	}
	return clean
}

// Getenv returns the last value of key, or "".
func (p *Proc) Getenv(key string) string {
	for i := len(p.Env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(p.Env[i], key+"="); ok {
			return v
		}
	}
	return ""
}

// Name is the command's name without its directory.
func (p *Proc) Name() string { return filepath.Base(p.Args[0]) }

// Errorf writes a diagnostic line that starts with the command's name.
func (p *Proc) Errorf(format string, args ...any) {
	io.WriteString(p.Stderr, p.Name()+": "+fmt.Sprintf(format, args...)+"\n")
}

// Usage reports a wrong invocation and returns the status for it.
func (p *Proc) Usage(synopsis string) int {
	io.WriteString(p.Stderr, "Usage: "+p.Name()+" "+synopsis+"\n")
	return 1
}

// Open opens a file for reading; "-" is standard input, and so are the usual names under /dev, which a container's root
// need not have.
func (p *Proc) Open(name string) (io.ReadCloser, error) {
	switch name {
	case "-", "/dev/stdin", "/dev/fd/0":
		return io.NopCloser(p.Stdin), nil
	case "/dev/null":
		return io.NopCloser(strings.NewReader("")), nil
	}
	return os.Open(p.Path(name))
}

// Create opens a file for writing with the given extra flags (os.O_TRUNC or os.O_APPEND).
func (p *Proc) Create(name string, flags int) (io.WriteCloser, error) {
	switch name {
	case "/dev/stdout", "/dev/fd/1":
		return nopCloser{p.Stdout}, nil
	case "/dev/stderr", "/dev/fd/2":
		return nopCloser{p.Stderr}, nil
	case "/dev/null":
		return nopCloser{io.Discard}, nil
	}
	return os.OpenFile(p.Path(name), os.O_WRONLY|os.O_CREATE|flags, 0o666)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Reason is the bare text of an error as strerror(3) has it, without Go's operation and path.
func Reason(err error) string {
	var errno syscall.Errno
	text := ""
	switch {
	case errors.As(err, &errno):
		text = errno.Error()
	case errors.Is(err, fs.ErrNotExist):
		text = "no such file or directory"
	default:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		text = err.Error()
	}
	if text == "" {
		return "error"
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
