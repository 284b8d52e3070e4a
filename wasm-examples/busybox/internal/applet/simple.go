package applet

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

func yes0(*proc.Proc) int { return 0 }
func no(*proc.Proc) int   { return 1 }

func echo(p *proc.Proc) int {
	args := p.Args[1:]
	newline, escapes := true, false
options:
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		n, e := newline, escapes
		for _, c := range args[0][1:] {
			switch c {
			case 'n':
				n = false
			case 'e':
				e = true
			case 'E':
				e = false
			default:
				break options
			}
		}
		newline, escapes = n, e
		args = args[1:]
	}
	out := strings.Join(args, " ")
	if escapes {
		var b strings.Builder
		if unescapeTo(&b, out, true) {
			newline = false
		}
		out = b.String()
	}
	if newline {
		out += "\n"
	}
	if _, err := io.WriteString(p.Stdout, out); err != nil { // one write: lines of concurrent commands stay whole
		p.Errorf("write error: %s", proc.Reason(err))
		return 1
	}
	return 0
}

func yes(p *proc.Proc) int {
	line := "y\n"
	if len(p.Args) > 1 {
		line = strings.Join(p.Args[1:], " ") + "\n"
	}
	for p.Ctx.Err() == nil {
		if _, err := io.WriteString(p.Stdout, line); err != nil {
			return 1
		}
	}
	return 1
}

// pause sleeps and reports whether it was not cut short.
func pause(p *proc.Proc, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.Ctx.Done():
		return false
	}
}

