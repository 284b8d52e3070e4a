//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

// Holds processes that were marked to what a compiler needs: no sockets, no other
// programs, no further processes, nothing to do with other processes.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define CORE __attribute__((preserve_access_index))

enum { BPF_MAP_TYPE_TASK_STORAGE = 29, BPF_F_NO_PREALLOC = 1, CLONE_THREAD = 0x10000, EPERM = 1 };

struct task_struct {
	int tgid;
	struct task_struct *group_leader;
} CORE;

static void *(*bpf_task_storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;

// Gone with the process: no table that fills, and no number that another one gets.
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u32);
} confined SEC(".maps");

volatile u64 asked;  // whether the kernel asks at all
volatile u64 denied;

INLINE int deny(void)
{
	struct task_struct *t = bpf_get_current_task_btf();

	if (!bpf_task_storage_get(&confined, t->group_leader, 0, 0))
		return 0;
	__sync_fetch_and_add(&denied, 1);
	return -EPERM;
}

SEC("lsm/socket_create") int confine_socket(u64 *ctx)
{
	asked = 1;
	return deny();
}

SEC("lsm/bprm_check_security") int confine_exec(u64 *ctx) { return deny(); }

SEC("lsm/task_alloc") int confine_fork(u64 *ctx) { return ctx[1] & CLONE_THREAD ? 0 : deny(); }

SEC("lsm/ptrace_access_check") int confine_ptrace(u64 *ctx) { return deny(); }

SEC("lsm/task_kill") int confine_kill(u64 *ctx)
{
	struct task_struct *to = (void *)ctx[0];

	return to->tgid == bpf_get_current_task_btf()->tgid ? 0 : deny();
}

char license_[] SEC("license") = "Dual MIT/GPL";
