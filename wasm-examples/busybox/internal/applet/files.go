package applet

import (
	"context"
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

func withTimeout(p *proc.Proc, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.Ctx, d)
}

func cat(p *proc.Proc) int {
	f, rest, ok := parse(p, "nbuevAETts", nil)
	if !ok {
		return 1
	}
	number := f.has('n') || f.has('b')
	show := visible{
		tabs:    f.has('T') || f.has('t') || f.has('A'),
		ends:    f.has('E') || f.has('e') || f.has('A'),
		control: f.has('v') || f.has('e') || f.has('t') || f.has('A'),
	}
	n := 0
	return each(p, rest, func(_ string, r io.Reader) error {
		if !number && show == (visible{}) {
			_, err := io.Copy(onlyWriter{p.Stdout}, r)
			return err
		}
		t := newText(p, r)
		defer t.Flush()
		for {
			line, ended, err := t.line()
			if err != nil {
				return err
			}
			if f.has('n') && !f.has('b') || number && len(line) > 0 {
				n++
				t.WriteString(padLeft(n, 6) + "\t")
			}
			show.write(t, line)
			if ended && show.ends {
				t.WriteByte('$')
			}
			if ended || number {
				t.WriteByte('\n')
			}
		}
	})
}

// visible is what cat -v, -e, -t and -A make visible.
type visible struct{ tabs, ends, control bool }

func (v visible) write(t *text, line []byte) {
	for _, c := range line {
		if c == '\t' && !v.tabs || !v.control && c != '\t' {
			t.WriteByte(c)
			continue
		}
		if c >= 0x80 {
			t.WriteString("M-")
			c -= 0x80
		}
		switch {
		case c < ' ':
			t.WriteString("^" + string(c+'@'))
		case c == 0x7f:
			t.WriteString("^?")
		default:
			t.WriteByte(c)
		}
	}
}

// onlyWriter hides ReadFrom, whose splice(2) and sendfile(2) paths bypass the writer.
type onlyWriter struct{ io.Writer }

func touch(p *proc.Proc) int {
	f, rest, ok := parse(p, "camhd:t:r:", map[string]byte{"no-create": 'c'})
	if !ok || len(rest) == 0 {
		return p.Usage("[-cham] [-d DATE] [-r FILE] FILE…")
	}
	when := time.Now()
	if ref, ok := f.value('r'); ok {
		info, err := os.Stat(p.Path(ref))
		if err != nil {
			p.Errorf("%s: %s", ref, proc.Reason(err))
			return 1
		}
		when = info.ModTime()
	}
	for _, letter := range []byte{'d', 't'} {
		if text, ok := f.value(letter); ok {
			if when, ok = parseDate(text); !ok {
				p.Errorf("invalid date '%s'", text)
				return 1
			}
		}
	}
	status := 0
	for _, name := range rest {
		full := p.Path(name)
		err := os.Chtimes(full, when, when)
		if errors.Is(err, fs.ErrNotExist) && !f.has('c') {
			var file *os.File
			if file, err = os.OpenFile(full, os.O_WRONLY|os.O_CREATE, 0o666); err == nil {
				file.Close()
				if f.has('d') || f.has('t') || f.has('r') {
					err = os.Chtimes(full, when, when)
				}
			}
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			p.Errorf("%s: %s", name, proc.Reason(err))
			status = 1
		}
	}
	return status
}

func rm(p *proc.Proc) int {
	f, rest, ok := parse(p, "rRfiv", map[string]byte{"recursive": 'r', "force": 'f'})
	if !ok {
		return 1
	}
	if len(rest) == 0 {
		if f.has('f') {
			return 0
		}
		return p.Usage("[-irf] FILE…")
	}
	recursive := f.has('r') || f.has('R')
	status := 0
	for _, name := range rest {
		if base := filepath.Base(name); base == "." || base == ".." {
			p.Errorf("can't remove '%s': Invalid argument", name)
			status = 1
			continue
		}
		full := p.Path(name)
		info, err := os.Lstat(strings.TrimRight(full, "/"))
		switch {
		case err == nil && full == "/":
			err = fs.ErrPermission
		case err == nil && info.IsDir() && !recursive:
			p.Errorf("'%s' is a directory", name)
			status = 1
			continue
		case err == nil && recursive:
			err = os.RemoveAll(full)
		case err == nil:
			err = os.Remove(full)
		}
		if err != nil && !(f.has('f') && errors.Is(err, fs.ErrNotExist)) {
			p.Errorf("can't remove '%s': %s", name, proc.Reason(err))
			status = 1
		}
	}
	return status
}