// duration reads a number of seconds with an optional unit s, m, h or d.
func duration(text string) (time.Duration, bool) {
	if text == "infinity" || text == "inf" {
		return math.MaxInt64, true
	}
	unit := float64(time.Second)
	if text != "" {
		switch text[len(text)-1] {
		case 's':
			text = text[:len(text)-1]
		case 'm':
			unit, text = float64(time.Minute), text[:len(text)-1]
		case 'h':
			unit, text = float64(time.Hour), text[:len(text)-1]
		case 'd':
			unit, text = 24*float64(time.Hour), text[:len(text)-1]
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0) {
		return 0, false
	}
	if v*unit >= math.MaxInt64 {
		return math.MaxInt64, true
	}
	return time.Duration(v * unit), true
}

func sleep(p *proc.Proc) int {
	if len(p.Args) < 2 {
		return p.Usage("[N]…")
	}
	var total time.Duration
	for _, arg := range p.Args[1:] {
		d, ok := duration(arg)
		if !ok {
			p.Errorf("invalid number '%s'", arg)
			return 1
		}
		if p.Name() == "usleep" {
			d /= 1e6
		}
		if total += d; total < 0 {
			total = math.MaxInt64
		}
	}
	if !pause(p, total) {
		return 128 + 15
	}
	return 0
}

func pwd(p *proc.Proc) int {
	io.WriteString(p.Stdout, p.Dir+"\n")
	return 0
}

func clear(p *proc.Proc) int {
	io.WriteString(p.Stdout, "\x1b[H\x1b[J")
	return 0
}

func nproc(p *proc.Proc) int {
	io.WriteString(p.Stdout, strconv.Itoa(runtime.NumCPU())+"\n")
	return 0
}

func tty(p *proc.Proc) int {
	io.WriteString(p.Stdout, "not a tty\n")
	return 1
}

func whoami(p *proc.Proc) int {
	io.WriteString(p.Stdout, "root\n")
	return 0
}

// id answers for root: WASI preview 1 knows no users.
func id(p *proc.Proc) int {
	f, _, ok := parse(p, "ugGnr", nil)
	if !ok {
		return 1
	}
	switch {
	case f.has('n') && (f.has('u') || f.has('g') || f.has('G')):
		io.WriteString(p.Stdout, "root\n")
	case f.has('u') || f.has('g') || f.has('G'):
		io.WriteString(p.Stdout, "0\n")
	default:
		io.WriteString(p.Stdout, "uid=0(root) gid=0(root) groups=0(root)\n")
	}
	return 0
}

// hostName is what a container runtime wrote to /etc/hostname, or HOSTNAME.
func hostName(p *proc.Proc) string {
	if text, err := os.ReadFile("/etc/hostname"); err == nil {
		if name := strings.TrimSpace(string(text)); name != "" {
			return name
		}
	}
	if name := p.Getenv("HOSTNAME"); name != "" {
		return name
	}
	return "localhost"
}

func hostname(p *proc.Proc) int {
	f, rest, ok := parse(p, "sfdi", nil)
	if !ok {
		return 1
	}
	if len(rest) > 0 {
		p.Errorf("sethostname: Operation not permitted")
		return 1
	}
	name := hostName(p)
	if f.has('s') {
		name, _, _ = strings.Cut(name, ".")
	}
	io.WriteString(p.Stdout, name+"\n")
	return 0
}

func uname(p *proc.Proc) int {
	f, _, ok := parse(p, "asnrvmpio", nil)
	if !ok {
		return 1
	}
	var out []string
	for _, field := range []struct {
		letter byte
		value  string
	}{{'s', "WASI"}, {'n', hostName(p)}, {'r', "preview1"}, {'v', "wasmpod"}, {'m', "wasm32"}, {'o', "WASI"}} {
		if f.has('a') || f.has(field.letter) || len(f.given) == 0 && field.letter == 's' {
			out = append(out, field.value)
		}
	}
	if len(out) == 0 { // -p and -i, which Linux does not know either
		out = []string{"unknown"}
	}
	io.WriteString(p.Stdout, strings.Join(out, " ")+"\n")
	return 0
}

func basename(p *proc.Proc) int {
	args := p.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 || len(args) > 2 {
		return p.Usage("FILE [SUFFIX]")
	}
	name := args[0]
	if trimmed := strings.TrimRight(name, "/"); trimmed != "" {
		name = trimmed[strings.LastIndexByte(trimmed, '/')+1:]
	} else if name != "" {
		name = "/"
	}
	if len(args) == 2 && name != args[1] {
		name = strings.TrimSuffix(name, args[1])
	}
	io.WriteString(p.Stdout, name+"\n")
	return 0
}

func dirname(p *proc.Proc) int {
	if len(p.Args) != 2 {
		return p.Usage("FILENAME")
	}
	name := strings.TrimRight(p.Args[1], "/")
	switch i := strings.LastIndexByte(name, '/'); {
	case name == "" && p.Args[1] != "":
		name = "/"
	case i < 0:
		name = "."
	default:
		if name = strings.TrimRight(name[:i], "/"); name == "" {
			name = "/"
		}
	}
	io.WriteString(p.Stdout, name+"\n")
	return 0
}

func seq(p *proc.Proc) int {
	args := p.Args[1:]
	separator, pad := "\n", false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		if _, err := strconv.ParseFloat(args[0], 64); err == nil {
			break
		}
		switch {
		case args[0] == "-w":
			pad = true
		case args[0] == "-s" && len(args) > 1:
			separator, args = args[1], args[1:]
		case strings.HasPrefix(args[0], "-s"):
			separator = args[0][2:]
		default:
			return p.Usage("[-w] [-s SEP] [FIRST [INC]] LAST")
		}
		args = args[1:]
	}
	values := []float64{1, 1, 0}
	precision, width := 0, 0
	if len(args) < 1 || len(args) > 3 {
		return p.Usage("[-w] [-s SEP] [FIRST [INC]] LAST")
	}
	for i, arg := range args {
		v, err := strconv.ParseFloat(arg, 64)
		if err != nil {
			p.Errorf("invalid number '%s'", arg)
			return 1
		}
		slot := 2
		if len(args) > 1 && i < len(args)-1 {
			slot = i
		}
		values[slot] = v
		if dot := strings.IndexByte(arg, '.'); dot >= 0 {
			precision = max(precision, len(arg)-dot-1)
		}
		if slot != 1 {
			width = max(width, len(strconv.FormatFloat(v, 'f', precision, 64)))
		}
	}
	first, step, last := values[0], values[1], values[2]
	if step == 0 {
		p.Errorf("increment is 0")
		return 1
	}
	out := newText(p, strings.NewReader(""))
	wrote := false
	for i := 0; p.Ctx.Err() == nil; i++ {
		v := first + float64(i)*step
		if step > 0 && v > last+step*1e-9 || step < 0 && v < last+step*1e-9 {
			break
		}
		if wrote {
			out.WriteString(separator)
		}
		wrote = true
		text := strconv.FormatFloat(v, 'f', precision, 64)
		if pad && len(text) < width {
			sign := ""
			if text[0] == '-' {
				sign, text = "-", text[1:]
			}
			text = sign + strings.Repeat("0", width-len(text)-len(sign)) + text
		}
		out.WriteString(text)
	}
	if wrote {
		out.WriteByte('\n')
	}
	out.Flush()
	return 0
}

func env(p *proc.Proc) int {
	f, rest, ok := parse(p, "+iu:0", nil)
	if !ok {
		return 125
	}
	environ := p.Env
	if len(rest) > 0 && rest[0] == "-" {
		f.given['i']++
		rest = rest[1:]
	}
	if f.has('i') {
		environ = nil
	}
	set := func(key, entry string) {
		var out []string
		for _, kv := range environ {
			if !strings.HasPrefix(kv, key+"=") {
				out = append(out, kv)
			}
		}
		if entry != "" {
			out = append(out, entry)
		}
		environ = out
	}
	for _, key := range f.values['u'] {
		set(key, "")
	}
	for len(rest) > 0 {
		key, _, assigned := strings.Cut(rest[0], "=")
		if !assigned {
			break
		}
		set(key, rest[0])
		rest = rest[1:]
	}
	if len(rest) > 0 {
		q := p.Command(rest)
		q.Env = environ
		return p.Start(q)
	}
	end := "\n"
	if f.has('0') {
		end = "\x00"
	}
	for _, kv := range environ {
		io.WriteString(p.Stdout, kv+end)
	}
	return 0
}

