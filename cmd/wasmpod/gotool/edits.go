package gotool

// edits are the changes that Go 1.25 and 1.26 have in common, in the order in
// which they are made.
var edits = []edit{
	// The fake network goes; Go's code for Unix sockets is compiled instead.
	drop("net/net_fake.go"),
	constrain("net/fd_fake.go", "js || wasip1", "js"),
	drop("net/fd_wasip1.go"),
	drop("net/file_wasip1.go"),
	constrain("net/interface_stub.go", "js || wasip1", "js"),
	constrain("net/sockopt_fake.go", "js || wasip1", "js"),
	constrain("net/tcpsockopt_stub.go", "js || wasip1", "js"),
	constrain("net/sock_posix.go", "unix || windows", "unix || windows || wasip1"),
	constrain("net/fd_posix.go", "unix || windows", "unix || windows || wasip1"),
	constrain("net/fd_unix.go", "unix", "unix || wasip1"),
	constrain("net/file_posix.go", "unix || windows", "unix || windows || wasip1"),
	constrain("net/sockopt_posix.go", "unix || windows", "unix || windows || wasip1"),
	constrain("net/tcpsockopt_posix.go", "unix || windows", "unix || windows || wasip1"),
	constrain("net/http/transport_default_wasm.go", "(js && wasm) || wasip1", "js && wasm"),
	constrain("net/http/transport_default_other.go", "!wasm", "!wasm || wasip1"),
	constrain("internal/poll/sockopt.go", "unix || windows", "unix || windows || wasip1"),
	constrain("internal/syscall/unix/net.go", "unix", "unix || wasip1"),
	drop("internal/syscall/unix/net_wasip1.go"),
	drop("syscall/net_wasip1.go"),
	constrain("syscall/net_fake.go", "js || wasip1", "js"),

	// Waiting for many connections.
	drop("runtime/netpoll_wasip1.go"),

	// Modes and owners of files, and what is made with a mode.
	cut("syscall/fs_wasip1.go", "Stat_t", "Stat", "Lstat", "Fstat", "setDefaultMode", "Open", "Openat", "Mkdir",
		"Chmod", "Fchmod", "Chown", "Fchown", "Lchown", "Dup", "Pipe"),
	cut("internal/syscall/unix/at_wasip1.go", "Fstatat", "path_filestat_get", "Mkdirat", "path_create_directory", "Fchmodat", "Fchownat"),
	drop("internal/syscall/unix/fcntl_wasip1.go"),
	drop("os/stat_wasip1.go"),
	constrain("os/pipe_wasm.go", "wasm", "js && wasm"),

	// Who the process is, and signals.
	cut("syscall/syscall_wasip1.go", "Sysctl", "Getuid", "Getgid", "Geteuid", "Getegid", "Getgroups", "Getpid", "Getppid", "Kill", "Umask"),
	constrain("os/signal/signal_unix.go", "unix || (js && wasm) || wasip1 || windows", "unix || (js && wasm) || windows"),
	// Signals do not come through the runtime, which waits here for its receiver.
	replace("runtime/sigqueue.go", "for sig.state.Load() != sigReceiving {", `for GOOS != "wasip1" && sig.state.Load() != sigReceiving {`),
}

// editsFor returns the changes for a minor version of Go 1.
func editsFor(int) []edit { return edits }
