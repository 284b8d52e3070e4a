package applet

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// ls lists directories, one name a line: there is no terminal whose width could be known.
func ls(p *proc.Proc) int {
	f, rest, ok := parse(p, "1AacdFfhilnpqrRstSuxXCLHk", map[string]byte{"all": 'a', "color": 'K', "full-time": 'e', "recursive": 'R'})
	if !ok {
		return 1
	}
	l := &lister{p: p, f: f}
	if len(rest) == 0 {
		rest = []string{"."}
	}
	var files []listed
	var dirs []string
	for _, name := range rest {
		stat := os.Stat
		if f.has('d') || f.has('l') && !f.has('L') && !f.has('H') {
			stat = os.Lstat
		}
		info, err := stat(p.Path(name))
		if err != nil {
			if info, err = os.Lstat(strings.TrimRight(p.Path(name), "/")); err != nil {
				p.Errorf("%s: %s", name, proc.Reason(err))
				l.status = 1
				continue
			}
		}
		if info.IsDir() && !f.has('d') {
			dirs = append(dirs, name)
		} else {
			files = append(files, listed{name, p.Path(name), info})
		}
	}
	l.sort(files)
	l.print(files)
	sort.Strings(dirs)
	l.titles = len(rest) > 1 || f.has('R')
	l.any = len(files) > 0
	for _, dir := range dirs {
		l.dir(dir)
	}
	return l.status
}

type listed struct {
	name, full string
	info       fs.FileInfo
}

type lister struct {
	p      *proc.Proc
	f      *flags
	titles bool
	any    bool
	status int
}

func (l *lister) dir(name string) {
	entries, err := os.ReadDir(l.p.Path(name))
	if err != nil {
		l.p.Errorf("can't open '%s': %s", name, proc.Reason(err))
		l.status = 1
		return
	}
	if l.titles {
		text := name + ":\n"
		if l.any {
			text = "\n" + text
		}
		io.WriteString(l.p.Stdout, text)
	}
	l.any = true
	var files []listed
	add := func(base string) {
		full := l.p.Path(name) + "/" + base
		stat := os.Lstat
		if l.f.has('L') {
			stat = os.Stat
		}
		info, err := stat(full)
		if err != nil {
			if info, err = os.Lstat(full); err != nil {
				return
			}
		}
		files = append(files, listed{base, full, info})
	}
	if l.f.has('a') || l.f.has('f') {
		add(".")
		add("..")
	}
	for _, e := range entries {
		if e.Name()[0] == '.' && !l.f.has('a') && !l.f.has('A') && !l.f.has('f') {
			continue
		}
		add(e.Name())
	}
	l.sort(files)
	if l.f.has('l') || l.f.has('n') || l.f.has('s') {
		blocks := int64(0)
		for _, file := range files {
			blocks += (file.info.Size() + 4095) / 4096 * 4
		}
		io.WriteString(l.p.Stdout, "total "+strconv.FormatInt(blocks, 10)+"\n")
	}
	l.print(files)
	if l.f.has('R') {
		for _, file := range files {
			if file.info.IsDir() && file.name != "." && file.name != ".." {
				l.dir(strings.TrimRight(name, "/") + "/" + file.name)
			}
		}
	}
}

func (l *lister) sort(files []listed) {
	if l.f.has('f') {
		return
	}
	less := func(a, b listed) bool { return a.name < b.name }
	switch {
	case l.f.has('t'):
		less = func(a, b listed) bool {
			if !a.info.ModTime().Equal(b.info.ModTime()) {
				return a.info.ModTime().After(b.info.ModTime())
			}
			return a.name < b.name
		}
	case l.f.has('S'):
		less = func(a, b listed) bool {
			if a.info.Size() != b.info.Size() {
				return a.info.Size() > b.info.Size()
			}
			return a.name < b.name
		}
	case l.f.has('X'):
		less = func(a, b listed) bool {
			if x, y := filepath.Ext(a.name), filepath.Ext(b.name); x != y {
				return x < y
			}
			return a.name < b.name
		}
	}
	sort.SliceStable(files, func(i, j int) bool {
		if l.f.has('r') {
			return less(files[j], files[i])
		}
		return less(files[i], files[j])
	})
}

