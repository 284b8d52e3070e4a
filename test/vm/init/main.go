//go:build linux

// Command init is process 1 of the machine in which command vm runs tests, or what
// systemd calls there when they have ended. Its
// arguments are the packages whose tests are /test00, /test01, …, each with what is
// chosen of them, package=regexp; or commands, package:argument,argument.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 { // systemd is, and says how the tests ended
		if result := os.Getenv("SERVICE_RESULT"); result != "success" {
			fmt.Println("vm: the service ended with", result, os.Getenv("EXIT_STATUS"))
		} else {
			fmt.Println("vm: all passed")
		}
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("vm:", err)
	} else {
		fmt.Println("vm: all passed")
	}
	os.Stdout.Sync()
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		panic(err)
	}
}

func run(tests []string) error {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"},
		{"cgroup2", "/sys/fs/cgroup"}, {"bpf", "/sys/fs/bpf"}, {"tracefs", "/sys/kernel/tracing"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err == nil {
		fmt.Println("vm: Linux", unix.ByteSliceToString(uname.Release[:]))
	}
	failed := 0
	for i, t := range tests {
		p, chosen, _ := strings.Cut(t, "=")
		args := []string{"-test.v", "-test.timeout=10m", "-test.run=" + chosen}
		if c, arguments, command := strings.Cut(t, ":"); command {
			p, chosen, args = c, arguments, strings.Split(arguments, ",")
		}
		fmt.Println("vm: test", p, chosen)
		cmd := exec.Command(fmt.Sprintf("/test%02d", i), args...)
		cmd.Dir = "/tmp"
		// Whatever is missing here should not be.
		cmd.Env = []string{"CI=true", "HOME=/root", "TMPDIR=/tmp", "PATH=/", "WASMPOD_TEST_VM=1"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			fmt.Printf("vm: %s: %v\n", p, err)
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d packages failed", failed, len(tests))
	}
	return nil
}

// loopbackUp does what ip link set lo up does.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
