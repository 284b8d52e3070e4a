package inproc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

const (
	// maxProgram is the largest module that a command may be read from. It lies in
	// a file that a guest may have made.
	maxProgram = 64 << 20
	// maxPrograms is how many such modules stay compiled for a container.
	maxPrograms = 4
	maxShebang  = 256 // bytes of a script's first line, as Linux has it
	maxScripts  = 4   // scripts whose interpreter is a script

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// program is what a command stands for.
type program struct {
	module  *wasm.Module
	args    []string
	release func()
}

// lookUp finds the program of a command, as execvp(3) does in the container:
// through $PATH if it is a bare name, else as a path from the working directory. A
// file is a module, or a script whose interpreter is then looked up.
//
// What is no file may be the image's module, which lies in no file system: under
// its own name; under that which the container was started with; and, where that
// is another one, under any. Such a module goes by its argv[0], as busybox does,
// and says itself what it is not. An *ExecError says why there is none.
func (g *guest) lookUp(ctx context.Context, command []string) (program, error) {
	if len(command) == 0 || command[0] == "" {
		return program{}, &sandbox.ExecError{Code: 127, Err: errors.New("no command specified")}
	}
	args := command
	for range maxScripts {
		file, name, err := g.find(args[0])
		if err != nil {
			if g.isOwn(args[0]) {
				return program{module: g.module, args: args, release: func() {}}, nil
			}
			return program{}, err
		}
		module, interpreter, err := g.load(ctx, file)
		switch {
		case ctx.Err() != nil:
			return program{}, context.Cause(ctx)
		case err != nil:
			return program{}, &sandbox.ExecError{Code: 126, Err: &briefError{fmt.Errorf("exec %s: %w", name, err)}}
		case module != nil:
			return program{module: module, args: args, release: module.Release}, nil
		}
		args = append(interpreter, append([]string{name}, args[1:]...)...)
	}
	return program{}, &sandbox.ExecError{Code: 126, Err: fmt.Errorf("exec %s: too many levels of symbolic links", clip(command[0], engineMessageBytes))}
}

// find opens the file that a command names.
func (g *guest) find(command string) (f *wasip1.File, name string, err error) {
	shown := clip(command, engineMessageBytes)
	if strings.Contains(command, "/") {
		name = command
		if !path.IsAbs(name) {
			name = g.config.WorkingDir + "/" + name
		}
		f, err := g.process.OpenFile(name)
		switch {
		case err == nil:
			return f, name, nil
		case errors.Is(err, wasip1.ErrnoACCES):
			return nil, "", &sandbox.ExecError{Code: 126, Err: fmt.Errorf("exec: %q: permission denied", shown)}
		}
		return nil, "", &sandbox.ExecError{Code: 127, Err: fmt.Errorf("exec: %q: stat %s: no such file or directory", shown, shown)}
	}
	for dir := range strings.SplitSeq(g.searchPath(), ":") {
		name := path.Join(g.config.WorkingDir, dir, command)
		if path.IsAbs(dir) {
			name = path.Join(dir, command)
		}
		if f, err := g.process.OpenFile(name); err == nil {
			return f, name, nil
		}
	}
	return nil, "", &sandbox.ExecError{Code: 127, Err: fmt.Errorf("exec: %q: executable file not found in $PATH", shown)}
}

func (g *guest) searchPath() string {
	for _, e := range g.config.Env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			return value
		}
	}
	return defaultPath
}

// multicall are programs that are known to go by their argv[0], or by their
// first argument where that is their own name.
var multicall = map[string]bool{"busybox": true, "toybox": true, "coreutils": true}

// isOwn says whether a command that is no file is the image's module.
func (g *guest) isOwn(command string) bool {
	base := func(s string) string { return strings.TrimSuffix(path.Base(s), ".wasm") }
	own, started := base(g.config.Program), base(g.config.Args[0])
	name := base(command)
	return name == own || name == started || multicall[own] || g.config.Program != "" && started != own
}

// load reads a file: either a module, compiled, or the words of a script's
// interpreter. It closes the file.
func (g *guest) load(ctx context.Context, f *wasip1.File) (_ *wasm.Module, interpreter []string, _ error) {
	defer f.Close()
	head := make([]byte, maxShebang)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, ended := bytes.Cut(line, []byte("\n"))
		name, arg, more := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name == "" || !ended && n == maxShebang {
			return nil, nil, errFormat
		}
		if interpreter = []string{name}; more {
			interpreter = append(interpreter, strings.TrimSpace(arg))
		}
		return nil, interpreter, nil
	}
	if !bytes.HasPrefix(head, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, nil, errFormat
	}
	m, err := g.programs.module(ctx, g.sandbox.cfg.Engine, f.ID(), io.NewSectionReader(f, 0, maxProgram+1), func(module []byte) error {
		return g.sandbox.cfg.Images.Admit(g.config.Pod.Namespace, module)
	})
	return m, nil, err
}

var (
	errFormat   = errors.New("exec format error")
	errTooLarge = fmt.Errorf("the module is larger than %d bytes", maxProgram)
)

// programs keeps a few modules compiled that commands have been read from, so
// that a probe does not read one again each time. The zero value is ready.
type programs struct {
	mu   sync.Mutex
	list []loaded // the latest last
}

type loaded struct {
	id     wasip1.FileID
	module *wasm.Module
}

// module compiles the module in a file, by the digest of its content, if admit has
// nothing against it. The caller releases it.
func (p *programs) module(ctx context.Context, engine *wasm.Engine, id wasip1.FileID, r io.Reader, admit func([]byte) error) (*wasm.Module, error) {
	p.mu.Lock()
	for _, l := range p.list {
		if l.id == id {
			digest := l.module.Digest()
			p.mu.Unlock()
			// It is there already, or was let go of just now.
			return compile(ctx, engine, digest, func() ([]byte, error) { return readProgram(r) })
		}
	}
	p.mu.Unlock()
	b, err := readProgram(r)
	if err == nil {
		err = admit(b)
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	m, err := compile(ctx, engine, digest, func() ([]byte, error) { return b, nil })
	if err != nil {
		return nil, err
	}
	kept, err := compile(ctx, engine, digest, func() ([]byte, error) { return b, nil })
	if err == nil {
		p.keep(loaded{id, kept})
	}
	return m, nil
}

func readProgram(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(r)
	if err == nil && len(b) > maxProgram {
		err = errTooLarge
	}
	return b, err
}

func (p *programs) keep(l loaded) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, l)
	if len(p.list) > maxPrograms {
		p.list[0].module.Release()
		p.list = append(p.list[:0:0], p.list[1:]...)
	}
}

func (p *programs) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.list {
		l.module.Release()
	}
	p.list = nil
}