func (l *lister) print(files []listed) {
	size := func(n int64) string {
		if !l.f.has('h') {
			return strconv.FormatInt(n, 10)
		}
		return human(n)
	}
	width := 0
	for _, file := range files {
		width = max(width, len(size(file.info.Size())))
	}
	var b strings.Builder
	for _, file := range files {
		mode := file.info.Mode()
		if l.f.has('l') || l.f.has('n') {
			owner := "root     root    "
			if l.f.has('n') {
				owner = "0        0       "
			}
			when := file.info.ModTime().UTC()
			stamp := strftime("%b %e %H:%M", when)
			if age := time.Since(when); age > 183*24*time.Hour || age < -time.Hour {
				stamp = strftime("%b %e  %Y", when)
			}
			if l.f.has('e') {
				stamp = strftime("%Y-%m-%d %H:%M:%S +0000", when)
			}
			text := size(file.info.Size())
			b.WriteString(modeString(mode) + "    1 " + owner + " " + strings.Repeat(" ", max(0, max(width, 9)-len(text))) + text +
				" " + stamp + " ")
		}
		b.WriteString(file.name)
		switch {
		case mode.IsDir() && (l.f.has('F') || l.f.has('p')):
			b.WriteByte('/')
		case mode&fs.ModeSymlink != 0:
			if link, err := os.Readlink(file.full); err == nil && (l.f.has('l') || l.f.has('n')) {
				b.WriteString(" -> " + link)
			} else if l.f.has('F') {
				b.WriteByte('@')
			}
		case l.f.has('F') && mode.IsRegular() && mode&0o111 != 0:
			b.WriteByte('*')
		}
		b.WriteByte('\n')
	}
	io.WriteString(l.p.Stdout, b.String())
}

func human(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < 4 {
		v /= 1024
		unit++
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + "KMGTP"[unit:unit+1]
}

// modeString is the first column of ls -l.
func modeString(mode fs.FileMode) string {
	kind := byte('-')
	switch {
	case mode.IsDir():
		kind = 'd'
	case mode&fs.ModeSymlink != 0:
		kind = 'l'
	case mode&fs.ModeNamedPipe != 0:
		kind = 'p'
	case mode&fs.ModeSocket != 0:
		kind = 's'
	case mode&fs.ModeCharDevice != 0:
		kind = 'c'
	case mode&fs.ModeDevice != 0:
		kind = 'b'
	}
	out := []byte(string(kind) + mode.Perm().String()[1:])
	if mode&fs.ModeSticky != 0 {
		out[9] = 't'
	}
	return string(out)
}

func stat(p *proc.Proc) int {
	f, rest, ok := parse(p, "c:Lft", map[string]byte{"format": 'c'})
	if !ok || len(rest) == 0 {
		return p.Usage("[-L] [-c FMT] FILE…")
	}
	status := 0
	for _, name := range rest {
		get := os.Lstat
		if f.has('L') {
			get = os.Stat
		}
		info, err := get(p.Path(name))
		if err != nil {
			p.Errorf("can't stat '%s': %s", name, proc.Reason(err))
			status = 1
			continue
		}
		format, ok := f.value('c')
		if !ok {
			format = "  File: %N\n  Size: %s\tBlocks: %b\tIO Block: 4096   %F\nAccess: (0%a/%A)  Uid: (    0/    root)   Gid: (    0/    root)\nModify: %y"
		}
		io.WriteString(p.Stdout, statFormat(p, format, name, info)+"\n")
	}
	return status
}

func statFormat(p *proc.Proc, format, name string, info fs.FileInfo) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch c := format[i]; c {
		case 'n':
			b.WriteString(name)
		case 'N':
			b.WriteString(name)
			if link, err := os.Readlink(p.Path(name)); err == nil {
				b.WriteString(" -> " + link)
			}
		case 's':
			b.WriteString(strconv.FormatInt(info.Size(), 10))
		case 'b':
			b.WriteString(strconv.FormatInt((info.Size()+511)/512, 10))
		case 'B':
			b.WriteString("512")
		case 'a':
			b.WriteString(strconv.FormatInt(int64(info.Mode().Perm()), 8))
		case 'A':
			b.WriteString(modeString(info.Mode()))
		case 'F':
			b.WriteString(kindName(info))
		case 'u', 'g':
			b.WriteByte('0')
		case 'U', 'G':
			b.WriteString("root")
		case 'h':
			b.WriteByte('1')
		case 'X', 'Y', 'Z':
			b.WriteString(strconv.FormatInt(info.ModTime().Unix(), 10))
		case 'x', 'y', 'z':
			b.WriteString(strftime("%Y-%m-%d %H:%M:%S.%N +0000", info.ModTime().UTC()))
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

func kindName(info fs.FileInfo) string {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeCharDevice != 0:
		return "character special file"
	case mode&fs.ModeDevice != 0:
		return "block special file"
	case mode&fs.ModeNamedPipe != 0:
		return "fifo"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case info.Size() == 0:
		return "regular empty file"
	}
	return "regular file"
}
