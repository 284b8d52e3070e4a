//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

// Charges the CPU time of this process's threads to the containers that they
// serve. Nothing of the kernel's headers is needed: what is used of its types is
// declared here and relocated when the object is loaded (CO-RE).

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define CORE __attribute__((preserve_access_index))

enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_RINGBUF = 27, BPF_F_MMAPABLE = 1 << 10 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_ringbuf_output)(void *map, void *data, u64 size, u64 flags) = (void *)130;

struct rq {
	u64 nr_switches;
} CORE;

struct cfs_rq {
	struct rq *rq;
} CORE;

struct sched_entity {
	u64 exec_start;
	u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq;
} CORE;

struct sched_info {
	u64 run_delay;
} CORE;

struct upid {
	int nr;
} CORE;

struct pid {
	u32 level;
	struct upid numbers[1];
} CORE;

struct task_struct {
	int pid;
	int tgid;
	struct pid *thread_pid;
	struct sched_entity se;
	struct sched_info sched_info;
	unsigned long min_flt;
	unsigned long maj_flt;
} CORE;

#define CELLS 3

// A thread of this process. What it has run is kept in cells, one for each of the
// owners it has served last, until it is worth adding to a container: guests that
// hand a thread to one another write to nothing else. Cell 0 is the host's.
//
// User space writes only on the thread itself, and programs only on the processor
// that runs the thread, so that to each other they are what a signal handler is to
// what it interrupts. paid has two writers: user space takes it with an atomic
// instruction.
struct thread {
	u32 tid;            // user space: 0 is free; programs: 0 when it has exited
	u32 passed;         // user space: others with this place in the table are further on
	u64 since;          // user space: up to when it has claimed
	u64 event;          // programs: when it was last switched in or charged
	u64 claimed[CELLS]; // user space: what it has ever claimed, by its clock
	u64 owner[CELLS-1]; // user space: generation << 32 | index of the container
	u64 sum;            // programs: of sum_exec_runtime, as far as it is in cells; user space sets the first
	u64 taken;          // programs: of claimed, what they have allowed for
	u64 paid[CELLS];    // of what is in the cell, what was added to its container
	u64 delay;          // programs, and from here only they
	u32 minor;
	u32 major;
	u32 cur;            // user space: the cell of who is served
	unsigned short seen;   // user space: 0, as delay, minor and major are not known
	unsigned short recent; // user space: the cell of the container that was served last
};

// A container. Index 0 is the host: whatever serves no container.
struct container {
	u32 generation; // user space
	u32 spent;      // programs set it, user space clears it
	u64 cpu;        // ns
	u64 limit;      // user space: cpu at which the budget is spent; 0 is none
	u64 delay;      // ns runnable without a processor
	u64 minor;      // page faults
	u64 major;
	u64 pad[2];
};

// What the ring buffer says: a container's budget is spent.
struct spent_event {
	u64 owner;
	u64 cpu;
	u64 limit;
	u64 time;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct container);
} containers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

volatile u32 self_tgid;  // as the kernel counts, whatever the PID namespace
volatile u32 self_level; // of the PID namespace
volatile u64 dropped;    // records that the ring buffer had no room for
#define thread_mask 4095

#define PROBES 4
// SHORT is how many ns a cell may hold that are not worth adding to its container.
#define SHORT 5000

// What a processor's own clock, from which exec_start is, has to be set forward by to be
// CLOCK_MONOTONIC, which takes 35 ns to read. It is found anew when it is older than
// FRESH ns, as time that a hypervisor has taken is not on that clock.
struct clock {
	u64 at;
	u64 ahead;
	u64 pad[6];
};

#define CPUS 256
#define FRESH (1 << 17)

struct clock clocks[CPUS];

// get reads a member. Where the tracepoint has types (btf is a constant then) it
// is a load; else a call.
#define get(to, from)                                                                          \
	do {                                                                                       \
		if (btf)                                                                               \
			(to) = (from);                                                                     \
		else                                                                                   \
			bpf_probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(from))); \
	} while (0)

