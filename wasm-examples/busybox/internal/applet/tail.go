package applet

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// followInterval is how often tail -f looks: WASI preview 1 has nothing that would tell of a change.
const followInterval = 250 * time.Millisecond

type tailOptions struct {
	count     int64
	byBytes   bool
	fromStart bool // count from the start of the file, 1 being the first
}

func tail(p *proc.Proc) int {
	args := append([]string(nil), p.Args...)
	if len(args) > 1 && len(args[1]) > 1 && args[1][0] == '+' {
		args[1] = "-n" + args[1]
	}
	f, rest, ok := parse(countArgs(p.Command(args)), "n:c:fFqvs:", map[string]byte{"lines": 'n', "bytes": 'c', "follow": 'f', "retry": 'F'})
	if !ok {
		return 1
	}
	opts := tailOptions{count: 10}
	for _, letter := range f.order {
		if letter != 'n' && letter != 'c' {
			continue
		}
		v, _ := f.value(letter)
		opts.byBytes = letter == 'c'
		v, opts.fromStart = strings.CutPrefix(v, "+")
		v = strings.TrimPrefix(v, "-")
		if opts.count, ok = number(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
	}
	interval := followInterval
	if v, ok := f.value('s'); ok {
		if interval, ok = duration(v); !ok {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
		interval = max(interval, 10*time.Millisecond)
	}
	if len(rest) == 0 {
		rest = []string{"-"}
	}
	t := &tailer{p: p, opts: opts, titles: (len(rest) > 1 || f.has('v')) && !f.has('q')}
	defer t.close()
	status := 0
	for _, name := range rest {
		file := &tailed{name: name}
		if !t.open(file) {
			status = 1
			if !f.has('F') {
				continue
			}
		} else if err := t.start(file); err != nil {
			p.Errorf("%s: %s", name, proc.Reason(err))
			status = 1
			continue
		}
		t.files = append(t.files, file)
	}
	if len(t.files) == 0 {
		p.Errorf("no files")
		return status
	}
	if !f.has('f') && !f.has('F') {
		return status
	}
	for pause(p, interval) {
		for _, file := range t.files {
			t.poll(file, f.has('F'))
		}
	}
	return 128 + 15
}

type tailed struct {
	name   string
	file   *os.File // nil for standard input, and while the file does not exist
	r      io.Reader
	offset int64
}

type tailer struct {
	p      *proc.Proc
	opts   tailOptions
	files  []*tailed
	titles bool
	last   *tailed // whose output was printed last
	shown  bool
}

func (t *tailer) close() {
	for _, f := range t.files {
		if f.file != nil {
			f.file.Close()
		}
	}
}

func (t *tailer) open(f *tailed) bool {
	if f.name == "-" {
		f.r = t.p.Stdin
		return true
	}
	file, err := os.Open(t.p.Path(f.name))
	if err != nil {
		t.p.Errorf("can't open '%s': %s", f.name, proc.Reason(err))
		return false
	}
	f.file, f.r, f.offset = file, file, 0
	return true
}

// title says whose output follows, when it changes.
func (t *tailer) title(f *tailed) {
	if t.titles && t.last != f {
		title(t.p, f.name, !t.shown)
		t.shown = true
	}
	t.last = f
}

// start prints the part of the file that the options ask for and leaves the offset at its end.
func (t *tailer) start(f *tailed) error {
	t.title(f)
	r := bufio.NewReaderSize(f.r, 32<<10)
	var err error
	switch {
	case t.opts.fromStart && t.opts.byBytes:
		_, err = io.CopyN(io.Discard, r, max(0, t.opts.count-1))
	case t.opts.fromStart:
		for n := int64(1); n < t.opts.count && err == nil; n++ {
			err = skipLine(r)
		}
	default:
		return t.startFromEnd(f, r)
	}
	if err == nil {
		_, err = io.Copy(onlyWriter{t.p.Stdout}, r)
	}
	if err == io.EOF {
		err = nil
	}
	f.remember()
	return err
}

func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if err != bufio.ErrBufferFull {
			return err
		}
	}
}

// tailWindow bounds what is kept of a file that is read through; a seekable file is read backwards instead.
const tailWindow = 64 << 10

func (t *tailer) startFromEnd(f *tailed, r io.Reader) error {
	var kept []byte
	if f.file != nil {
		info, err := f.file.Stat()
		if err == nil && info.Mode().IsRegular() {
			for window := int64(tailWindow); ; window *= 4 {
				from := max(0, info.Size()-window)
				kept = make([]byte, info.Size()-from)
				n, err := f.file.ReadAt(kept, from)
				if err != nil && err != io.EOF {
					return err
				}
				kept = kept[:n]
				if start, enough := t.lastPart(kept); enough || from == 0 {
					t.p.Stdout.Write(kept[start:])
					f.offset = from + int64(n)
					return nil
				}
			}
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		if len(kept) > tailWindow {
			if start, enough := t.lastPart(kept); enough && start > 0 {
				kept = append(kept[:0], kept[start:]...)
			}
		}
		if err != nil {
			start, _ := t.lastPart(kept)
			t.p.Stdout.Write(kept[start:])
			f.remember()
			if err == io.EOF {
				err = nil
			}
			return err
		}
	}
}

// lastPart finds where the wanted end of data starts, and whether data was certainly long enough to tell.
func (t *tailer) lastPart(data []byte) (start int, enough bool) {
	if t.opts.byBytes {
		start = len(data) - int(min(t.opts.count, int64(len(data))))
		return start, start > 0
	}
	if t.opts.count == 0 {
		return len(data), true
	}
	end := len(data)
	if end > 0 && data[end-1] == '\n' {
		end--
	}
	for n := int64(0); ; n++ {
		i := bytes.LastIndexByte(data[:end], '\n')
		if i < 0 {
			return 0, false
		}
		if n+1 == t.opts.count {
			return i + 1, true
		}
		end = i
	}
}

func (f *tailed) remember() {
	if f.file != nil {
		f.offset, _ = f.file.Seek(0, io.SeekCurrent)
	}
}

// poll prints what a file has grown by. byName: the name counts, so that a file that was rotated away is replaced.
func (t *tailer) poll(f *tailed, byName bool) {
	if f.name == "-" {
		return
	}
	if byName {
		byPath, err := os.Stat(t.p.Path(f.name))
		if f.file == nil {
			if errors.Is(err, fs.ErrNotExist) || !t.open(f) {
				return
			}
			t.p.Errorf("%s has appeared; following end of new file", f.name)
		} else if byOpen, ferr := f.file.Stat(); err == nil && ferr == nil && !os.SameFile(byPath, byOpen) {
			t.copy(f)
			f.file.Close()
			f.file = nil
			if !t.open(f) {
				return
			}
			t.p.Errorf("%s has been replaced; following end of new file", f.name)
		}
	}
	if info, err := f.file.Stat(); err == nil && info.Size() < f.offset {
		t.p.Errorf("%s: file truncated", f.name)
		f.offset = 0
	}
	t.copy(f)
}

func (t *tailer) copy(f *tailed) {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.file.ReadAt(buf, f.offset)
		if n > 0 {
			t.title(f)
			t.p.Stdout.Write(buf[:n])
			f.offset += int64(n)
		}
		if err != nil || n == 0 {
			return
		}
	}
}
