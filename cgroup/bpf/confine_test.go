//go:build linux && (amd64 || arm64)

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also a process that tries what it may not do.
func init() {
	if os.Getenv("BPF_TEST_DO") != "try" {
		return
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is confined, or is not to be
	say := func(what string, err error) {
		if err == nil {
			fmt.Println(what, "done")
			return
		}
		fmt.Println(what, errors.Is(err, unix.EPERM))
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	say("socket", err)
	unix.Close(fd)
	_, err = syscall.ForkExec("/proc/self/exe", []string{"exe"}, &syscall.ProcAttr{Env: []string{"BPF_TEST_DO=nothing"}})
	say("process", err)
	say("signal", unix.Kill(os.Getppid(), 0))
	err = unix.PtraceAttach(os.Getppid())
	say("trace", err)
	if err == nil {
		_ = unix.PtraceDetach(os.Getppid())
		_ = unix.Kill(os.Getppid(), unix.SIGCONT)
	}
	// What a Go program does by itself.
	threads := make(chan error)
	for range 8 {
		go func() {
			threads <- unix.Tgkill(os.Getpid(), unix.Gettid(), 0)
		}()
		if err := <-threads; err != nil {
			say("thread", err)
		}
	}
	say("program", unix.Exec("/proc/self/exe", []string{"exe"}, []string{"BPF_TEST_DO=nothing"}))
	os.Exit(0)
}

func init() {
	if os.Getenv("BPF_TEST_DO") == "nothing" {
		fmt.Println("program done")
		os.Exit(0)
	}
}

func try(t *testing.T, confine func(pidfd int)) string {
	t.Helper()
	pidfd := -1
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BPF_TEST_DO=try")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	confine(pidfd)
	in.Close()
	b, err := io.ReadAll(bufio.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return strings.Join(strings.Split(strings.TrimSpace(string(b)), "\n"), ", ")
}

func TestConfinement(t *testing.T) {
	free := try(t, func(int) {}) // some kernels let nobody trace its parent
	c, err := OpenConfinement()
	if err != nil {
		if !errors.Is(err, errTrampolines) {
			lacking(t, "many kernels lack or refuse it: ", err)
		}
		t.Skip(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := try(t, func(pidfd int) {
		if err := c.Add(pidfd); err != nil {
			t.Fatal(err)
		}
	})
	const want = "socket true, process true, signal true, trace true, program true"
	if got != want {
		t.Errorf("confined: %s", got)
	}
	if n := c.Denied(); n != 5 {
		t.Errorf("%d things were denied, want 5", n)
	}
	if got := try(t, func(int) {}); got != free || !strings.HasPrefix(got, "socket done, process done, signal done, ") {
		t.Errorf("not confined: %s, and before that there was a confinement: %s", got, free)
	}
	if c.Denied() != 5 {
		t.Errorf("others are denied things: %d", c.Denied())
	}
	if err := c.Add(0); err == nil {
		t.Error("standard input was taken for a process")
	}
}
