package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	// boots is how often a machine is started that says nothing: emulated kernels
	// have hung before their first program ran, if rarely. What has begun to test is
	// never run again.
	boots = 3
	// mostSaid bounds what is copied of it, in bytes, and longestLine what is looked at.
	mostSaid    = 64 << 20
	longestLine = 1 << 20
)

// boot runs the machine and copies what it says. The emulator runs both
// processors in one thread: with two, kernels have hung.
func (m machine) boot(kernel, initrd, args string, timeout time.Duration) error {
	emulator := append(m.emulator[:len(m.emulator):len(m.emulator)], "-accel", "tcg,thread=single", "-smp", "2", "-m", "1024",
		"-nographic", "-no-reboot", "-net", "none", "-kernel", kernel, "-initrd", initrd,
		"-append", "console="+m.console+" quiet panic=-1 loglevel=3 "+m.clockArgs()+args)
	return run(emulator, timeout, timeout/(boots+1))
}

// run is boot, of a machine that is hung if it has run nothing after patience.
func run(emulator []string, timeout, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for i := 1; ; i++ {
		o, err := watch(ctx, emulator, patience)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("not finished after %v, and was ended; the last that it said: %s", timeout, o.last)
		case !o.begun && i < boots:
			fmt.Printf("vm: it did not come to run anything (%v): again\n", err)
			continue
		case !o.begun:
			return fmt.Errorf("%d times it did not come to run anything: %w", boots, err)
		}
		return errors.Join(err, o.err())
	}
}

// watch runs it once.
func watch(ctx context.Context, emulator []string, patience time.Duration) (o outcome, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	cmd := exec.CommandContext(ctx, emulator[0], emulator[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return o, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return o, err
	}
	hung := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing for %v", patience)) })
	defer hung.Stop()
	err = o.read(io.LimitReader(out, mostSaid), os.Stdout, func() { hung.Stop() })
	_, _ = io.Copy(io.Discard, out) // or it would wait for somebody to read the rest
	ended := cmd.Wait()
	fmt.Printf("%.1f s in the machine\n", time.Since(began).Seconds())
	if ctx.Err() != nil {
		ended = context.Cause(ctx)
	}
	return o, errors.Join(err, ended)
}

// outcome is what the machine has said, so far.
type outcome struct {
	begun  bool // its first program has run, or a test
	passed bool
	failed []string // what init said of it
	last   string   // line
}

// read copies lines, and calls begun at the first that a program of ours has written.
func (o *outcome) read(from io.Reader, to io.Writer, begun func()) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		fmt.Fprintln(to, line)
		was := o.begun
		o.line(line)
		if o.begun && !was {
			begun()
		}
	}
	return lines.Err()
}

// line notes one. The firmware clears the screen before what comes first, and the
// kernel may say something after the last word: what init says need not be a line.
func (o *outcome) line(line string) {
	if strings.TrimSpace(line) != "" {
		o.last = line
	}
	_, said, ours := strings.Cut(line, "vm: ")
	o.begun = o.begun || ours || strings.HasPrefix(line, "=== RUN")
	switch {
	case !ours:
	case strings.HasPrefix(said, "all passed"):
		o.passed = true
	case !strings.HasPrefix(said, "test ") && !strings.HasPrefix(said, "Linux "):
		o.failed = append(o.failed, said)
	}
}

func (o *outcome) err() error {
	switch {
	case o.passed:
		return nil
	case len(o.failed) > 0:
		return errors.New(strings.Join(o.failed, "; "))
	}
	return fmt.Errorf("the machine ended before its tests did; the last that it said: %s", o.last)
}
