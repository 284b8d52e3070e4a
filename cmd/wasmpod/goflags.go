package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// goFlags are flags of ours beside those of the go command. They have two
// dashes, and are taken out of its arguments.
type goFlags struct {
	image imageOptions // unless nil: flags of the pod
	pod   bool         // the command runs a pod
	mount bool
	help  bool
}

func (o *goFlags) addFlags(f *pflag.FlagSet) {
	if !o.pod {
		return
	}
	f.StringArrayVar(&o.image.env, "env", nil, "set an environment variable of the program, KEY=VALUE or KEY to pass it on")
	f.StringArrayVar(&o.image.volumes, "volume", nil, "mount a file or directory, HOST:GUEST[:ro]")
	f.StringArrayVar(&o.image.publish, "publish", nil, "publish a port, [IP:]HOST:GUEST[/udp]")
	f.StringVar(&o.image.cpu, "cpu-limit", "", "CPU limit, such as 500m")
	f.StringVar(&o.image.memory, "memory-limit", "", "memory limit, such as 64Mi")
	f.BoolVar(&o.mount, "mount", true, "mount the working directory (of tests: their module) where it is on the host")
}

// take removes our flags from the arguments of a go command, and sets them. Only
// what comes before a program's arguments is looked at.
func (o *goFlags) take(f *pflag.FlagSet, args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, value, inline := goFlag(arg)
		if name == "" || name == "args" {
			return append(rest, args[i:]...), nil
		}
		if name == "h" || name == "help" {
			o.help = true
			return nil, nil
		}
		flag := f.Lookup(name)
		if flag == nil || !strings.HasPrefix(arg, "--") {
			rest = append(rest, arg)
			if !inline && !boolean(name) && i+1 < len(args) {
				i++
				rest = append(rest, args[i])
			}
			continue
		}
		if !inline {
			if value = flag.NoOptDefVal; value == "" {
				if i++; i == len(args) {
					return nil, fmt.Errorf("flag needs an argument: %s", arg)
				}
				value = args[i]
			}
		}
		if err := f.Set(name, value); err != nil {
			return nil, fmt.Errorf("invalid argument %q for %s: %w", value, arg, err)
		}
	}
	return rest, nil
}

// goFlag reads one argument as the go command does: one dash or two. An empty
// name is no flag.
func goFlag(arg string) (name, value string, inline bool) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return "", "", false
	}
	name = strings.TrimPrefix(arg[1:], "-")
	name, value, inline = strings.Cut(name, "=")
	return name, value, inline
}

// booleans are the flags of go build, run, test and vet that take no argument of
// their own.
var booleans = []string{
	"a", "n", "v", "x", "i", "c", "h", "help", "work", "json", "race", "msan", "asan", "cover", "linkshared", "modcacherw",
	"trimpath", "buildvcs", "short", "failfast", "fullpath", "benchmem", "artifacts", "diff", "fix",
}

func boolean(name string) bool { return slices.Contains(booleans, strings.TrimPrefix(name, "test.")) }

// splitGoFlags parts the flags that come first from what follows them.
func splitGoFlags(args []string) (flags, rest []string) {
	for i := 0; i < len(args); i++ {
		name, _, inline := goFlag(args[i])
		if name == "" {
			if args[i] == "--" {
				return args[:i], args[i+1:]
			}
			return args[:i], args[i:]
		}
		if !inline && !boolean(name) {
			i++
		}
	}
	return args, nil
}
