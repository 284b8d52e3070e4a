package applet

import (
	archive "archive/tar"
	"bufio"
	"compress/gzip"
	b64 "encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

func base64(p *proc.Proc) int {
	f, rest, ok := parse(p, "dw:", map[string]byte{"decode": 'd', "wrap": 'w'})
	if !ok {
		return 1
	}
	wrap := int64(76)
	if v, ok := f.value('w'); ok {
		if wrap, ok = number(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
	}
	return each(p, rest, func(_ string, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if f.has('d') {
			clean := strings.Map(func(c rune) rune {
				if c == ' ' || c >= '\t' && c <= '\r' {
					return -1
				}
				return c
			}, string(data))
			out, err := b64.StdEncoding.DecodeString(clean)
			p.Stdout.Write(out)
			if err != nil {
				return errors.New("truncated input")
			}
			return nil
		}
		text := b64.StdEncoding.EncodeToString(data)
		var b strings.Builder
		for wrap > 0 && int64(len(text)) > wrap {
			b.WriteString(text[:wrap] + "\n")
			text = text[wrap:]
		}
		if text != "" {
			b.WriteString(text)
			if wrap > 0 {
				b.WriteByte('\n')
			}
		}
		_, err = io.WriteString(p.Stdout, b.String())
		return err
	})
}

func sha256sum(p *proc.Proc) int {
	f, rest, ok := parse(p, "cswb", map[string]byte{"check": 'c', "status": 's'})
	if !ok {
		return 1
	}
	if !f.has('c') {
		return each(p, rest, func(name string, r io.Reader) error {
			d, err := sha256Hex(r)
			if err == nil {
				io.WriteString(p.Stdout, d+"  "+name+"\n")
			}
			return err
		})
	}
	bad := 0
	lines, status := readLines(p, rest, '\n')
	for _, line := range lines {
		want, name, ok := strings.Cut(line, " ")
		if !ok || len(name) < 2 {
			continue
		}
		name = name[1:]
		verdict := "OK"
		if r, err := p.Open(name); err != nil {
			p.Errorf("can't open '%s': %s", name, proc.Reason(err))
			verdict = "FAILED"
		} else {
			if d, err := sha256Hex(r); err != nil || d != strings.ToLower(want) {
				verdict = "FAILED"
			}
			r.Close()
		}
		if verdict != "OK" {
			bad++
			status = 1
		}
		if !f.has('s') {
			io.WriteString(p.Stdout, name+": "+verdict+"\n")
		}
	}
	if bad > 0 && !f.has('s') {
		p.Errorf("WARNING: %d of %d computed checksums did NOT match", bad, len(lines))
	}
	return status
}

// tar is what kubectl cp and image builds need: c, x and t with f, z, C, m, p, o, O and v.
func tar(p *proc.Proc) int {
	args := append([]string(nil), p.Args...)
	if len(args) > 1 && !strings.HasPrefix(args[1], "-") { // the old style: tar xf file
		args[1] = "-" + args[1]
	}
	f, rest, ok := parse(p.Command(args), "ctxf:C:zvmpohkOT:X:", map[string]byte{"create": 'c', "extract": 'x', "list": 't', "file": 'f',
		"directory": 'C', "gzip": 'z', "verbose": 'v', "no-same-owner": 'o', "no-same-permissions": 'o', "exclude": 'X', "to-stdout": 'O',
		"strip-components": 'N'})
	if !ok {
		return 1
	}
	a := &archiver{p: p, f: f, dir: p.Dir, file: "-"}
	if v, ok := f.value('f'); ok {
		a.file = v
	}
	for _, dir := range f.values['C'] {
		a.dir = proc.Join(a.dir, dir)
	}
	for _, name := range f.values['T'] {
		lines, status := readLines(p, []string{name}, '\n')
		if status != 0 {
			return 1
		}
		rest = append(rest, lines...)
	}
	var err error
	switch {
	case f.has('c'):
		if len(rest) == 0 {
			err = errors.New("empty archive")
		} else {
			err = a.create(rest)
		}
	case f.has('x') || f.has('t'):
		err = a.read(rest)
	default:
		return p.Usage("c|x|t [-zvOmpo] [-f FILE] [-C DIR] [FILE]…")
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return a.status
}

type archiver struct {
	p      *proc.Proc
	f      *flags
	dir    string
	file   string
	status int
}

func (a *archiver) create(names []string) error {
	out := io.Writer(a.p.Stdout)
	if a.file != "-" {
		file, err := a.p.Create(a.file, os.O_TRUNC)
		if err != nil {
			return errors.New("can't open '" + a.file + "': " + proc.Reason(err))
		}
		defer file.Close()
		out = file
	}
	if a.f.has('z') {
		z := gzip.NewWriter(out)
		defer z.Close()
		out = z
	}
	w := archive.NewWriter(out)
	for _, name := range names {
		if err := a.add(w, name); err != nil {
			return err
		}
	}
	return w.Close()
}

func (a *archiver) excluded(name string) bool {
	for _, pattern := range a.f.values['X'] {
		if globMatch(pattern, name, false) || globMatch(pattern, path.Base(name), false) {
			return true
		}
	}
	return false
}

func (a *archiver) add(w *archive.Writer, name string) error {
	if a.excluded(name) {
		return nil
	}
	full := proc.Join(a.dir, name)
	stat := os.Lstat
	if a.f.has('h') {
		stat = os.Stat
	}
	info, err := stat(full)
	if err != nil {
		a.p.Errorf("%s: %s", name, proc.Reason(err))
		a.status = 1
		return nil
	}
	h := &archive.Header{Name: strings.TrimLeft(name, "/"), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name, h.Mode = archive.TypeDir, strings.TrimRight(h.Name, "/")+"/", h.Mode|0o700
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = archive.TypeSymlink
		if h.Linkname, err = os.Readlink(full); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		h.Typeflag, h.Size, h.Mode = archive.TypeReg, info.Size(), int64(createMode(info))&^0o022
	default:
		return nil
	}
	if a.f.has('v') {
		out := a.p.Stdout
		if a.file == "-" {
			out = a.p.Stderr
		}
		io.WriteString(out, h.Name+"\n")
	}
	if h.Name != "/" {
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	if h.Typeflag == archive.TypeReg {
		file, err := os.Open(full)
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := io.CopyN(w, file, h.Size); err != nil {
			return errors.New(name + ": short read")
		}
	}
	if h.Typeflag != archive.TypeDir {
		return nil
	}
	entries, err := os.ReadDir(full)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := a.add(w, strings.TrimRight(name, "/")+"/"+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiver) read(wanted []string) error {
	in, err := a.p.Open(a.file)
	if err != nil {
		return errors.New("can't open '" + a.file + "': " + proc.Reason(err))
	}
	defer in.Close()
	buffered := bufio.NewReader(in)
	src := io.Reader(buffered)
	if magic, _ := buffered.Peek(2); a.f.has('z') || len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		if src, err = gzip.NewReader(src); err != nil {
			return errors.New("invalid magic")
		}
	}
	if a.f.has('x') && !isDir(a.dir) {
		return errors.New("can't change directory to '" + a.dir + "': No such file or directory")
	}
	r := archive.NewReader(src)
	found := map[string]bool{}
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.New("short read or invalid tar header")
		}
		name := strings.TrimLeft(h.Name, "/")
		if h.Typeflag == archive.TypeXGlobalHeader || a.excluded(name) || !selectedName(name, wanted, found) {
			continue
		}
		if a.f.has('t') || a.f.has('v') {
			line := name
			if a.f.has('t') && a.f.has('v') {
				line = modeString(h.FileInfo().Mode()) + " root/root " + padLeft(int(h.Size), 9) + " " +
					strftime("%Y-%m-%d %H:%M:%S", h.ModTime.UTC()) + " " + name
				if h.Linkname != "" {
					line += " -> " + h.Linkname
				}
			}
			io.WriteString(a.p.Stdout, line+"\n")
		}
		if a.f.has('t') {
			continue
		}
		if a.f.has('O') {
			if _, err := io.Copy(onlyWriter{a.p.Stdout}, r); err != nil {
				return err
			}
			continue
		}
		if err := a.extract(r, h, name); err != nil {
			a.p.Errorf("%s: %s", name, proc.Reason(err))
			a.status = 1
		}
	}
	io.Copy(io.Discard, src) // what pads the archive
	for _, w := range wanted {
		if !found[strings.Trim(w, "/")] {
			a.p.Errorf("%s: not found in archive", w)
			a.status = 1
		}
	}
	return nil
}

func selectedName(name string, wanted []string, found map[string]bool) bool {
	if len(wanted) == 0 {
		return true
	}
	for _, w := range wanted {
		w = strings.Trim(w, "/")
		if clean := strings.TrimRight(name, "/"); clean == w || strings.HasPrefix(clean, w+"/") {
			found[w] = true
			return true
		}
	}
	return false
}

// extract writes one member. A name that would leave the directory, also through a symbolic link made by an earlier
// member, is refused.
func (a *archiver) extract(r io.Reader, h *archive.Header, name string) error {
	for _, elem := range strings.Split(name, "/") {
		if elem == ".." {
			return errors.New("name with '..' skipped")
		}
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	target := strings.TrimRight(filepath.Clean(name), "/")
	if target == "." || target == "" {
		return nil
	}
	if parent := filepath.Dir(target); parent != "." {
		if err := root.MkdirAll(parent, 0o777); err != nil {
			return err
		}
	}
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case archive.TypeDir:
		if err := root.Mkdir(target, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case archive.TypeSymlink:
		root.Remove(target)
		return root.Symlink(h.Linkname, target)
	case archive.TypeLink:
		root.Remove(target)
		return root.Link(strings.TrimLeft(h.Linkname, "/"), target)
	case archive.TypeReg:
	default:
		return errors.New("unsupported file type skipped")
	}
	root.Remove(target)
	file, err := root.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil && !a.f.has('m') {
		root.Chtimes(target, h.ModTime, h.ModTime)
	}
	return err
}
