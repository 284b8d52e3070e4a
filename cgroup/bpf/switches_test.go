//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The scheduler's counts grow by at least the switches of a thread that gives its
// processor up each time.
func TestSwitchCounter(t *testing.T) {
	spec, err := loadAccount()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != "switches" {
			delete(spec.Programs, name)
		}
	}
	collection, err := newCollection(spec, nil)
	if err != nil {
		missing(t, explain(err))
	}
	defer collection.Close()
	c := switchCounter{program: collection.Programs["switches"]}
	before, err := c.counts()
	if err != nil {
		missing(t, err)
	}
	const n = 500
	if err := takeTurns(n); err != nil {
		t.Fatal(err)
	}
	after, err := c.counts()
	if err != nil {
		t.Fatal(err)
	}
	var all uint32
	for i := range after {
		all += after[i] - before[i]
	}
	t.Logf("%d switches, %v", all, after)
	stat, err := allSwitches()
	if err != nil || stat < n {
		t.Errorf("all in all %d, %v", stat, err)
	}
	if all < n || all > 1<<31 {
		t.Errorf("%d switches, of two threads alone there were %d", all, n)
	}
}

// takeTurns has two threads on one processor switch at least so often: each waits for the
// other one.
func takeTurns(n int) error {
	var cpus, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return err
	}
	for i := 0; one.Count() == 0; i++ {
		if cpus.IsSet(i) {
			one.Set(i)
		}
	}
	var there, back [2]int
	if err := errors.Join(unix.Pipe2(there[:], unix.O_CLOEXEC), unix.Pipe2(back[:], unix.O_CLOEXEC)); err != nil {
		return err
	}
	ended := make(chan error)
	run := func(in, out int, first bool) {
		runtime.LockOSThread() // which ends with it
		err := unix.SchedSetaffinity(0, &one)
		b := make([]byte, 1)
		for i := 0; i < n && err == nil; i++ {
			if !first || i > 0 {
				_, err = ignoringEINTR(unix.Read, in, b)
			}
			if err == nil {
				_, err = ignoringEINTR(unix.Write, out, b)
			}
		}
		if first && err == nil {
			_, err = ignoringEINTR(unix.Read, in, b)
		}
		unix.Close(in)
		unix.Close(out)
		ended <- err
	}
	go run(back[0], there[1], true)
	go run(there[0], back[1], false)
	return errors.Join(<-ended, <-ended)
}

func ignoringEINTR(f func(int, []byte) (int, error), fd int, b []byte) (n int, err error) {
	for {
		if n, err = f(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}
