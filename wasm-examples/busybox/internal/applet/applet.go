// Package applet holds the commands of the multi-call program. Each follows its namesake in busybox: the options that
// scripts use, the same output, the same exit statuses and, where scripts or people depend on them, the same messages.
package applet

import (
	"bufio"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// Table returns a fresh table of all applets but the shell.
func Table() map[string]proc.Main {
	return map[string]proc.Main{
		"[": test, "base64": base64, "basename": basename, "cat": cat, "chmod": chmod, "clear": clear, "cp": cp,
		"cut": cut, "date": date, "dirname": dirname, "echo": echo, "env": env, "printenv": printenv, "false": no,
		"find": find, "grep": grep, "egrep": grep, "fgrep": grep, "head": head, "hostname": hostname, "httpd": httpd, "id": id,
		"kill": kill, "ln": ln, "ls": ls, "mkdir": mkdir, "mktemp": mktemp, "mv": mv, "nc": nc, "nproc": nproc, "nslookup": nslookup,
		"printf": printf, "pwd": pwd, "readlink": readlink, "realpath": readlink, "rm": rm, "rmdir": rmdir,
		"sed": sed, "seq": seq, "sha256sum": sha256sum, "sleep": sleep, "sort": sortLines, "stat": stat, "sync": yes0,
		"tac": tac, "rev": rev, "tail": tail, "tar": tar, "tee": tee, "test": test, "timeout": timeout, "touch": touch,
		"tr": tr, "true": yes0, "tty": tty, "uname": uname, "uniq": uniq, "unzip": unzip, "usleep": sleep, "wc": wc, "wget": wget, "which": which,
		"whoami": whoami, "xargs": xargs, "yes": yes,
	}
}

// List prints what the program can do.
func List(table map[string]proc.Main, p *proc.Proc) int {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	sort.Strings(names)
	if len(p.Args) > 1 && p.Args[1] == "--list" {
		io.WriteString(p.Stdout, strings.Join(names, "\n")+"\n")
		return 0
	}
	io.WriteString(p.Stdout, "busybox for WASI: a multi-call program.\n\n"+
		"Usage: busybox APPLET [ARG…], or APPLET [ARG…] with that name as the first argument of the instance\n\n"+
		"Applets:\n")
	line := "\t"
	for i, name := range names {
		if i < len(names)-1 {
			name += ", "
		}
		if len(line)+len(name) > 76 {
			io.WriteString(p.Stdout, line+"\n")
			line = "\t"
		}
		line += name
	}
	io.WriteString(p.Stdout, line+"\n")
	return 0
}

// flags are the options found on a command line.
type flags struct {
	given  map[byte]int
	values map[byte][]string
	order  []byte // letters as they came, for options where the last one counts
}

func (f *flags) has(letter byte) bool { return f.given[letter] > 0 }

func (f *flags) value(letter byte) (string, bool) {
	v := f.values[letter]
	if len(v) == 0 {
		return "", false
	}
	return v[len(v)-1], true
}

// parse reads options as getopt(3) does, options among the operands included. spec lists letters, with ":" after those
// that take a value; a leading "+" stops at the first operand. long maps names of long options to letters. A wrong
// option is reported and ok is false.
func parse(p *proc.Proc, spec string, long map[string]byte) (f *flags, rest []string, ok bool) {
	f = &flags{given: map[byte]int{}, values: map[byte][]string{}}
	stop := strings.HasPrefix(spec, "+")
	spec = strings.TrimPrefix(spec, "+")
	args := p.Args[1:]
	add := func(letter byte) {
		f.given[letter]++
		f.order = append(f.order, letter)
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return f, append(rest, args...), true
		case strings.HasPrefix(arg, "--"):
			name, value, hasValue := strings.Cut(arg[2:], "=")
			letter, known := long[name]
			if !known {
				p.Errorf("unrecognized option '%s'", arg)
				return f, nil, false
			}
			add(letter)
			if at := strings.IndexByte(spec, letter); at >= 0 && at+1 < len(spec) && spec[at+1] == ':' {
				if !hasValue {
					if len(args) == 0 {
						p.Errorf("option '--%s' requires an argument", name)
						return f, nil, false
					}
					value, args = args[0], args[1:]
				}
				f.values[letter] = append(f.values[letter], value)
			}
		case len(arg) < 2 || arg[0] != '-':
			rest = append(rest, arg)
			if stop {
				return f, append(rest, args...), true
			}
		default:
			for i := 1; i < len(arg); i++ {
				at := strings.IndexByte(spec, arg[i])
				if at < 0 || arg[i] == ':' {
					p.Errorf("invalid option -- '%c'", arg[i])
					return f, nil, false
				}
				add(arg[i])
				if at+1 == len(spec) || spec[at+1] != ':' {
					continue
				}
				value := arg[i+1:]
				if value == "" {
					if len(args) == 0 {
						p.Errorf("option requires an argument -- '%c'", arg[i])
						return f, nil, false
					}
					value, args = args[0], args[1:]
				}
				f.values[arg[i]] = append(f.values[arg[i]], value)
				break
			}
		}
	}
	return f, rest, true
}

// number reads a non-negative count with an optional suffix b, k, m or g.
func number(text string) (int64, bool) {
	unit := int64(1)
	if text != "" {
		switch text[len(text)-1] {
		case 'b':
			unit = 512
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit != 1 {
			text = text[:len(text)-1]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<62/unit {
		return 0, false
	}
	return n * unit, true
}

// text reads lines and writes output that is held back only while more input is at hand: a filter behind `tail -f`
// passes each line on at once, and one that reads a file does not make a system call for each line.
type text struct {
	*bufio.Writer
	r *bufio.Reader
}

func newText(p *proc.Proc, r io.Reader) *text {
	return &text{bufio.NewWriterSize(p.Stdout, 16<<10), bufio.NewReaderSize(r, 16<<10)}
}

// line returns the next line without its end; ended says whether it had one.
func (t *text) line() (line []byte, ended bool, err error) { return t.until('\n') }

func (t *text) until(delimiter byte) (line []byte, ended bool, err error) {
	for {
		if t.r.Buffered() == 0 {
			t.Flush()
		}
		chunk, err := t.r.ReadSlice(delimiter)
		switch {
		case err == nil:
			return append(line, chunk[:len(chunk)-1]...), true, nil
		case err == bufio.ErrBufferFull:
			line = append(line, chunk...)
		case len(line)+len(chunk) > 0 && err == io.EOF:
			return append(line, chunk...), false, nil
		default:
			return nil, false, err
		}
	}
}

// each calls f for every named input, standard input if there is none, and reports those that cannot be read in
// busybox's way. It returns 1 if there were any.
func each(p *proc.Proc, names []string, f func(name string, r io.Reader) error) int {
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := 0
	for _, name := range names {
		r, err := p.Open(name)
		if err == nil {
			if file, ok := r.(*os.File); ok {
				if info, serr := file.Stat(); serr == nil && info.IsDir() {
					p.Errorf("read error: Is a directory")
					file.Close()
					status = 1
					continue
				}
			}
		}
		if err != nil {
			p.Errorf("can't open '%s': %s", name, proc.Reason(err))
			status = 1
			continue
		}
		err = f(name, r)
		r.Close()
		if err != nil && err != io.EOF {
			p.Errorf("%s: %s", name, proc.Reason(err))
			status = 1
		}
	}
	return status
}
