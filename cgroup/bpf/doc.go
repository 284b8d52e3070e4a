// Package bpf charges CPU time to containers whose guests share the threads of
// this process, and says when a container has spent its budget.
//
// # What is measured
//
// The kernel counts what a thread has run (sum_exec_runtime). A program on
// sched_switch and sched_stat_runtime adds what is new in that count to the
// container that the thread serves. Which one that is, user space says by a
// store into a table that both have mapped, when a guest gets a slot and when it
// gives it back; containers' sums are in another such table and are read without
// a system call.
//
// Between two events of the scheduler a thread can serve several containers.
// Whoever changes the owner claims for the old one the time since the last
// event or change; the program gives the next owner what the kernel has counted less
// what was claimed. So the parts come
// from a clock, but their sum is always the kernel's. A thread that was switched
// out since has an event, so the clock never counts time off the processor.
//
// What is claimed and given is kept in the thread's own cells, one for each of the
// owners that it has served last, until it is 5 µs or another owner needs the cell: guests
// that hand a thread to one another, and threads that switch all the time, write to
// nothing that other processors do. So a container's sum lags by less than 5 µs for each
// thread, and that is what an account may miss when it is closed.
//
// # Without BPF
//
// The same tables are in ordinary memory then. A stint of less than 20 µs is
// charged the time it took; after a longer one, and every millisecond, the
// thread's CPU clock is read, and what was charged too much or too little since
// it was last read is put right. Where there is no such clock (not Linux)
// wall-clock time is charged. [Accounting.Mechanism] says which it is.
//
// Loading the programs takes some 25 ms of processor time. [Config.Delay] puts it
// off: until then the thread's clock is used, in the tables that the programs
// will have, so that nothing of what is counted is lost.
//
// # Rest
//
// A program at sched_switch costs every switch of context on the host 25 to 50 ns, most of
// which is the kernel's way to it. With [Config.Rest] that is bounded: while a processor
// switches more than 400,000 times a second, or no container runs, the programs are taken
// off, and it is as without BPF. What changes is that nothing is charged to a container of
// what its threads wait, and of their faults. [Accounting.Resting] says so.
//
// # Quota
//
// [cgroup.Budget] turns periods and quota into a limit of the container's own
// CPU time. The limit is in the table too: [Stint.Check], in a safepoint, adds
// what has run since and compares, without a system call; the program compares
// as well and sends a record when a thread in a long system call has passed it.
//
// # Kills by the kernel
//
// An [OOMWatch] notes whom the kernel kills for want of memory, if it is this process
// or one that descends from it: a program at oom/mark_victim says how much memory the
// victim had and in which group; where the kernel has fentry, one at oom_kill_process
// adds whose limit it was. A process that has died cannot tell: [OOMWatch.Keep] has the
// kernel keep its end for [LastOOMKill] in the next one.
//
// # Confinement
//
// A [Confinement] is a wall around processes that read what others have written, by
// programs at the kernel's security hooks (BPF LSM): no sockets, no other programs or
// processes, no signals to and no tracing of others.
package bpf

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64,arm64 -no-global-types account account.c -- -O2 -g -Wall -mcpu=v2
