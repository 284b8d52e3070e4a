package wasip1

import (
	"bufio"
	"context"
	"go/parser"
	"go/token"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/test/wasmtest"
)

// wazeroGuest is wazero's own test guest as a toolchain has made it. That of Go is
// built here, as it comes as source only.
func wazeroGuest(t *testing.T, toolchain string) string {
	t.Helper()
	dir := filepath.Join(wazeroTestdata(t), toolchain)
	if toolchain != "go" {
		return filepath.Join(dir, "wasi.wasm")
	}
	text, err := os.ReadFile(filepath.Join(dir, "wasi.go"))
	if err != nil {
		t.Fatal(err)
	}
	return wasmtest.BuildGo(t, string(text))
}

// TestToolchainOpen: what is opened one way cannot be used the other.
func TestToolchainOpen(t *testing.T) {
	for _, arg := range []string{"open-rdonly", "open-wronly"} {
		for kind, root := range rootKinds {
			r := run(t, t.Context(), wazeroGuest(t, "zig-cc"), ProcessConfig{Args: []string{"wasi", arg}, Root: root(t, t.TempDir())})
			if r.code != 0 || r.stdout != "OK\n" {
				t.Errorf("%s, %s: %+v", kind, arg, r)
			}
		}
	}
}

func TestToolchainSleep(t *testing.T) {
	wasm := wazeroGuest(t, "zig-cc")
	compile(t, wasm)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := run(t, t.Context(), wasm, ProcessConfig{Args: []string{"wasi", "sleepmillis", "100"}})
		if r.stdout != "OK\n" || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%+v after %v", r, time.Since(began))
		}
	})
}

// TestToolchainPreopens: the standard library of Zig finds what is preopened.
func TestToolchainPreopens(t *testing.T) {
	r := run(t, t.Context(), wazeroGuest(t, "zig"), ProcessConfig{Args: []string{"wasi", "preopen"}, Root: rootFS(t.TempDir())})
	if want := "0: stdin\n1: stdout\n2: stderr\n3: /\n"; r.stdout != want {
		t.Errorf("%+v, want %q", r, want)
	}
}

// TestToolchainSockets: guests accept from a socket that listens already.
func TestToolchainSockets(t *testing.T) {
	toolchains := []string{"cargo-wasi", "zig-cc"}
	if !testing.Short() {
		toolchains = append(toolchains, "go")
	}
	for _, toolchain := range toolchains {
		t.Run(toolchain, func(t *testing.T) {
			listener, client := connected(t)
			if n, err := client.Send([][]byte{[]byte("wazero")}); n != 6 || err != nil {
				t.Fatal(n, err)
			}
			r := run(t, t.Context(), wazeroGuest(t, toolchain), ProcessConfig{Args: []string{"wasi", "sock"}, Network: client.net, Listeners: []Socket{listener}})
			if r.code != 0 || !strings.HasPrefix(r.stdout, "wazero") {
				t.Errorf("%+v", r)
			}
		})
	}
}

// connected is a listening socket with one connection waiting.
func connected(t *testing.T) (listener Socket, client *fakeSocket) {
	t.Helper()
	network := newFakeNet()
	at := netip.MustParseAddrPort("127.0.0.1:80")
	listener, _ = network.Socket(FamilyIPv4, KindStream)
	s, _ := network.Socket(FamilyIPv4, KindStream)
	if err := listener.Bind(at); err != nil {
		t.Fatal(err)
	}
	if err := listener.Listen(1); err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(at); err != nil {
		t.Fatal(err)
	}
	return listener, s.(*fakeSocket)
}

// TestToolchainGo is what wazero tests with Go's standard library only.
func TestToolchainGo(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: compiles a large guest, not for -short")
	}
	wasm := wazeroGuest(t, "go")
	t.Run("http", func(t *testing.T) {
		listener, client := connected(t)
		client.Send([][]byte{[]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nConnection: close\r\n\r\nwazero")})
		r := run(t, t.Context(), wasm, ProcessConfig{Args: []string{"wasi", "http"}, Network: client.net, Listeners: []Socket{listener}})
		answer := make([]byte, 4096)
		n, err := client.Recv([][]byte{answer}, false)
		if got := string(answer[:n]); err != nil || r.code != 0 || !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "wazero\n") {
			t.Errorf("%+v, %q, %v", r, got, err)
		}
	})
	t.Run("stdin while others run", func(t *testing.T) {
		stdin, input := io.Pipe()
		output, stdout := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			lines := bufio.NewScanner(output)
			if lines.Scan() && lines.Text() == "waiting for stdin..." {
				io.WriteString(input, "foo")
			}
			input.Close()
			if !lines.Scan() || lines.Text() != "foo" {
				t.Errorf("%q", lines.Text())
			}
			io.Copy(io.Discard, output)
		}()
		r := run(t, t.Context(), wasm, ProcessConfig{Args: []string{"wasi", "stdin"}, Stdin: stdin, Stdout: stdout})
		stdout.Close()
		<-done
		if r.code != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("large output", func(t *testing.T) {
		r := run(t, t.Context(), wasm, ProcessConfig{Args: []string{"wasi", "largestdout"}})
		if _, err := parser.ParseFile(token.NewFileSet(), "main.go", r.stdout, 0); err != nil || r.code != 0 || len(r.stdout) < 100_000 {
			t.Errorf("exit code %d, %d bytes: %v", r.code, len(r.stdout), err)
		}
	})
	for _, mode := range []string{"open", "create"} {
		t.Run("nonblocking "+mode, func(t *testing.T) { testFIFOs(t, wasm, mode) })
	}
}

// testFIFOs: goroutines wait for a FIFO each; the last one gets its line first.
func testFIFOs(t *testing.T, wasm, mode string) {
	root := t.TempDir()
	args := []string{"wasi", "nonblock", mode}
	var fifos []*os.File
	for _, name := range []string{"/one", "/two", "/three"} {
		path := filepath.Join(root, name)
		if err := unix.Mkfifo(path, 0o644); err != nil {
			t.Skipf("skipped: no FIFOs here: %v", err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		args, fifos = append(args, name), append(fifos, f)
	}
	output, stderr := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(output)
		if !lines.Scan() || lines.Text() != "waiting" {
			t.Errorf("%q", lines.Text())
		}
		for i := len(fifos) - 1; i >= 0; i-- {
			want := filepath.Base(fifos[i].Name())
			io.WriteString(fifos[i], want+"\n")
			if !lines.Scan() || lines.Text() != want {
				t.Errorf("%q, want %q", lines.Text(), want)
			}
		}
		io.Copy(io.Discard, output)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := run(t, ctx, wasm, ProcessConfig{Args: args, Root: rootFS(root), Stderr: stderr})
	stderr.Close()
	<-done
	if r.code != 0 {
		t.Errorf("%+v", r)
	}
}
