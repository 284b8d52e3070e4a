package sh

import (
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
)

// lookup returns a variable's or special parameter's value and whether it is set.
func (s *Shell) lookup(name string) (string, bool) {
	switch name {
	case "?":
		return strconv.Itoa(s.status), true
	case "#":
		return strconv.Itoa(len(s.params)), true
	case "$":
		return strconv.Itoa(s.pid), true
	case "!":
		if s.lastJob == nil {
			return "", false
		}
		return strconv.Itoa(s.lastJob.pid), true
	case "-":
		return s.opts.flags(), true
	case "0":
		return s.arg0, true
	case "LINENO":
		return strconv.FormatUint(uint64(s.line), 10), true
	case "RANDOM":
		return strconv.Itoa(rand.IntN(32768)), true
	}
	if name[0] >= '1' && name[0] <= '9' {
		n, err := strconv.Atoi(name)
		if err != nil || n > len(s.params) {
			return "", false
		}
		return s.params[n-1], true
	}
	if v := s.vars[name]; v != nil && v.set {
		return v.value, true
	}
	return "", false
}

func (s *Shell) get(name string) string {
	v, _ := s.lookup(name)
	return v
}

// set assigns a variable. A read-only one ends the shell, as POSIX has it for assignments.
func (s *Shell) set(name, value string) {
	v := s.vars[name]
	if v == nil {
		v = &variable{}
		s.vars[name] = v
	}
	if v.readonly {
		s.fatal(2, "%s: is read only", name)
	}
	v.value, v.set = value, true
	if s.opts.allexport {
		v.exported = true
	}
	if name == "OPTIND" {
		s.getopts = getoptsState{}
	}
}

// environ is the environment of commands, sorted so that env(1) prints the same each time.
func (s *Shell) environ() []string {
	var env []string
	for name, v := range s.vars {
		if v.exported && v.set {
			env = append(env, name+"="+v.value)
		}
	}
	sort.Strings(env)
	return env
}

// optionTable maps option letters to names. Those with a nil field in options.field are refused.
var optionTable = []struct {
	letter byte
	name   string
	field  func(*options) *bool
}{
	{'e', "errexit", func(o *options) *bool { return &o.errexit }},
	{'f', "noglob", func(o *options) *bool { return &o.noglob }},
	{'I', "ignoreeof", func(o *options) *bool { return &o.ignoreeof }},
	{'m', "monitor", func(o *options) *bool { return &o.monitor }},
	{'n', "noexec", func(o *options) *bool { return &o.noexec }},
	{'x', "xtrace", func(o *options) *bool { return &o.xtrace }},
	{'v', "verbose", func(o *options) *bool { return &o.verbose }},
	{'C', "noclobber", func(o *options) *bool { return &o.noclobber }},
	{'a', "allexport", func(o *options) *bool { return &o.allexport }},
	{'b', "notify", func(o *options) *bool { return &o.notify }},
	{'u', "nounset", func(o *options) *bool { return &o.nounset }},
	{0, "pipefail", func(o *options) *bool { return &o.pipefail }},
}

func (o *options) flags() string {
	var b []byte
	for _, t := range optionTable {
		if t.letter != 0 && *t.field(o) {
			b = append(b, t.letter)
		}
	}
	return string(b)
}

// parse reads leading option words of `set` or of the shell's own command line. It returns what follows, and whether
// "--" ended the options.
func (o *options) parse(args []string, extra func(letter byte, on bool) bool) (rest []string, dashes bool, bad string) {
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return args[1:], true, ""
		}
		if len(arg) < 2 || arg[0] != '-' && arg[0] != '+' {
			return args, false, ""
		}
		on := arg[0] == '-'
		args = args[1:]
		for i := 1; i < len(arg); i++ {
			if arg[i] == 'o' {
				if len(args) == 0 {
					return nil, false, "o"
				}
				if !o.setNamed(args[0], on) {
					return nil, false, args[0]
				}
				args = args[1:]
				continue
			}
			if extra != nil && extra(arg[i], on) {
				continue
			}
			if !o.setLetter(arg[i], on) {
				return nil, false, arg[:1] + arg[i:i+1]
			}
		}
	}
	return args, false, ""
}

func (o *options) setLetter(letter byte, on bool) bool {
	for _, t := range optionTable {
		if t.letter == letter {
			*t.field(o) = on
			return true
		}
	}
	return false
}

func (o *options) setNamed(name string, on bool) bool {
	for _, t := range optionTable {
		if t.name == name {
			*t.field(o) = on
			return true
		}
	}
	return false
}

// quote prints a value so that the shell can read it back.
func quote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'"'"'`) + "'"
}