INLINE u32 tid_of(int btf, struct task_struct *t)
{
	u32 tid = 0, level = self_level;
	struct pid *p = 0;

	if (!level) {
		u32 pid = 0;
		get(pid, t->pid);
		// Or the compiler makes one load of this and the one below, which the
		// verifier refuses.
		asm volatile("" : "+r"(pid));
		return pid;
	}
	// A number for the verifier, as Linux 6.1 has no arithmetic on typed pointers.
	bpf_probe_read_kernel(&p, sizeof(p), __builtin_preserve_access_index(&t->thread_pid));
	if (!p)
		return 0;
	char *first = (char *)__builtin_preserve_access_index(&p->numbers[0].nr);
	u64 size = __builtin_preserve_type_info(*(struct upid *)0, 1);
	bpf_probe_read_kernel(&tid, sizeof(tid), first + (level & 31) * size);
	return tid;
}

INLINE struct thread *find(u32 tid)
{
	if (!tid)
		return 0;
#pragma unroll
	for (u32 i = 0; i < PROBES; i++) {
		u32 index = (tid + i) & thread_mask;
		struct thread *e = bpf_map_lookup_elem(&threads, &index);
		if (!e || e->tid == tid)
			return e;
		if (!e->passed)
			return 0;
	}
	return 0;
}

// pay adds what a cell holds to its owner's container, or the host's if that is gone.
INLINE struct container *pay(struct thread *e, u32 cell, u64 due)
{
	u64 owner = cell ? e->owner[cell - 1] : 0;
	u32 index = (u32)owner;
	struct container *c = bpf_map_lookup_elem(&containers, &index);

	if (!c || c->generation != (u32)(owner >> 32)) {
		owner = index = 0;
		c = bpf_map_lookup_elem(&containers, &index);
		if (!c)
			return 0;
	}
	__sync_fetch_and_add(&c->cpu, due);

	u64 limit = c->limit;
	if (limit && c->cpu >= limit && !c->spent) {
		struct spent_event s = {owner, c->cpu, limit, bpf_ktime_get_ns()};
		c->spent = 1;
		if (bpf_ringbuf_output(&events, &s, sizeof(s), 0))
			__sync_fetch_and_add(&dropped, 1);
	}
	return c;
}

// flush empties the cells. Faults and waits are rare, or many and short: they are
// whose most of the time since the last look was.
INLINE void flush(int btf, struct thread *e, struct task_struct *t)
{
	unsigned long minor = 0, major = 0;
	u64 delay = 0;
	s64 most = 0;
	struct container *whose = 0;

#pragma unroll
	for (u32 i = 0; i < CELLS; i++) {
		u64 claimed = e->claimed[i];
		s64 due = claimed - e->paid[i];
		if (due <= 0)
			continue; // claimed in excess: until there is that much more
		e->paid[i] = claimed;
		struct container *c = pay(e, i, due);
		if (due > most) {
			most = due;
			whose = c;
		}
	}
	if (!whose)
		return;
	get(minor, t->min_flt);
	get(major, t->maj_flt);
	if (__builtin_preserve_field_info(t->sched_info.run_delay, 2))
		get(delay, t->sched_info.run_delay);
	if (e->seen) {
		if (delay != e->delay)
			__sync_fetch_and_add(&whose->delay, delay - e->delay);
		if ((u32)minor != e->minor)
			__sync_fetch_and_add(&whose->minor, (u32)minor - e->minor);
		if ((u32)major != e->major)
			__sync_fetch_and_add(&whose->major, (u32)major - e->major);
	}
	e->delay = delay;
	e->minor = minor;
	e->major = major;
	e->seen = 1;
}

// charge puts what the thread has run beyond its claims into the cell of who is served.
// It returns whether there is enough to pay.
INLINE int charge(int btf, struct thread *e, struct task_struct *t)
{
	u64 sum = 0, claimed = e->claimed[0] + e->claimed[1] + e->claimed[2];
	u32 cur = *(volatile u32 *)&e->cur;

	get(sum, t->se.sum_exec_runtime);
	if (cur >= CELLS)
		cur = 0;
	u64 paid = e->paid[cur] - (sum - e->sum) + (claimed - e->taken);
	e->sum = sum;
	e->taken = claimed;
	e->paid[cur] = paid;
	return (s64)(e->claimed[cur] - paid) >= SHORT;
}