func mkdir(p *proc.Proc) int {
	f, rest, ok := parse(p, "pm:v", map[string]byte{"parents": 'p'})
	if !ok || len(rest) == 0 {
		return p.Usage("[-m MODE] [-p] DIRECTORY…")
	}
	status := 0
	for _, name := range rest {
		full := strings.TrimRight(p.Path(name), "/")
		var err error
		if f.has('p') {
			err = os.MkdirAll(full, 0o777)
		} else {
			err = os.Mkdir(full, 0o777)
		}
		if err != nil {
			p.Errorf("can't create directory '%s': %s", name, proc.Reason(err))
			status = 1
		}
	}
	return status
}

func rmdir(p *proc.Proc) int {
	f, rest, ok := parse(p, "p", map[string]byte{"parents": 'p', "ignore-fail-on-non-empty": 'I'})
	if !ok || len(rest) == 0 {
		return p.Usage("[-p] DIRECTORY…")
	}
	status := 0
	for _, name := range rest {
		for dir := strings.TrimRight(name, "/"); dir != "" && dir != "." && dir != "/"; dir = filepath.Dir(dir) {
			full := p.Path(dir)
			info, err := os.Lstat(full)
			if err == nil && !info.IsDir() {
				p.Errorf("'%s': Not a directory", dir)
				status = 1
				break
			}
			if err == nil {
				err = os.Remove(full)
			}
			if err != nil {
				if !f.has('I') {
					p.Errorf("'%s': %s", dir, proc.Reason(err))
					status = 1
				}
				break
			}
			if !f.has('p') {
				break
			}
		}
	}
	return status
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// targets pairs sources with destinations, for cp, mv and ln.
func targets(p *proc.Proc, f *flags, rest []string) (pairs [][2]string, ok bool) {
	dir, toDir := f.value('t')
	if !toDir {
		if len(rest) < 2 {
			return nil, false
		}
		dir, rest = rest[len(rest)-1], rest[:len(rest)-1]
		toDir = !f.has('T') && isDir(p.Path(dir))
		if !toDir && len(rest) > 1 {
			p.Errorf("target '%s' is not a directory", dir)
			return nil, true
		}
	}
	for _, src := range rest {
		dst := dir
		if toDir {
			dst = strings.TrimRight(dir, "/") + "/" + filepath.Base(src)
		}
		pairs = append(pairs, [2]string{src, dst})
	}
	return pairs, true
}

func cp(p *proc.Proc) int {
	f, rest, ok := parse(p, "aRrdpfinuLHPTt:v", map[string]byte{"recursive": 'r', "force": 'f', "archive": 'a'})
	if !ok {
		return 1
	}
	pairs, ok := targets(p, f, rest)
	if !ok {
		return p.Usage("[-arPLHpfinuT] SOURCE… DEST")
	}
	if len(pairs) == 0 {
		return 1
	}
	c := copier{p: p, recursive: f.has('r') || f.has('R') || f.has('a'), keepLinks: f.has('a') || f.has('d') || f.has('P'),
		times: f.has('a') || f.has('p'), noClobber: f.has('n')}
	if c.recursive && !f.has('L') && !f.has('H') {
		c.keepLinks = true
	}
	status := 0
	for _, pair := range pairs {
		if !c.copy(pair[0], pair[1]) {
			status = 1
		}
	}
	return status
}

type copier struct {
	p                                      *proc.Proc
	recursive, keepLinks, times, noClobber bool
}

func (c *copier) fail(format string, args ...any) bool {
	c.p.Errorf(format, args...)
	return false
}

func (c *copier) copy(src, dst string) bool {
	from, to := c.p.Path(src), c.p.Path(dst)
	stat := os.Stat
	if c.keepLinks {
		stat = os.Lstat
	}
	if src == "/dev/stdin" || src == "/dev/null" {
		return c.data(src, dst, 0o666)
	}
	info, err := stat(from)
	if err != nil {
		return c.fail("can't stat '%s': %s", src, proc.Reason(err))
	}
	if old, err := os.Stat(to); err == nil {
		if os.SameFile(info, old) {
			return c.fail("'%s' and '%s' are the same file", src, dst)
		}
		if c.noClobber && !info.IsDir() {
			return true
		}
	}
	good := true
	switch {
	case info.IsDir():
		if !c.recursive {
			return c.fail("omitting directory '%s'", src)
		}
		if strings.HasPrefix(strings.TrimRight(to, "/")+"/", strings.TrimRight(from, "/")+"/") {
			return c.fail("recursion detected, omitting directory '%s'", src)
		}
		if err := os.MkdirAll(to, info.Mode().Perm()|0o700); err != nil {
			return c.fail("can't create directory '%s': %s", dst, proc.Reason(err))
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			return c.fail("can't open '%s': %s", src, proc.Reason(err))
		}
		for _, e := range entries {
			good = c.copy(src+"/"+e.Name(), dst+"/"+e.Name()) && good
		}
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err == nil {
			os.Remove(to)
			err = os.Symlink(link, to)
		}
		if err != nil {
			return c.fail("can't create symlink '%s': %s", dst, proc.Reason(err))
		}
		return true
	default:
		good = c.data(src, dst, createMode(info))
	}
	if good && c.times {
		os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	return good
}

// createMode is the mode for a copy. WASI preview 1 does not tell the original's, and Go then reports 0600.
func createMode(info fs.FileInfo) fs.FileMode {
	if mode := info.Mode().Perm(); mode != 0o600 {
		return mode
	}
	return 0o666
}

func (c *copier) data(src, dst string, mode fs.FileMode) bool {
	in, err := c.p.Open(src)
	if err != nil {
		return c.fail("can't open '%s': %s", src, proc.Reason(err))
	}
	defer in.Close()
	var out io.WriteCloser
	if strings.HasPrefix(dst, "/dev/") {
		out, err = c.p.Create(dst, os.O_TRUNC)
	} else {
		out, err = os.OpenFile(c.p.Path(dst), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	}
	if err != nil {
		return c.fail("can't create '%s': %s", dst, proc.Reason(err))
	}
	_, err = io.Copy(onlyWriter{out}, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return c.fail("error writing to '%s': %s", dst, proc.Reason(err))
	}
	return true
}

func mv(p *proc.Proc) int {
	f, rest, ok := parse(p, "finTt:v", map[string]byte{"force": 'f', "no-clobber": 'n'})
	if !ok {
		return 1
	}
	pairs, ok := targets(p, f, rest)
	if !ok {
		return p.Usage("[-finT] SOURCE… DEST")
	}
	status := 0
	if len(pairs) == 0 {
		return 1
	}
	for _, pair := range pairs {
		from, to := strings.TrimRight(p.Path(pair[0]), "/"), strings.TrimRight(p.Path(pair[1]), "/")
		if _, err := os.Lstat(to); err == nil && f.has('n') {
			continue
		}
		info, err := os.Lstat(from)
		if err != nil {
			p.Errorf("can't rename '%s': %s", pair[0], proc.Reason(err))
			status = 1
			continue
		}
		if os.Rename(from, to) == nil {
			continue
		}
		if info.IsDir() && strings.HasPrefix(to+"/", from+"/") {
			p.Errorf("can't rename '%s': Invalid argument", pair[0])
			status = 1
			continue
		}
		// Another mount: copy and remove.
		c := copier{p: p, recursive: true, keepLinks: true, times: true}
		if !c.copy(pair[0], pair[1]) || os.RemoveAll(from) != nil {
			status = 1
		}
	}
	return status
}

func ln(p *proc.Proc) int {
	f, rest, ok := parse(p, "sfnvTt:", map[string]byte{"symbolic": 's', "force": 'f'})
	if !ok || len(rest) == 0 {
		return p.Usage("[-sfnT] TARGET… LINK|DIR")
	}
	if len(rest) == 1 {
		rest = append(rest, ".")
	}
	if f.has('n') {
		if info, err := os.Lstat(p.Path(rest[len(rest)-1])); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			f.given['T']++
		}
	}
	pairs, ok := targets(p, f, rest)
	if !ok || len(pairs) == 0 {
		return 1
	}
	status := 0
	for _, pair := range pairs {
		to := p.Path(pair[1])
		if f.has('f') {
			os.Remove(to)
		}
		var err error
		if f.has('s') {
			err = os.Symlink(pair[0], to)
		} else {
			err = os.Link(p.Path(pair[0]), to)
		}
		if err != nil {
			p.Errorf("%s: %s", pair[1], proc.Reason(err))
			status = 1
		}
	}
	return status
}

func readlink(p *proc.Proc) int {
	f, rest, ok := parse(p, "fnev", nil)
	if !ok || len(rest) == 0 {
		return p.Usage("[-fnv] FILE")
	}
	status := 0
	for _, name := range rest {
		var out string
		var err error
		if f.has('f') || f.has('e') || p.Name() == "realpath" {
			full := strings.TrimRight(p.Path(name), "/")
			if full == "" {
				full = "/"
			}
			if out, err = filepath.EvalSymlinks(full); errors.Is(err, fs.ErrNotExist) && !f.has('e') {
				if out, err = filepath.EvalSymlinks(filepath.Dir(full)); err == nil {
					out = filepath.Join(out, filepath.Base(full))
				}
			}
		} else {
			out, err = os.Readlink(p.Path(name))
		}
		if err != nil {
			if f.has('v') || p.Name() == "realpath" {
				p.Errorf("%s: %s", name, proc.Reason(err))
			}
			status = 1
			continue
		}
		if !f.has('n') {
			out += "\n"
		}
		io.WriteString(p.Stdout, out)
	}
	return status
}

// chmod changes what the system lets it: plain WASI preview 1 has no file modes, and there Go only checks that the file
// exists.
func chmod(p *proc.Proc) int {
	args := p.Args[1:]
	recursive := false
	for len(args) > 0 && (args[0] == "-R" || args[0] == "-f" || args[0] == "-v" || args[0] == "--") {
		recursive = recursive || args[0] == "-R"
		args = args[1:]
	}
	if len(args) < 2 {
		return p.Usage("[-R] MODE[,MODE]… FILE…")
	}
	status := 0
	change := func(full, name string) {
		info, err := os.Stat(full)
		if err == nil {
			mode, ok := newMode(info, args[0])
			if !ok {
				p.Errorf("invalid mode '%s'", args[0])
				status = 1
				return
			}
			err = os.Chmod(full, mode)
		}
		if err != nil {
			p.Errorf("%s: %s", name, proc.Reason(err))
			status = 1
		}
	}
	for _, name := range args[1:] {
		full := p.Path(name)
		if !recursive {
			change(full, name)
			continue
		}
		filepath.WalkDir(full, func(path string, _ fs.DirEntry, err error) error {
			change(path, path)
			return nil
		})
	}
	return status
}

// newMode applies an octal or symbolic mode to a file's mode.
func newMode(info fs.FileInfo, text string) (fs.FileMode, bool) {
	if n, err := strconv.ParseUint(text, 8, 12); err == nil {
		return fs.FileMode(n & 0o777), true
	}
	mode := info.Mode().Perm()
	for _, clause := range strings.Split(text, ",") {
		who, i := fs.FileMode(0), 0
		for ; i < len(clause) && strings.IndexByte("ugoa", clause[i]) >= 0; i++ {
			who |= map[byte]fs.FileMode{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777}[clause[i]]
		}
		if who == 0 {
			who = 0o777
		}
		if i == len(clause) || strings.IndexByte("+-=", clause[i]) < 0 {
			return 0, false
		}
		op, bits := clause[i], fs.FileMode(0)
		for _, c := range clause[i+1:] {
			switch c {
			case 'r':
				bits |= 0o444
			case 'w':
				bits |= 0o222
			case 'x':
				bits |= 0o111
			case 'X':
				if info.IsDir() || mode&0o111 != 0 {
					bits |= 0o111
				}
			default:
				return 0, false
			}
		}
		switch op {
		case '+':
			mode |= bits & who
		case '-':
			mode &^= bits & who
		default:
			mode = mode&^who | bits&who
		}
	}
	return mode, true
}
