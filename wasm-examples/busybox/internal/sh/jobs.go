package sh

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// job is one background command.
type job struct {
	pid    int
	shell  *Shell
	done   chan struct{} // closed when status is valid
	status int
}

// background starts a command with `&`. Its standard input is empty, as for every non-interactive shell.
func (s *Shell) background(st *syntax.Stmt) {
	sub := s.subshell()
	sub.setFile(0, textFile(""))
	j := &job{pid: s.sys.pid(), shell: sub, done: make(chan struct{})}
	s.sys.mu.Lock()
	if s.sys.jobs == nil {
		s.sys.jobs = map[int]*job{}
	}
	s.sys.jobs[j.pid] = j
	s.sys.mu.Unlock()
	s.jobs = append(s.jobs, j)
	s.lastJob = j
	body := *st
	body.Background = false
	go func() {
		j.status = sub.process(func() { sub.stmt(&body) })
		s.sys.mu.Lock()
		delete(s.sys.jobs, j.pid)
		s.sys.mu.Unlock()
		close(j.done)
	}()
}

// builtinWait is `wait [PID…]`.
func builtinWait(s *Shell, args []string) int {
	// A signal that is trapped ends it, with the status of that signal.
	signaled := 0
	await := func(j *job) bool {
		select {
		case <-j.done:
			return true
		case sig := <-s.arrived:
			if s.take(sig) {
				signaled = 128 + number(sig)
				return false
			}
			select {
			case <-j.done:
			case <-s.ctx.Done():
				s.checkKilled()
			}
		case <-s.ctx.Done():
			s.checkKilled()
		}
		return true
	}
	if len(args) == 1 {
		for _, j := range s.jobs {
			if !await(j) {
				return signaled
			}
		}
		s.jobs = nil
		return 0
	}
	status := 0
	for _, arg := range args[1:] {
		pid, err := strconv.Atoi(arg)
		if err != nil && !strings.HasPrefix(arg, "%") {
			s.errorf("wait: illegal number: %s", arg)
			return 2
		}
		status = proc.NotFound
		for _, j := range s.jobs {
			if j.pid == pid || arg == "%"+strconv.Itoa(s.jobNumber(j)) {
				if !await(j) {
					return signaled
				}
				status = j.status
			}
		}
	}
	return status
}

func (s *Shell) jobNumber(j *job) int {
	for i, other := range s.jobs {
		if other == j {
			return i + 1
		}
	}
	return 0
}

// builtinJobs is `jobs [-lp]`.
func builtinJobs(s *Shell, args []string) int {
	onlyPids := len(args) > 1 && strings.Contains(args[1], "p")
	for i, j := range s.jobs {
		select {
		case <-j.done:
			continue
		default:
		}
		if onlyPids {
			s.print(strconv.Itoa(j.pid) + "\n")
			continue
		}
		s.print("[" + strconv.Itoa(i+1) + "]  " + strconv.Itoa(j.pid) + " Running\n")
	}
	return 0
}

// signals are those that scripts name, by number.
var signals = map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 6: "ABRT", 9: "KILL", 10: "USR1", 12: "USR2", 13: "PIPE", 14: "ALRM",
	15: "TERM", 17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP"}

// signalNumber reads a signal's name, with or without SIG, or its number.
func signalNumber(text string) (int, bool) {
	if n, err := strconv.Atoi(text); err == nil {
		return n, n >= 0 && n < 65
	}
	text = strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for n, name := range signals {
		if name == text {
			return n, true
		}
	}
	return 0, text == "EXIT"
}

// builtinKill is `kill [-SIGNAL] PID…`. Only jobs of this instance and the shell itself can be reached: there is no way
// from one WASI instance to another.
func builtinKill(s *Shell, args []string) int {
	args = args[1:]
	sig := 15
	if len(args) > 0 && args[0] == "-l" {
		if len(args) > 1 {
			n, err := strconv.Atoi(args[1])
			if name, ok := signals[n&0x7f]; err == nil && ok {
				s.print(name + "\n")
				return 0
			}
			if n, ok := signalNumber(args[1]); err != nil && ok {
				s.print(strconv.Itoa(n) + "\n")
				return 0
			}
			s.errorf("kill: unknown signal '%s'", args[1])
			return 1
		}
		for n := 1; n < 32; n++ {
			if name, ok := signals[n]; ok {
				s.print(strconv.Itoa(n) + ") " + name + "\n")
			}
		}
		return 0
	}
	if len(args) > 1 && args[0] == "-s" {
		args = append([]string{"-" + args[1]}, args[2:]...)
	}
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && args[0] != "--" {
		n, ok := signalNumber(args[0][1:])
		if !ok {
			s.errorf("kill: bad signal name '%s'", args[0][1:])
			return 1
		}
		sig, args = n, args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		s.errorf("kill: you need to specify whom to kill")
		return 1
	}
	status := 0
	for _, arg := range args {
		if !s.signal(arg, sig) {
			status = 1
		}
	}
	return status
}

