//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/cgroup"
)

// The test binary is also a process that loses its capabilities between the tables
// and the programs.
func init() {
	if os.Getenv("BPF_TEST_DO") != "be refused" {
		return
	}
	if err := beRefused(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("as it should be")
	os.Exit(0)
}

func beRefused() error {
	a := Open(Config{Containers: 16, Delay: time.Hour})
	if a.shared == nil {
		return fmt.Errorf("no tables: %v", a.Missing())
	}
	c, err := a.NewAccount(cgroup.Bandwidth{})
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	before := threadTime()
	s := begin(c)
	began := threadTime()
	spin(10 * time.Millisecond)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	a.loading.Do(a.loadBest)
	if m := a.Mechanism(); m != ThreadClock {
		return fmt.Errorf("%v without capabilities", m)
	}
	missing := errors.Join(a.Missing()...).Error()
	if len(a.Missing()) != 2 || strings.Count(missing, "needs CAP_BPF and CAP_PERFMON") != 2 {
		return fmt.Errorf("missing: %s", missing)
	}
	spin(10 * time.Millisecond)
	least := time.Duration(threadTime() - began)
	s.End(Now())
	took := time.Duration(threadTime() - before)
	if _, err := a.NextSpent(); !errors.Is(err, errors.ErrUnsupported) || a.Dropped() != 0 {
		return fmt.Errorf("records without a program: %v", err)
	}
	// What is around the stint is the host's; the sum is the thread's.
	u := c.Close().CPU
	if sum := u + a.Host().CPU; sum > took || sum < least || u == 0 {
		return fmt.Errorf("%v are charged, %v to the container, of %v to %v", sum, u, least, took)
	}

	fds := func() int {
		list, _ := os.ReadDir("/proc/self/fd")
		return len(list)
	}
	open := fds()
	for range 3 {
		w := WatchOOM(OOMConfig{})
		if _, killed := w.Killed(os.Getpid(), 0); killed || w.Mechanism() != OOMNone || len(w.Missing()) != 3 {
			return fmt.Errorf("%v without capabilities, missing %v", w.Mechanism(), w.Missing())
		}
		if _, err := w.Keep("/nowhere"); err == nil {
			return errors.New("nothing was kept somewhere")
		}
		if err := w.Close(); err != nil {
			return err
		}
		if _, err := OpenConfinement(); err == nil {
			return errors.New("processes are confined without capabilities")
		}
	}
	if now := fds(); now > open {
		return fmt.Errorf("%d descriptors, were %d", now, open)
	}
	return a.Close()
}

// Whoever is refused programs when the tables are there already goes on as without
// BPF: nothing is lost, nothing leaks, and it is told what is missing.
func TestRefusedMidway(t *testing.T) {
	a := Open(Config{Containers: 16})
	lacks := a.Missing()
	_ = a.Close()
	if len(lacks) > 0 {
		missing(t, lacks[0])
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BPF_TEST_DO=be refused")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), unix.ENOTSUP.Error()) {
		t.Skip("cgo: capabilities are not given up by all threads")
	}
	if err != nil || !strings.HasPrefix(string(out), "as it should be") {
		t.Errorf("%v: %s", err, out)
	}
}
