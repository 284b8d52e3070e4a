package main

// A patch changes test files of the standard library for the duration of a run:
// what they say of wasip1 holds for hosts without a network, and not for pods.
type patch struct {
	file string // below GOROOT/src
	old  string // must occur; empty: the whole file is left out
	new  string
	why  string
}

const (
	fake   = "tests the network inside the module that wasip1 has without an overlay"
	skips  = "skips for wasip1 what pods can do"
	unixes = "is for what unix systems have, and pods have too"
)

// option is set in place of what sockets of pods do not have.
const (
	option    = "syscall.SOL_SOCKET, syscall.SO_KEEPALIVE"
	anyOption = "needs an option that can be set and read; pods have no TTL"
)

// lifted takes the place of "wasip1" where tests compare it with GOOS.
const lifted = `"wasip1 without wasmpod"`

var patches = []patch{
	{file: "net/net_fake_test.go", why: fake},
	{file: "net/file_wasip1_test.go", why: fake},
	{"net/platform_unix_test.go", `"android", "ios"`, `"android", "ios", "wasip1"`, "a pod has no Unix sockets"},
	{"net/platform_test.go", `case "aix", "android", `, `case "wasip1", "aix", "android", `, "a pod has no Unix sockets"},
	{"net/platform_test.go", `"windows", "js", "wasip1"`, `"windows", "js"`, skips},
	{"net/platform_test.go", "case \"plan9\":\n", "case \"plan9\", \"wasip1\":\n", "a pod has no raw IP"},
	{"net/dial_test.go", `"wasip1"`, lifted, skips},
	{"net/file_test.go", `"wasip1"`, lifted, skips},
	{"net/rawconn_test.go", `"wasip1"`, lifted, skips},
	{"net/rawconn_stub_test.go", "js || plan9 || wasip1", "js || plan9", skips},
	{"net/rawconn_unix_test.go", "//go:build unix", "//go:build unix || wasip1", unixes},
	{"net/rawconn_unix_test.go", "syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS", option, anyOption},
	{"net/rawconn_unix_test.go", "syscall.IPPROTO_IP, syscall.IP_TTL", option, anyOption},
	{"net/sendfile_test.go", `"wasip1"`, lifted, skips},
	{"net/tcpsock_test.go", `"wasip1"`, lifted, skips},
	{"net/udpsock_test.go", `"wasip1"`, lifted, skips},
	{"net/smtp/smtp_test.go", `"wasip1"`, lifted, skips},
	{"crypto/tls/handshake_client_test.go", `"wasip1"`, lifted, skips},
	{"crypto/tls/handshake_server_test.go", `"wasip1"`, lifted, skips},
	{"os/pipe_test.go", "!plan9 && !js && !wasip1", "!plan9 && !js", skips},
	{"os/rawconn_test.go", "!plan9 && !js && !wasip1", "!plan9 && !js", skips},
	{"os/timeout_test.go", "!js && !plan9 && !wasip1", "!js && !plan9", skips},
	{"os/timeout_unix_test.go", "!js && !plan9 && !wasip1", "!js && !plan9", skips},
	{"os/signal/signal_test.go", "//go:build unix", "//go:build unix || wasip1", unixes},
}
