//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

// Notes whom the kernel kills for want of memory, if it is this process or one
// that descends from it: how much memory it had, and which group's limit it was.
// What is used of the kernel's types is declared here and relocated when the object
// is loaded (CO-RE).

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define CORE __attribute__((preserve_access_index))

enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_LRU_HASH = 9 };
enum { EXISTS = 2, TYPE_EXISTS = 0, ENUM_EXISTS = 0, ENUM_VALUE = 1 };

static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;

struct upid {
	int nr;
} CORE;

struct pid {
	u32 level;
	struct upid numbers[1];
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup {
	struct kernfs_node *kn;
} CORE;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} CORE;

struct mem_cgroup {
	struct cgroup_subsys_state css;
} CORE;

enum cgroup_subsys_id { memory_cgrp_id = 4 };

struct css_set {
	struct cgroup_subsys_state *subsys[8];
} CORE;

// rss_stat had a type of its own before Linux 6.2.
struct mm_rss_stat {
	long count[4];
} CORE;

struct mm_struct___old {
	struct mm_rss_stat rss_stat;
} CORE;

struct percpu_counter {
	long long count;
} CORE;

struct mm_struct {
	unsigned long total_vm;
	struct percpu_counter rss_stat[4];
} CORE;

struct signal_struct {
	short oom_score_adj;
} CORE;

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct css_set *cgroups;
	char comm[16];
} CORE;

struct oom_control {
	struct mem_cgroup *memcg;
	struct task_struct *chosen;
} CORE;

// Since Linux 6.8 the tracepoint has the task; before, its number.
struct trace_event_raw_mark_victim {
	unsigned long total_vm;
} CORE;

enum { SELF = 1, TASK = 2, LIMIT = 4 };

// A process that was killed. Sizes are in pages.
struct kill {
	u64 time;  // CLOCK_MONOTONIC
	u64 group; // the ID of its group, in the hierarchy of the memory controller
	u64 limit; // of the group whose limit it was; 0: the machine's memory
	u64 total_vm;
	u64 file, anon, shmem;
	u32 pid;   // as this process calls it
	u32 known; // SELF; TASK: what is told of the process; LIMIT: limit is told
	int adj;
	u32 unused;
	char comm[16];
};

// By pid, for who has started one and asks why it ended.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, u32);
	__type(value, struct kill);
} kills SEC(".maps");

// This process's own, where it can be kept beyond its end.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct kill);
} own SEC(".maps");

volatile u32 self_tgid;  // as the kernel counts, whatever the PID namespace
volatile u32 self_level; // of the PID namespace

volatile u32 exact; // the loader: oom_kill_process is seen, too

// What oom_kill_process was called for. The kernel's oom_lock is held until the
// victims are marked.
static volatile struct {
	u64 since;
	u64 killer;
	u64 chosen;
	u64 limit;
} under_way;

#define get(to, from) bpf_probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(from)))

INLINE u32 tid_of(struct task_struct *t)
{
	u32 tid = 0, level = self_level;
	struct pid *p = 0;

	if (!level) {
		get(tid, t->pid);
		return tid;
	}
	get(p, t->thread_pid);
	if (!p)
		return 0;
	char *first = (char *)__builtin_preserve_access_index(&p->numbers[0].nr);
	u64 size = __builtin_preserve_type_info(*(struct upid *)0, 1);
	bpf_probe_read_kernel(&tid, sizeof(tid), first + (level & 31) * size);
	return tid;
}

INLINE u64 id_of(struct cgroup_subsys_state *css)
{
	struct cgroup *g = 0;
	struct kernfs_node *kn = 0;
	u64 id = 0;

	if (css)
		get(g, css->cgroup);
	if (g)
		get(kn, g->kn);
	if (kn)
		get(id, kn->id);
	return id;
}

// ours says whether a task is of this process (1) or of one that descends from it
// (2).
INLINE int ours(struct task_struct *t)
{
	u32 self = self_tgid;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		u32 tgid = 0;
		struct task_struct *parent = 0;
		get(tgid, t->tgid);
		if (!tgid)
			return 0;
		if (tgid == self)
			return i ? 2 : 1;
		get(parent, t->real_parent);
		if (!parent)
			return 0;
		t = parent;
	}
	return 0;
}

