package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
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
		"status of wait":         {`trap 'echo bye' TERM; echo up; sleep 60 & wait; echo $?`, syscall.SIGTERM, "bye\n143\n", 0},
		"after the command":      {`trap 'echo bye' INT; echo up; sleep 0.5; false`, syscall.SIGINT, "bye\n", 1},
		"in a script that spins": {`trap 'exit 7' TERM; echo up; while :; do :; done`, syscall.SIGTERM, "", 7},
		"ignored":                {`trap '' TERM; echo up; sleep 0.3; echo end`, syscall.SIGTERM, "end\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
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
