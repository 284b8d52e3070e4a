// Package gotool makes the installed Go toolchain build ordinary Go programs
// for pods.
//
// Go's own port to WASI preview 1 has no network (package net is a fake inside
// the module), no file modes or owners, no signals and a made-up host name,
// because preview 1 has none of these. A pod offers them: sockets by WasmEdge's
// functions, the rest by the host module "wasmpod" (docs/abi.md). [Overlay]
// changes the standard library so that it uses them, in memory of the go
// command only: go's -overlay flag names other contents for some files of
// GOROOT.
//
// Nothing of the standard library is kept here. An overlay is made on the user's
// machine out of the user's own GOROOT, by three kinds of small changes:
//
//   - a build constraint is widened or narrowed, so that Go's real code for Unix
//     (net/sock_posix.go, net/fd_unix.go …) is compiled where the fake was,
//   - declarations are cut by name (syscall.Getuid),
//   - files of our own, below _std, are added; they supply what is then missing.
//
// Each change states what it expects to find. A toolchain of an unknown version,
// or one whose files look different, is an error that says so: never a program
// with half a network.
package gotool