INLINE void describe(struct kill *k, struct task_struct *t)
{
	struct task_struct *leader = 0;
	struct mm_struct *mm = 0;
	struct signal_struct *signal = 0;
	struct css_set *set = 0;

	k->known |= TASK;
	get(leader, t->group_leader);
	k->pid = tid_of(leader ? leader : t);
	bpf_probe_read_kernel_str(k->comm, sizeof(k->comm), __builtin_preserve_access_index(&t->comm[0]));
	get(mm, t->mm);
	if (mm) {
		get(k->total_vm, mm->total_vm);
		if (__builtin_preserve_type_info(*(struct mm_rss_stat *)0, TYPE_EXISTS)) {
			struct mm_struct___old *old = (void *)mm;
			long n[4] = {};
			get(n, old->rss_stat.count);
			k->file = n[0];
			k->anon = n[1];
			k->shmem = n[3];
		} else {
			get(k->file, mm->rss_stat[0].count);
			get(k->anon, mm->rss_stat[1].count);
			get(k->shmem, mm->rss_stat[3].count);
		}
	}
	get(signal, t->signal);
	if (signal) {
		short adj = 0;
		get(adj, signal->oom_score_adj);
		k->adj = adj;
	}
	get(set, t->cgroups);
	if (set && __builtin_preserve_enum_value(*(enum cgroup_subsys_id *)memory_cgrp_id, ENUM_EXISTS)) {
		struct cgroup_subsys_state *css = 0;
		u64 index = __builtin_preserve_enum_value(*(enum cgroup_subsys_id *)memory_cgrp_id, ENUM_VALUE);
		char *first = (char *)__builtin_preserve_access_index(&set->subsys[0]);
		bpf_probe_read_kernel(&css, sizeof(css), first + (index & 31) * sizeof(css));
		k->group = id_of(css);
	}
}

// on_kill is told which limit it is about, before the victim is marked.
INLINE int on_kill(struct oom_control *oc)
{
	struct mem_cgroup *memcg = 0;
	u64 chosen = 0;

	get(memcg, oc->memcg);
	get(chosen, oc->chosen);
	under_way.limit = memcg ? id_of(__builtin_preserve_access_index(&memcg->css)) : 0;
	under_way.chosen = chosen;
	under_way.killer = bpf_get_current_task();
	under_way.since = bpf_ktime_get_ns();
	return 0;
}

INLINE int on_victim(u64 arg)
{
	struct kill k = {};
	struct task_struct *t = 0;
	u64 chosen = 0;
	u32 number = 0, zero = 0;
	int is = 0;

	k.time = bpf_ktime_get_ns();
	if (exact) {
		// A process that is ending anyway, and in need of memory for that, is marked
		// without having been chosen. Before it marks whom it has chosen the kernel
		// may write a long list of processes to a slow console.
		if (under_way.killer != bpf_get_current_task() || k.time - under_way.since > 60000000000)
			return 0;
		chosen = under_way.chosen;
		k.limit = under_way.limit;
		k.known |= LIMIT;
	}
	if (__builtin_preserve_field_info(((struct trace_event_raw_mark_victim *)0)->total_vm, EXISTS)) {
		t = (void *)arg;
	} else {
		// Mostly it is whom the killer has chosen, or itself.
		struct task_struct *c = (void *)chosen;
		u32 n = 0;
		number = (u32)arg;
		if (c)
			get(n, c->pid);
		if (c && n == number)
			t = c;
		else if ((u32)bpf_get_current_pid_tgid() == number || (u32)(bpf_get_current_pid_tgid() >> 32) == number)
			t = (void *)bpf_get_current_task();
	}
	if (t) {
		is = ours(t);
		if (!is)
			return 0;
		describe(&k, t);
	} else {
		is = number == self_tgid ? 1 : 2; // whoever asks has started it
		k.pid = number;
	}
	if (is == 1) {
		k.known |= SELF;
		bpf_map_update_elem(&own, &zero, &k, 0);
	} else {
		u32 pid = k.pid;
		bpf_map_update_elem(&kills, &pid, &k, 0);
	}
	return 0;
}

SEC("fentry/oom_kill_process") int fentry_kill(u64 *ctx) { return on_kill((void *)ctx[0]); }
SEC("tp_btf/mark_victim") int btf_victim(u64 *ctx) { return on_victim(ctx[0]); }
SEC("raw_tp/mark_victim") int raw_victim(u64 *ctx) { return on_victim(ctx[0]); }

// whoami_oom is run once by the loader: how the kernel calls this process can
// differ from what it calls itself.
SEC("raw_tp/mark_victim") int whoami_oom(u64 *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct pid *p = 0;
	u32 level = 0;

	get(p, t->thread_pid);
	if (p)
		get(level, p->level);
	self_level = level;
	self_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

char license_[] SEC("license") = "Dual MIT/GPL";
