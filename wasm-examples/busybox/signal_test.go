package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// The first shell's traps are run for signals from outside.
func TestSignalTraps(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		want   string
		code   int
	}{
		"wait is interrupted":    {`trap 'echo bye; exit 3' TERM; echo up; sleep 60 & wait`, syscall.SIGTERM, "bye\n", 3},
		"after a command":        {`trap 'echo bye; got=1' INT; echo up; until [ "$got" ]; do sleep 0.1; done; false`, syscall.SIGINT, "bye\n", 1},
		"in a script that spins": {`trap 'exit 7' TERM; echo up; while :; do :; done`, syscall.SIGTERM, "", 7},
		"ignored":                {`trap '' TERM; echo up; sleep 0.3; echo end`, syscall.SIGTERM, "end\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Args = []string{"sh", "-c", c.script}
			cmd.Env = append(os.Environ(), asBusybox+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			if up, err := lines.ReadString('\n'); up != "up\n" {
				t.Fatalf("%q, %v", up, err)
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			got := ""
			for {
				line, err := lines.ReadString('\n')
				got += line
				if err != nil {
					break
				}
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); got != c.want || code != c.code {
				t.Errorf("%q and %d, want %q and %d", got, code, c.want, c.code)
			}
		})
	}
}

// A trap that runs while the shell waits ends the wait. Nothing tells when it has begun
// to: it is sent signals until it has.
func TestSignalEndsWait(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Args = []string{"sh", "-c", `trap 'echo bye' TERM; echo up; sleep 600 & wait; echo $?; trap '' TERM; echo end`}
	cmd.Env = append(os.Environ(), asBusybox+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1000)
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	if up := <-said; up != "up" {
		t.Fatalf("%q", up)
	}
	byes, rest := 0, ""
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for open := true; open; {
		var line string
		select {
		case line, open = <-said:
			if line == "bye" {
				byes++
			} else if open {
				rest += line + " "
			}
		case <-again.C:
			_ = cmd.Process.Signal(syscall.SIGTERM) // to one that has ended, perhaps
		}
	}
	if err := cmd.Wait(); err != nil || byes == 0 || rest != "143 end " {
		t.Errorf("%v, %d times bye, %q; want 143 and the end", err, byes, rest)
	}
}
