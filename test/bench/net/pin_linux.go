package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const canPin = true

// pin confines the process to one processor and makes it the program that args
// name. It returns only when it cannot.
func pin(args []string) error {
	runtime.LockOSThread() // what exec keeps is the calling thread's
	var have, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return err
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if have.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	env := os.Environ()
	for i, e := range env {
		if strings.HasPrefix(e, become+"=") {
			env[i] = become + "="
		}
	}
	return syscall.Exec(path, args, env)
}

// compute keeps a processor awake when nothing else wants it, until the process is
// killed.
func compute() {
	runtime.LockOSThread()
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	}
	//lint:ignore SA5002 to spin is what it is for
	for {
	}
}
