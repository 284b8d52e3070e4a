//go:build linux && (amd64 || arm64)

package bpf

import (
	"os"
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
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := c.counts()
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	go func() {
		defer w.Close()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for range n {
			w.Write([]byte{1})
			pause := unix.NsecToTimespec(1000)
			unix.Nanosleep(&pause, nil) // a switch
		}
	}()
	for buf := make([]byte, 1); ; {
		if k, _ := r.Read(buf); k == 0 {
			break
		}
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
		t.Errorf("%d switches, of one thread alone there were %d", all, n)
	}
}
