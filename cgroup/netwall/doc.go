// Package netwall has the kernel hold the sockets of pods to their policies: what
// a socket that was opened for a pod connects or sends to, and where it is bound,
// is checked by programs at the control group (cgroup v2) of this process, after
// and besides what user space has checked.
//
// # Which sockets
//
// Whoever opens a socket for a pod marks it, between socket(2) and connect(2) or
// bind(2): see [Pod.MarkDialer] and [Pod.MarkListener]. The mark is kept by the
// kernel with the socket (BPF_MAP_TYPE_SK_STORAGE): it cannot be evicted, needs no
// table that could be full, and is gone when the socket is. A connection that a
// listener accepts has its mark.
//
//   - A dialer's socket connects and sends where the pod's policy allows, and is
//     bound nowhere.
//   - A listener's socket is bound at the address it was made for, connects nowhere,
//     and sends anywhere: answers to datagrams.
//   - The socket of a pod that is closed connects, sends and binds nowhere.
//   - What is not marked is not a pod's: it is not looked at.
//
// # What a policy is
//
// A table of blocks of addresses in which the longest block that contains an
// address says which ports may be reached: two tries of longest prefixes in the
// kernel, one of addresses and one of ports. Addresses are IPv6 there; one that is
// IPv4 has its mapped form, so that ::ffff:127.0.0.1 is 127.0.0.1. Equal policies of
// several pods are one.
//
// # What it is good for
//
// It does not protect from code that has taken over this process: that could
// change the tables, or not mark its sockets. It protects from mistakes above it: in
// how user space reads a policy, in what is connected to after the check (another
// address of a name, a redirect, another form of an address), in a host function
// that is given somebody else's socket. A program of a group above ours that
// rewrites addresses comes after these: what was asked for is what is checked.
//
// # Counting
//
// Packets of marked sockets are counted for their pod as the kernel's IP layer has
// them: bytes with headers. Segments that are passed in one piece have one header.
//
// # Lifetime
//
// Programs are attached by links: they are gone when the Wall is closed or the
// process ends in whatever way. The group has to be one of our own; see package
// cgroupfs. A process that somebody moves out of it opens sockets that are not
// checked, which [Pod.Stats] shows: what is checked is counted.
package netwall

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64,arm64 -no-global-types wall wall.c -- -O2 -g -Wall -mcpu=v2
