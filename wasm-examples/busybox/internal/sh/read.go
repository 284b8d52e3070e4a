package sh

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"
)

// builtinRead is `read [-r] [-p PROMPT] [-n COUNT] [-d DELIMITER] [-t SECONDS] [-s] [NAME…]`. It reads byte by byte, so
// that what follows the line is left for others.
func builtinRead(s *Shell, args []string) int {
	raw, limit, delimiter := false, -1, byte('\n')
	ctx := s.ctx
	rest := args[1:]
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			break
		}
		for i := 1; i < len(arg); i++ {
			var value string
			switch arg[i] {
			case 'r':
				raw = true
				continue
			case 's':
				continue
			case 'p', 'n', 'd', 't', 'u':
				if i+1 < len(arg) {
					value = arg[i+1:]
				} else if len(rest) > 0 {
					value, rest = rest[0], rest[1:]
				} else {
					s.fatal(2, "read: option requires an argument -- %c", arg[i])
				}
			default:
				s.fatal(2, "read: illegal option -%c", arg[i])
			}
			switch arg[i] {
			case 'p':
				io.WriteString(s.stderr(), value)
			case 'n':
				limit = s.number("read", value)
			case 'd':
				delimiter = 0
				if value != "" {
					delimiter = value[0]
				}
			case 't':
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					s.fatal(2, "read: invalid timeout")
				}
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(s.ctx, time.Duration(seconds*float64(time.Second)))
				defer cancel()
			case 'u':
				s.fatal(2, "read: -u is not supported")
			}
			break
		}
	}
	for _, name := range rest {
		if !syntax.ValidName(name) {
			s.fatal(2, "read: '%s': bad variable name", name)
		}
	}
	in := stream{ctx, s.fds[0]}
	var line []byte
	var escaped []bool // in parallel: taken literally because of a backslash
	status := 0
	backslash := false
	for limit < 0 || len(line) < limit {
		var b [1]byte
		n, err := in.Read(b[:])
		if n == 0 && err != nil {
			status = 1
			s.checkKilled()
			if ctx.Err() != nil {
				status = 128 + 14
			}
			break
		}
		if n == 0 || b[0] == 0 && delimiter != 0 {
			continue
		}
		if backslash {
			backslash = false
			if b[0] != '\n' {
				line, escaped = append(line, b[0]), append(escaped, true)
			}
			continue
		}
		if b[0] == delimiter {
			break
		}
		if b[0] == '\\' && !raw {
			backslash = true
			continue
		}
		line, escaped = append(line, b[0]), append(escaped, false)
	}
	s.assignFields(rest, line, escaped)
	return status
}

// assignFields splits a line by IFS into the named variables; the last one takes the rest of the line.
func (s *Shell) assignFields(names []string, line []byte, escaped []bool) {
	if len(names) == 0 {
		s.set("REPLY", string(line))
		return
	}
	ifs := " \t\n"
	if v := s.vars["IFS"]; v != nil && v.set {
		ifs = v.value
	}
	is := func(i int, set string) bool { return !escaped[i] && strings.IndexByte(set, line[i]) >= 0 }
	isSpace := func(i int) bool { return is(i, ifs) && strings.IndexByte(" \t\n", line[i]) >= 0 }
	i := 0
	skipSpace := func() {
		for i < len(line) && isSpace(i) {
			i++
		}
	}
	skipSpace()
	for k, name := range names {
		start := i
		if k < len(names)-1 {
			for i < len(line) && !is(i, ifs) {
				i++
			}
			s.set(name, string(line[start:i]))
			space := i < len(line) && isSpace(i)
			skipSpace()
			if i < len(line) && is(i, ifs) && (space || i > start || !isSpace(i)) && !isSpace(i) {
				i++
				skipSpace()
			}
			continue
		}
		end := len(line)
		for end > start && isSpace(end-1) {
			end--
		}
		// A single field that ends in a separator loses it; more fields keep the text as it is.
		if end > start && is(end-1, ifs) {
			only := true
			for j := start; j < end-1; j++ {
				only = only && !is(j, ifs)
			}
			if only {
				end--
			}
		}
		s.set(name, string(line[start:end]))
	}
}

// getoptsState is where getopts stands inside a word of grouped options.
type getoptsState struct{ offset int }

// builtinGetopts is `getopts OPTSTRING NAME [ARG…]`.
func builtinGetopts(s *Shell, args []string) int {
	if len(args) < 3 {
		s.fatal(2, "getopts: usage: getopts optstring var [arg]")
	}
	spec, name := args[1], args[2]
	words := s.params
	if len(args) > 3 {
		words = args[3:]
	}
	silent := strings.HasPrefix(spec, ":")
	index, _ := strconv.Atoi(s.get("OPTIND"))
	index = max(index, 1)
	offset := s.getopts.offset
	finish := func(index, offset int) {
		s.set("OPTIND", strconv.Itoa(index))
		s.getopts = getoptsState{offset}
	}
	if offset == 0 {
		if index > len(words) || len(words[index-1]) < 2 || words[index-1][0] != '-' {
			s.set(name, "?")
			finish(index, 0)
			return 1
		}
		if words[index-1] == "--" {
			s.set(name, "?")
			finish(index+1, 0)
			return 1
		}
		offset = 1
	}
	if index > len(words) || offset >= len(words[index-1]) {
		s.set(name, "?")
		finish(index, 0)
		return 1
	}
	word := words[index-1]
	c := word[offset]
	offset++
	if offset == len(word) {
		index, offset = index+1, 0
	}
	delete(s.vars, "OPTARG")
	at := strings.IndexByte(strings.TrimPrefix(spec, ":"), c)
	known := strings.TrimPrefix(spec, ":")
	if c == ':' || at < 0 {
		s.set(name, "?")
		if silent {
			s.set("OPTARG", string(c))
		} else {
			s.errorf("Illegal option -%c", c)
		}
		finish(index, offset)
		return 0
	}
	if at+1 < len(known) && known[at+1] == ':' {
		switch {
		case offset != 0:
			s.set("OPTARG", word[offset:])
			index, offset = index+1, 0
		case index <= len(words):
			s.set("OPTARG", words[index-1])
			index++
		case silent:
			s.set(name, ":")
			s.set("OPTARG", string(c))
			finish(index, 0)
			return 0
		default:
			s.errorf("No arg for -%c option", c)
			s.set(name, "?")
			finish(index, 0)
			return 0
		}
	}
	s.set(name, string(c))
	finish(index, offset)
	return 0
}