func (s *Shell) signal(target string, sig int) bool {
	pid, err := strconv.Atoi(target)
	if number, ok := strings.CutPrefix(target, "%"); ok {
		n, _ := strconv.Atoi(number)
		if n < 1 || n > len(s.jobs) {
			s.errorf("kill: %s: no such job", target)
			return false
		}
		pid, err = s.jobs[n-1].pid, nil
	}
	if err != nil {
		s.errorf("kill: invalid number '%s'", target)
		return false
	}
	if pid == s.pid {
		if s.isSub { // $$ is the main shell, which other goroutines must not touch
			s.errorf("kill: can't kill pid %d: Operation not permitted", pid)
			return false
		}
		s.deliver(sig)
		return true
	}
	s.sys.mu.Lock()
	j := s.sys.jobs[pid]
	s.sys.mu.Unlock()
	if j == nil {
		s.errorf("kill: can't kill pid %d: No such process", pid)
		return false
	}
	switch sig {
	case 0, 17, 18:
		return true
	case 19, 20:
		s.errorf("kill: can't stop pid %d: Operation not permitted", pid)
		return false
	}
	j.shell.cancel(exitSignal(sig))
	select { // so that a `wait` or `kill -0` straight after sees it gone, but not for longer than a signal would take
	case <-j.done:
	case <-time.After(10 * time.Millisecond):
	}
	return true
}

// deliver sends the shell process a signal: its trap, or the default action.
func (s *Shell) deliver(sig int) {
	name := signals[sig]
	action, trapped := s.traps[name]
	switch {
	case trapped && action == "" && sig != 9, sig == 0, sig == 17, sig == 18:
	case trapped && sig != 9:
		s.pending = append(s.pending, name)
		s.runTraps()
	default:
		s.traps = map[string]string{}
		s.exit(128 + sig)
	}
}

// builtinTrap is `trap [ACTION SIGNAL…]`.
func builtinTrap(s *Shell, args []string) int {
	args = args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 || len(args) == 1 && args[0] == "-p" {
		for n := 0; n < 65; n++ {
			name := signals[n]
			if n == 0 {
				name = "EXIT"
			}
			if action, ok := s.traps[name]; ok {
				s.print("trap -- " + quote(action) + " " + name + "\n")
			}
		}
		return 0
	}
	action, names := args[0], args[1:]
	if _, err := strconv.Atoi(action); len(names) == 0 || err == nil {
		action, names = "-", args
	}
	status := 0
	for _, arg := range names {
		n, ok := signalNumber(arg)
		name := signals[n]
		if n == 0 {
			name = "EXIT"
		}
		if !ok || name == "" {
			s.errorf("trap: %s: invalid signal specification", arg)
			status = 1
			continue
		}
		if action == "-" {
			delete(s.traps, name)
		} else {
			s.traps[name] = action
		}
		s.dispose(n, action)
	}
	return status
}

// dispose has the instance's signals come to the first shell as its trap says. A
// signal that is not trapped has its default action at once.
func (s *Shell) dispose(n int, action string) {
	if s.arrived == nil || n == 0 || n == 9 || n == 19 {
		return
	}
	switch sig := syscall.Signal(n); action {
	case "-":
		signal.Reset(sig)
	case "":
		signal.Ignore(sig)
	default:
		s.notified = true
		signal.Notify(s.arrived, sig)
	}
}

// take notes a signal that has arrived from outside, if there is a trap for it
// still.
func (s *Shell) take(sig os.Signal) bool {
	name := signals[number(sig)]
	if s.traps[name] == "" {
		return false
	}
	s.pending = append(s.pending, name)
	return true
}

func number(sig os.Signal) int {
	n, _ := sig.(syscall.Signal)
	return int(n)
}