func printenv(p *proc.Proc) int {
	if len(p.Args) == 1 {
		return env(p)
	}
	status := 0
	for _, key := range p.Args[1:] {
		found := false
		for _, kv := range p.Env {
			if v, ok := strings.CutPrefix(kv, key+"="); ok {
				io.WriteString(p.Stdout, v+"\n")
				found = true
			}
		}
		if !found {
			status = 1
		}
	}
	return status
}

func which(p *proc.Proc) int {
	f, rest, ok := parse(p, "a", nil)
	if !ok || len(rest) == 0 {
		return 1
	}
	status := 0
	table := Table()
	for _, name := range rest {
		found := false
		show := func(file string) {
			if !found || f.has('a') {
				io.WriteString(p.Stdout, file+"\n")
			}
			found = true
		}
		dirs := strings.Split(p.Getenv("PATH"), ":")
		if strings.Contains(name, "/") {
			dirs = []string{""}
		}
		_, isApplet := table[name]
		isApplet = isApplet || name == "sh" || name == "ash"
		for _, dir := range dirs {
			file := path.Join(dir, name)
			if strings.Contains(name, "/") {
				file = name
			}
			info, err := os.Stat(p.Path(file))
			regular := err == nil && info.Mode().IsRegular() && (runtime.GOOS == "wasip1" || info.Mode()&0o111 != 0)
			if regular || isApplet && (dir == "/bin" || dir == "/usr/bin") {
				show(file)
			}
		}
		if !found && isApplet {
			show("/bin/" + name)
		}
		if !found {
			status = 1
		}
	}
	return status
}

// kill as a command of its own can reach nobody: see the shell's builtin, which knows its jobs.
func kill(p *proc.Proc) int {
	status := 1
	for _, arg := range p.Args[1:] {
		if arg == "-l" {
			io.WriteString(p.Stdout, "HUP INT QUIT KILL TERM\n")
			return 0
		}
		if !strings.HasPrefix(arg, "-") {
			p.Errorf("can't kill pid %s: No such process", arg)
		}
	}
	return status
}

func timeout(p *proc.Proc) int {
	f, rest, ok := parse(p, "+s:k:", nil)
	if !ok || len(rest) < 2 {
		return p.Usage("[-s SIG] [-k KILL_SECS] SECS PROG ARGS")
	}
	d, ok := duration(rest[0])
	if !ok {
		p.Errorf("invalid number '%s'", rest[0])
		return 125
	}
	status := 128 + 15
	if name, ok := f.value('s'); ok && (name == "KILL" || name == "SIGKILL" || name == "9") {
		status = 128 + 9
	}
	ctx, cancel := withTimeout(p, d)
	defer cancel()
	q := p.Command(rest[1:])
	q.Ctx = ctx
	done := make(chan int, 1)
	go func() { done <- p.Start(q) }()
	select {
	case s := <-done:
		return s
	case <-ctx.Done():
		return status
	}
}

func mktemp(p *proc.Proc) int {
	f, rest, ok := parse(p, "dqup:t", nil)
	if !ok || len(rest) > 1 {
		return 1
	}
	dir := p.Getenv("TMPDIR")
	if dir == "" {
		dir = "/tmp"
	}
	if d, ok := f.value('p'); ok {
		dir = d
	}
	template := dir + "/tmp.XXXXXX"
	if len(rest) == 1 {
		template = rest[0]
		if f.has('t') || f.has('p') {
			template = path.Join(dir, template)
		}
	}
	base := strings.TrimRight(template, "X")
	if len(template)-len(base) < 6 {
		p.Errorf("%s: Invalid argument", template)
		return 1
	}
	var err error
	for range 100 {
		name := []byte(template)
		for i := len(base); i < len(name); i++ {
			name[i] = alphabet[rand.IntN(len(alphabet))]
		}
		full := p.Path(string(name))
		if f.has('d') {
			err = os.Mkdir(full, 0o700)
		} else {
			var file *os.File
			if file, err = os.OpenFile(full, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
				file.Close()
			}
		}
		if err == nil {
			io.WriteString(p.Stdout, string(name)+"\n")
			return 0
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if !f.has('q') {
		p.Errorf("%s: %s", template, proc.Reason(err))
	}
	return 1
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
