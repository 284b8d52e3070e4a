package bpf

import (
	"fmt"
	"strings"
	"time"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64,arm64 -no-global-types oom oom.c -- -O2 -g -Wall -mcpu=v2

// OOMKill is a process that the kernel has killed for want of memory: this one, or
// one that descends from it.
type OOMKill struct {
	At   time.Time
	PID  int // as this process calls it
	Self bool
	// Detailed says that Command to Adj are known. The kernel before 6.8 tells only
	// the number of a victim that another process's need of memory has killed.
	Detailed bool
	Command  string
	// Bytes.
	TotalVM, AnonRSS, FileRSS, ShmemRSS int64
	// Group is the ID of its group, in the hierarchy of the memory controller: the
	// inode of its directory.
	Group uint64
	Adj   int // oom_score_adj
	// LimitKnown says that Limit is: the ID of the group whose limit did not
	// suffice, 0 if it was the machine's memory.
	LimitKnown bool
	Limit      uint64
}

// String is what the kernel writes in its log, as far as it is known.
func (k *OOMKill) String() string {
	var b strings.Builder
	switch {
	case k.LimitKnown && k.Limit != 0:
		b.WriteString("Memory cgroup out of memory")
	default:
		b.WriteString("Out of memory")
	}
	fmt.Fprintf(&b, ": Killed process %d", k.PID)
	if k.Detailed {
		fmt.Fprintf(&b, " (%s) total-vm:%dkB, anon-rss:%dkB, file-rss:%dkB, shmem-rss:%dkB, oom_score_adj:%d",
			k.Command, k.TotalVM>>10, k.AnonRSS>>10, k.FileRSS>>10, k.ShmemRSS>>10, k.Adj)
	}
	return b.String()
}

// OOMMechanism is how kills are noticed.
type OOMMechanism int

// From the best on.
const (
	OOMLimit OOMMechanism = iota + 1 // and whose limit it was: fentry at oom_kill_process
	OOMBTF                           // tp_btf at mark_victim
	OOMRaw                           // the same as a raw tracepoint
	OOMNone                          // not at all
)

func (m OOMMechanism) String() string {
	switch m {
	case OOMLimit:
		return "tp_btf mark_victim, fentry oom_kill_process"
	case OOMBTF:
		return "tp_btf mark_victim"
	case OOMRaw:
		return "raw tracepoint mark_victim"
	}
	return "none"
}

// OOMConfig says how to watch.
type OOMConfig struct {
	// Mechanism is the first to try; zero is the best.
	Mechanism OOMMechanism
}
