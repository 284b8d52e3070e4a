// Package podnet is the network of pods: an in-memory TCP and UDP, over IPv4
// and IPv6, that knows neither WebAssembly nor Kubernetes.
//
// A Network connects the pods of one node and hands out their IPs. Each pod is a
// Namespace: 127.0.0.0/8, ::1 and the pod's IPs, with ports that its containers
// share and other pods do not (MAIN-08). A namespace has two faces over one
// implementation: Socket, which never blocks and whose errors are a
// syscall.Errno, for guests; and Listen, DialContext and ListenPacket, which
// return what package net does, for the node itself. Traffic between pods stays
// in memory. What leaves them goes through the hooks of Config: Route translates
// and forbids (Services, NetworkPolicy), Outside reaches the rest.
//
// # Buffers
//
// What was sent and not read yet lies in chunks of 512 bytes to 64 KiB that come
// from pools, so an idle connection has no buffer at all, and a busy one
// allocates nothing. A stream holds at most half of the sender's SO_SNDBUF plus
// half of the receiver's SO_RCVBUF, 208 KiB by default; a datagram socket its
// SO_RCVBUF, and drops what is more. The sender's Account pays until the
// receiver has read. No connection within a node has a goroutine.
//
// # Differences from Linux
//
// Errors and their order are Linux's, and tests compare them with the kernel's.
// Where this network differs, it is on purpose:
//
//   - There is no TIME_WAIT and nothing lingers: a port is free once its socket
//     is closed.
//   - A stream never connects to itself (simultaneous open): ECONNREFUSED.
//   - A stream that was shut down before it is connected is whole again then.
//   - Ephemeral ports of connecting sockets are not shared by destination: a pod
//     has at most 28232 of them at a time.
//   - Reading a datagram socket whose reading half is shut down returns 0 also
//     without blocking, where Linux says EAGAIN to a reader that poll woke.
//   - Who waits for a place in a full backlog gets it when there is one, and not
//     at the next retransmission.
//   - Broadcast and multicast are refused: EACCES without SO_BROADCAST, else
//     ENETUNREACH. There are no raw sockets, urgent data or IP options.
package podnet
