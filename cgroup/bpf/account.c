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
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_ringbuf_output)(void *map, void *data, u64 size, u64 flags) = (void *)130;

struct sched_entity {
	u64 sum_exec_runtime;
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

// A thread of this process. The first line is shared with user space, which
// writes it only on the thread itself; programs write it only on the processor
// that runs the thread, so that to each other they are what a signal handler is
// to what it interrupts.
struct thread {
	u32 tid;        // user space: 0 is free; programs: 0 when it has exited
	u32 unused;
	u64 owner;      // user space: generation << 32 | index of the container
	u64 since;      // user space: up to when it has charged
	u64 event;      // programs: when it was last switched in or charged
	u64 claimed;    // user space: all that it has ever charged
	u64 sum;        // of sum_exec_runtime, as far as charged; user space sets the first
	u64 ended;      // user space: when it has stopped to serve the owner; 0 is not
	u64 taken;      // programs, only from here: of claimed, what they have allowed for
	s64 debt;       // what was claimed in excess, <= 0
	u64 delay;
	u64 minor;
	u64 major;
	u64 seen;
	u64 pad[3];
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
		if (e && e->tid == tid)
			return e;
	}
	return 0;
}

INLINE struct container *add(u64 owner, u64 ran)
{
	u32 index = (u32)owner;
	struct container *c = bpf_map_lookup_elem(&containers, &index);

	if (!c || c->generation != (u32)(owner >> 32)) {
		index = 0;
		c = bpf_map_lookup_elem(&containers, &index);
		if (!c)
			return 0;
	}
	if (ran)
		__sync_fetch_and_add(&c->cpu, ran);
	return c;
}

// charge is told the time if the thread goes on: one that is switched out has its
// next event when it comes back.
INLINE void charge(int btf, struct thread *e, struct task_struct *t, u64 now)
{
	u64 sum = 0, delay = 0, minor = 0, major = 0, claimed = e->claimed;

	get(sum, t->se.sum_exec_runtime);
	get(minor, t->min_flt);
	get(major, t->maj_flt);
	if (__builtin_preserve_field_info(t->sched_info.run_delay, 2))
		get(delay, t->sched_info.run_delay);

	s64 rest = (s64)(sum - e->sum) - (s64)(claimed - e->taken) + e->debt;
	e->sum = sum;
	e->taken = claimed;
	e->debt = 0;
	if (rest < 0) {
		e->debt = rest;
		rest = 0;
	}
	// What is not charged yet of a stint that has ended is its owner's, and what
	// came after it the host's.
	if (e->ended) {
		u64 from = e->since > e->event ? e->since : e->event;
		s64 own = e->ended > from ? e->ended - from : 0;
		if (own < rest) {
			add(0, rest - own);
			rest = own;
		}
	}
	struct container *c = add(e->owner, rest);
	if (!c)
		return;
	if (e->seen) {
		if (delay != e->delay)
			__sync_fetch_and_add(&c->delay, delay - e->delay);
		if (minor != e->minor)
			__sync_fetch_and_add(&c->minor, minor - e->minor);
		if (major != e->major)
			__sync_fetch_and_add(&c->major, major - e->major);
	}
	e->delay = delay;
	e->minor = minor;
	e->major = major;
	e->seen = 1;
	if (now)
		e->event = now;

	u64 limit = c->limit;
	if (limit && c->cpu >= limit && !c->spent) {
		struct spent_event s = {e->owner, c->cpu, limit, bpf_ktime_get_ns()};
		c->spent = 1;
		if (bpf_ringbuf_output(&events, &s, sizeof(s), 0))
			__sync_fetch_and_add(&dropped, 1);
	}
}

INLINE int on_switch(int btf, struct task_struct *prev, struct task_struct *next)
{
	u32 self = self_tgid, from = 0, to = 0;
	struct thread *e;

	get(from, prev->tgid);
	get(to, next->tgid);
	if (from == self && (e = find(tid_of(btf, prev))))
		charge(btf, e, prev, 0);
	if (to == self && (e = find(tid_of(btf, next))))
		e->event = bpf_ktime_get_ns();
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
	if ((e = find(tid_of(btf, t))))
		charge(btf, e, t, bpf_ktime_get_ns());
	return 0;
}

// on_exit frees the thread's entry: no table fills with threads that are gone.
INLINE int on_exit(int btf, struct task_struct *t)
{
	struct thread *e;

	if ((u32)(bpf_get_current_pid_tgid() >> 32) != self_tgid || (u64)t != bpf_get_current_task())
		return 0;
	if ((e = find(tid_of(btf, t)))) {
		charge(btf, e, t, bpf_ktime_get_ns());
		e->owner = 0;
		e->ended = 0;
		e->debt = 0;
		e->seen = 0;
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

char license_[] SEC("license") = "Dual MIT/GPL";
