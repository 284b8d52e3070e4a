//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0

// Checks what sockets that belong to pods connect, send and bind to, and counts
// their packets. Nothing of the kernel's own types is used, so that there is
// nothing to relocate: what is declared here is of its ABI (linux/bpf.h).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_CLONE = 1 << 9,
	BPF_F_MMAPABLE = 1 << 10,
};

struct bpf_sock;

struct bpf_sock_addr {
	u32 user_family;
	u32 user_ip4;    // in network order, as is all that the user gave
	u32 user_ip6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
	u32 msg_src_ip4;
	u32 msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		u64 : 64;
	} __attribute__((aligned(8)));
};

struct __sk_buff {
	u32 len;
	u32 of_no_interest[34];
	u32 data_meta;
	u64 flow_keys __attribute__((aligned(8)));
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	union {
		struct bpf_sock *sk;
		u64 : 64;
	} __attribute__((aligned(8)));
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 len) = (void *)26;
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;

enum { TCP = 6, UDP = 17 };
enum { DIALER = 1, LISTENER = 2 };
enum { NOTHING = 0, ANYTHING = 1 };

// What user space has noted of a socket. The kernel keeps it with the socket and
// frees it with that; a connection that a listener accepts has a copy.
struct mark {
	u32 slot;
	u32 generation;
	u32 kind;
	u32 port;    // LISTENER: where it may be bound; network order
	u32 addr[4]; // as in destination
};

// A pod. A mark of another generation is of one that has gone.
struct pod {
	u32 generation; // user space; 0 is free
	u32 policy;     // user space
	u64 checked;    // programs, from here
	u64 denied;
	u64 rx_bytes;
	u64 rx_packets;
	u64 tx_bytes;
	u64 tx_packets;
	u64 pad;
};

// The longest prefix decides. An IPv4 address is in its IPv6 form, so that one
// socket gets the same answer whatever its family.
struct destination {
	u32 prefixlen;
	u32 policy;
	u32 addr[4];
};

struct port {
	u32 prefixlen;
	u32 policy;
	u16 set;
	u8 protocol;
	u8 zero;
	u16 port; // network order
	u16 unused;
};

#define PORT_BITS 80

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct mark);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct pod);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct destination);
	__type(value, u32);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct port);
	__type(value, u8);
} ports SEC(".maps");

INLINE int permitted(u32 policy, u32 protocol, u32 a, u32 b, u32 c, u32 d, u16 port)
{
	struct destination to = {32 + 128, policy, {a, b, c, d}};

	if (protocol != TCP && protocol != UDP)
		return 0;
	u32 *set = bpf_map_lookup_elem(&destinations, &to);
	if (!set || *set == NOTHING)
		return 0;
	if (*set == ANYTHING)
		return 1;
	struct port p = {PORT_BITS, policy, *set, protocol, 0, port, 0};
	return bpf_map_lookup_elem(&ports, &p) != 0;
}

INLINE struct pod *pod_of(struct mark *m)
{
	u32 slot = m->slot;
	struct pod *p = bpf_map_lookup_elem(&pods, &slot);

	return p && p->generation == m->generation ? p : 0;
}

// Members of a context are loaded once, and whole: older verifiers refuse parts.
INLINE u16 port_of(struct bpf_sock_addr *ctx) { return *(volatile u32 *)&ctx->user_port; }

// What is not marked is not a pod's.
INLINE int connecting(struct bpf_sock_addr *ctx, u32 a, u32 b, u32 c, u32 d)
{
	struct mark *m = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
	if (!m)
		return 1;
	struct pod *p = pod_of(m);
	if (!p)
		return 0;
	__sync_fetch_and_add(&p->checked, 1);
	if (m->kind == DIALER && permitted(p->policy, ctx->protocol, a, b, c, d, port_of(ctx)))
		return 1;
	__sync_fetch_and_add(&p->denied, 1);
	return 0;
}

// A listener answers whoever has sent it something.
INLINE int sending(struct bpf_sock_addr *ctx, u32 a, u32 b, u32 c, u32 d)
{
	struct mark *m = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);

	if (m && m->kind == LISTENER && pod_of(m))
		return 1;
	return connecting(ctx, a, b, c, d);
}

INLINE int binding(struct bpf_sock_addr *ctx, u32 a, u32 b, u32 c, u32 d)
{
	struct mark *m = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
	if (!m)
		return 1;
	struct pod *p = pod_of(m);
	if (!p)
		return 0;
	__sync_fetch_and_add(&p->checked, 1);
	if (m->kind == LISTENER && m->port == port_of(ctx) && m->addr[0] == a && m->addr[1] == b &&
	    m->addr[2] == c && m->addr[3] == d)
		return 1;
	__sync_fetch_and_add(&p->denied, 1);
	return 0;
}

#define MAPPED __builtin_bswap32(0xffff)

#define four(ctx) ctx, 0, 0, MAPPED, *(volatile u32 *)&(ctx)->user_ip4
#define six(ctx)                                                                                   \
	ctx, *(volatile u32 *)&(ctx)->user_ip6[0], *(volatile u32 *)&(ctx)->user_ip6[1],           \
		*(volatile u32 *)&(ctx)->user_ip6[2], *(volatile u32 *)&(ctx)->user_ip6[3]

SEC("cgroup/connect4") int connect4(struct bpf_sock_addr *ctx) { return connecting(four(ctx)); }
SEC("cgroup/connect6") int connect6(struct bpf_sock_addr *ctx) { return connecting(six(ctx)); }
SEC("cgroup/sendmsg4") int sendmsg4(struct bpf_sock_addr *ctx) { return sending(four(ctx)); }
SEC("cgroup/sendmsg6") int sendmsg6(struct bpf_sock_addr *ctx) { return sending(six(ctx)); }
SEC("cgroup/bind4") int bind4(struct bpf_sock_addr *ctx) { return binding(four(ctx)); }
SEC("cgroup/bind6") int bind6(struct bpf_sock_addr *ctx) { return binding(six(ctx)); }

INLINE struct pod *pod_of_packet(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	struct mark *m = bpf_sk_storage_get(&sockets, sk, 0, 0);
	return m ? pod_of(m) : 0;
}

SEC("cgroup_skb/ingress") int ingress(struct __sk_buff *skb)
{
	struct pod *p = pod_of_packet(skb);
	u32 segments = skb->gso_segs;

	if (p) {
		__sync_fetch_and_add(&p->rx_bytes, skb->len);
		__sync_fetch_and_add(&p->rx_packets, segments ? segments : 1);
	}
	return 1;
}

SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb)
{
	struct pod *p = pod_of_packet(skb);
	u32 segments = skb->gso_segs;

	if (p) {
		__sync_fetch_and_add(&p->tx_bytes, skb->len);
		__sync_fetch_and_add(&p->tx_packets, segments ? segments : 1);
	}
	return 1;
}

// What verdict is asked, in a packet behind an Ethernet header.
struct question {
	u32 policy;
	u32 protocol;
	u32 addr[4];
	u32 port; // network order
};

// verdict is loaded by tests only: they compare what it says to what Go says.
SEC("tc") int verdict(struct __sk_buff *skb)
{
	struct question q = {};

	if (bpf_skb_load_bytes(skb, 14, &q, sizeof(q)))
		return 2;
	return permitted(q.policy, q.protocol, q.addr[0], q.addr[1], q.addr[2], q.addr[3], q.port);
}

char license_[] SEC("license") = "Dual MIT/GPL";