// switched_in is the time, as the kernel's count of this thread begins again.
INLINE u64 switched_in(int btf, struct task_struct *t)
{
	u64 at = 0;
	u32 cpu = bpf_get_smp_processor_id();

	if (cpu >= CPUS)
		return bpf_ktime_get_ns();
	get(at, t->se.exec_start);
	struct clock *c = &clocks[cpu];
	if (at - c->at >= FRESH) {
		c->ahead = bpf_ktime_get_ns() - at;
		c->at = at;
	}
	return at + c->ahead;
}

INLINE int on_switch(int btf, struct task_struct *prev, struct task_struct *next)
{
	u32 self = self_tgid, from = 0, to = 0;
	struct thread *e;

	get(from, prev->tgid);
	get(to, next->tgid);
	if (from == self && (e = find(tid_of(btf, prev))) && charge(btf, e, prev))
		flush(btf, e, prev);
	if (to == self && (e = find(tid_of(btf, next))))
		e->event = switched_in(btf, next);
	return 0;
}

// on_tick is for threads that are not switched for long. The same tracepoint
// fires for threads of other processors, where a waker holds the queue's lock;
// these are left for later, as only the sums count.
INLINE int on_tick(int btf, struct task_struct *t)
{
	struct thread *e;

	if ((u32)(bpf_get_current_pid_tgid() >> 32) != self_tgid || (u64)t != bpf_get_current_task())
		return 0;
	if ((e = find(tid_of(btf, t)))) {
		charge(btf, e, t);
		flush(btf, e, t);
		e->event = bpf_ktime_get_ns();
	}
	return 0;
}

// on_exit frees the thread's entry: no table fills with threads that are gone.
INLINE int on_exit(int btf, struct task_struct *t)
{
	struct thread *e;

	if ((u32)(bpf_get_current_pid_tgid() >> 32) != self_tgid || (u64)t != bpf_get_current_task())
		return 0;
	if ((e = find(tid_of(btf, t)))) {
		charge(btf, e, t);
		flush(btf, e, t);
		e->cur = 0;
		e->event = bpf_ktime_get_ns();
		e->tid = 0;
	}
	return 0;
}

SEC("tp_btf/sched_switch") int btf_switch(u64 *ctx) { return on_switch(1, (void *)ctx[1], (void *)ctx[2]); }
SEC("tp_btf/sched_stat_runtime") int btf_tick(u64 *ctx) { return on_tick(1, (void *)ctx[0]); }
SEC("tp_btf/sched_process_exit") int btf_exit(u64 *ctx) { return on_exit(1, (void *)ctx[0]); }

SEC("raw_tp/sched_switch") int raw_switch(u64 *ctx) { return on_switch(0, (void *)ctx[1], (void *)ctx[2]); }
SEC("raw_tp/sched_stat_runtime") int raw_tick(u64 *ctx) { return on_tick(0, (void *)ctx[0]); }
SEC("raw_tp/sched_process_exit") int raw_exit(u64 *ctx) { return on_exit(0, (void *)ctx[0]); }

// whoami is run once by the loader: how the kernel calls this process can differ
// from what it calls itself.
SEC("raw_tp/sched_process_exit") int whoami(u64 *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct pid *p = 0;
	u32 level = 0;
	const int btf = 0;

	get(p, t->thread_pid);
	if (p)
		get(level, p->level);
	self_level = level;
	self_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

// switches is run by the loader on each processor in turn, and returns the scheduler's own
// count of how often that has switched contexts, modulo 1 << 31; -1 if it is not known
// where that is. Any task leads to the queue of the processor that it is on.
SEC("raw_tp/sched_process_exit") int switches(u64 *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct cfs_rq *fair = 0;
	struct rq *queue = 0;
	u64 n = 0;
	const int btf = 0;

	if (!__builtin_preserve_field_info(t->se.cfs_rq, 2) || !__builtin_preserve_field_info(fair->rq, 2))
		return -1;
	get(fair, t->se.cfs_rq);
	if (fair)
		get(queue, fair->rq);
	if (!queue)
		return -1;
	get(n, queue->nr_switches);
	return n & 0x7fffffff;
}

char license_[] SEC("license") = "Dual MIT/GPL";
