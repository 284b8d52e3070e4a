// Package wasip1 is the project's own host for WASI preview 1: the 46 functions
// of wasi_snapshot_preview1, and the same under the older name wasi_unstable
// with its slightly different layouts; WasmEdge's socket calls, which guests
// import from the same module; and the module wasmpod with what preview 1 lacks.
// docs/abi.md describes all of them for authors of guests.
//
// It has two halves. The files abi_*.go know guest memory: pointers, iovecs and
// struct layouts; they check every pointer, convert, and hold no policy. The
// other files are the system behind them: a [Process] with one table of file
// descriptors, a file system made of a mount table ([FS]), clocks and streams.
// They use Go values and [Errno], and never see guest memory other than as a
// byte slice to fill or to send.
//
// # One registration, many guests
//
// [Instantiate] registers the functions once per wazero.Runtime. A call finds
// its guest's Process through the call's context ([WithProcess]), so the runtime
// and the compiled modules can be shared by all pods of the process.
//
// # Files
//
// A container has one namespace of files: fd 3 is "/", the only preopen. Paths
// are resolved here, component by component and across mounts, each component
// opened relative to the directory before it without following a link; links
// are read and followed by the walk, absolute ones from the container's root.
// Whatever operation ends the walk names one single component of an open
// directory and does not follow links either. That is the discipline of os.Root
// and of openat2's RESOLVE_BENEATH: neither a mistake in the walk nor a race with
// another container on the same volume can leave the mounts. os.Root itself was
// not enough: it cannot open without following, tell unlink from rmdir, rename
// over an empty directory, or rename relative to a directory that has moved.
//
// A mount shows a directory of the host, or an [Overlay]: a tree of files in memory
// over one that never changes ([Lower]), which is what a container's root is. The
// same walk goes through both.
//
// # Being killed
//
// Calls that may block (reading a stream, writing to one, poll_oneoff) watch the
// Done channel of the context they are called with and then panic with
// sys.NewExitError(137), which wazero turns into the guest's exit. The engine
// puts the true reason in its place.
//
// # Sockets
//
// Sockets are files of the one table. The network behind them, [Network], never
// blocks and wakes who watches; a call that blocks is a loop around it. A socket
// is watched from the first wait until it is closed and remembers what was last
// known of it, so that poll_oneoff looks only at those that have changed: guests
// poll all their connections each time they sleep.
//
// # Sleeping
//
// The context of a call may have the methods Leave and Enter, around sleeping,
// so that other guests can run meanwhile, and Interrupted and Safepoint: a call
// that sleeps when a signal comes returns EINTR, or what it has done so far,
// and the guest's handler runs before the guest sees that.
package wasip1
