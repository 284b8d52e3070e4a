package applet

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// test evaluates a conditional expression. The rules of POSIX for up to four operands decide what `test -n` or
// `test ! = x` mean; beyond that -a, -o and parentheses work as they always have.
func test(p *proc.Proc) int {
	args := p.Args[1:]
	if p.Args[0] == "[" || strings.HasSuffix(p.Args[0], "/[") {
		if len(args) == 0 || args[len(args)-1] != "]" {
			p.Errorf("missing ]")
			return 2
		}
		args = args[:len(args)-1]
	}
	t := &tester{p: p, args: args}
	result, err := t.evaluate()
	if err != nil {
		p.Errorf("%v", err)
		return 2
	}
	if result {
		return 0
	}
	return 1
}

type tester struct {
	p    *proc.Proc
	args []string
	pos  int
}

func (t *tester) evaluate() (bool, error) {
	a := t.args
	switch len(a) {
	case 0:
		return false, nil
	case 1:
		return a[0] != "", nil
	case 2:
		if a[0] == "!" {
			return a[1] == "", nil
		}
	case 3:
		if isBinary(a[1]) {
			return t.binary(a[0], a[1], a[2])
		}
		if a[0] == "!" {
			ok, err := (&tester{p: t.p, args: a[1:]}).evaluate()
			return !ok, err
		}
		if a[0] == "(" && a[2] == ")" {
			return a[1] != "", nil
		}
	case 4:
		if a[0] == "!" {
			ok, err := (&tester{p: t.p, args: a[1:]}).evaluate()
			return !ok, err
		}
		if a[0] == "(" && a[3] == ")" {
			return (&tester{p: t.p, args: a[1:3]}).evaluate()
		}
	}
	ok, err := t.or()
	if err == nil && t.pos < len(a) {
		err = errors.New(a[t.pos] + ": unknown operand")
	}
	return ok, err
}

func (t *tester) peek() string {
	if t.pos < len(t.args) {
		return t.args[t.pos]
	}
	return ""
}

func (t *tester) or() (bool, error) {
	ok, err := t.and()
	for err == nil && t.peek() == "-o" {
		t.pos++
		var right bool
		right, err = t.and()
		ok = ok || right
	}
	return ok, err
}

func (t *tester) and() (bool, error) {
	ok, err := t.not()
	for err == nil && t.peek() == "-a" {
		t.pos++
		var right bool
		right, err = t.not()
		ok = ok && right
	}
	return ok, err
}

func (t *tester) not() (bool, error) {
	negate := false
	for t.peek() == "!" && !(t.pos+1 < len(t.args) && isBinary(t.args[t.pos+1])) {
		negate = !negate
		t.pos++
	}
	ok, err := t.primary()
	return ok != negate, err
}

func (t *tester) primary() (bool, error) {
	if t.pos >= len(t.args) {
		return false, errors.New("argument expected")
	}
	a := t.args[t.pos]
	left := len(t.args) - t.pos
	if left >= 3 && isBinary(t.args[t.pos+1]) {
		t.pos += 3
		return t.binary(a, t.args[t.pos-2], t.args[t.pos-1])
	}
	if a == "(" {
		t.pos++
		ok, err := t.or()
		if err == nil && t.peek() != ")" {
			err = errors.New("closing paren expected")
		}
		t.pos++
		return ok, err
	}
	if left >= 2 && len(a) == 2 && a[0] == '-' && strings.IndexByte("bcdefghknprstuwxzLSOGN", a[1]) >= 0 {
		t.pos += 2
		return t.unary(a[1], t.args[t.pos-1])
	}
	if left == 2 && a != "!" {
		return false, errors.New(a + ": unknown operand")
	}
	t.pos++
	return a != "", nil
}

func isBinary(op string) bool {
	switch op {
	case "=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef":
		return true
	}
	return false
}

func (t *tester) binary(a, op, b string) (bool, error) {
	switch op {
	case "=", "==":
		return a == b, nil
	case "!=":
		return a != b, nil
	case "<":
		return a < b, nil
	case ">":
		return a > b, nil
	case "-nt", "-ot", "-ef":
		x, errX := os.Stat(t.p.Path(a))
		y, errY := os.Stat(t.p.Path(b))
		switch {
		case op == "-ef":
			return errX == nil && errY == nil && os.SameFile(x, y), nil
		case errX != nil || errY != nil:
			return false, nil
		case op == "-nt":
			return x.ModTime().After(y.ModTime()), nil
		}
		return x.ModTime().Before(y.ModTime()), nil
	}
	x, err := strconv.ParseInt(strings.TrimSpace(a), 10, 64)
	if err != nil {
		return false, errors.New(a + ": bad number")
	}
	y, err := strconv.ParseInt(strings.TrimSpace(b), 10, 64)
	if err != nil {
		return false, errors.New(b + ": bad number")
	}
	switch op {
	case "-eq":
		return x == y, nil
	case "-ne":
		return x != y, nil
	case "-lt":
		return x < y, nil
	case "-le":
		return x <= y, nil
	case "-gt":
		return x > y, nil
	}
	return x >= y, nil
}

func (t *tester) unary(op byte, arg string) (bool, error) {
	switch op {
	case 'n':
		return arg != "", nil
	case 'z':
		return arg == "", nil
	case 't':
		if _, err := strconv.Atoi(arg); err != nil {
			return false, errors.New(arg + ": bad number")
		}
		return false, nil
	}
	full := t.p.Path(arg)
	if full == "" {
		return false, nil
	}
	if op == 'L' || op == 'h' {
		info, err := os.Lstat(strings.TrimRight(full, "/"))
		return err == nil && info.Mode()&fs.ModeSymlink != 0, nil
	}
	info, err := os.Stat(full)
	if err != nil {
		return false, nil
	}
	mode := info.Mode()
	switch op {
	case 'f':
		return mode.IsRegular(), nil
	case 'd':
		return mode.IsDir(), nil
	case 's':
		return info.Size() > 0, nil
	case 'b':
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0, nil
	case 'c':
		return mode&fs.ModeCharDevice != 0, nil
	case 'p':
		return mode&fs.ModeNamedPipe != 0, nil
	case 'S':
		return mode&fs.ModeSocket != 0, nil
	case 'k':
		return mode&fs.ModeSticky != 0, nil
	case 'g':
		return mode&fs.ModeSetgid != 0, nil
	case 'u':
		return mode&fs.ModeSetuid != 0, nil
	case 'x':
		return runtime.GOOS == "wasip1" || mode&0o111 != 0, nil
	}
	return true, nil // -e, and -r and -w, which root may always do
}
