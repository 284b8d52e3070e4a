package hostport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anyPort is one that this process alone is given, also again when it has given it
// back: on Linux every address of 127.0.0.0/8 is the host's.
var anyPort = func() netip.AddrPort {
	own := [4]byte{127, 0, 0, 1}
	if pid := os.Getpid(); runtime.GOOS == "linux" {
		own = [4]byte{127, 64 | byte(pid>>16&0x3f), byte(pid >> 8), byte(pid)}
	}
	return netip.AddrPortFrom(netip.AddrFrom4(own), 0)
}()

func forward(t *testing.T, network string, cfg Config) *Forwarder {
	t.Helper()
	f, err := Listen(t.Context(), network, anyPort, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func to(address string) Dial {
	return func(ctx context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d bytes", n)
	}))
	defer server.Close()
	f := forward(t, "tcp", Config{Dial: to(server.Listener.Addr().String())})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			body := io.LimitReader(zeros{}, 1<<20)
			r, err := client.Post("http://"+f.Addr().String(), "text/plain", body)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if b, _ := io.ReadAll(r.Body); string(b) != "1048576 bytes" {
				t.Errorf("EXEC-06 answer %q", b)
			}
		})
	}
	all.Wait()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// pair is a forwarder whose other end the test holds.
func pair(t *testing.T, cfg Config) (*Forwarder, net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.Dial = to(l.Addr().String())
	f := forward(t, "tcp", cfg)
	client, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	pod, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	return f, client, pod
}

func TestHalfClose(t *testing.T) {
	_, client, pod := pair(t, Config{})
	client.Write([]byte("question"))
	client.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(pod); string(b) != "question" || err != nil {
		t.Fatalf("the pod reads %q, %v", b, err)
	}
	pod.Write([]byte("answer"))
	pod.Close()
	if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
		t.Errorf("the client reads %q, %v", b, err)
	}
}

func TestReset(t *testing.T) {
	_, client, pod := pair(t, Config{})
	pod.(*net.TCPConn).SetLinger(0)
	pod.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client of a pod that resets reads %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	f := forward(t, "tcp", Config{Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		return nil, syscall.ECONNREFUSED
	}})
	c, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		return // reset before connect had looked
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("err = %v, want a reset", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	f, client, pod := pair(t, Config{})
	f.Close()
	for _, c := range []net.Conn{client, pod} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection has outlived its forwarder")
		}
	}
	again, err := Listen(t.Context(), "tcp", f.Addr(), Config{Dial: to("127.0.0.1:1")})
	if err != nil {
		t.Fatalf("the port was not given back: %v", err)
	}
	again.Close()
}

func TestConflict(t *testing.T) {
	f := forward(t, "tcp", Config{Dial: to("127.0.0.1:1")})
	if _, err := Listen(t.Context(), "tcp", f.Addr(), Config{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
}

func TestLimit(t *testing.T) {
	limit := NewLimit(1)
	f, first, pod := pair(t, Config{Limit: limit})
	second, err := net.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	// The second is joined to nobody until the first has gone.
	if len(limit.slots) != 1 {
		t.Errorf("%d connections, want 1", len(limit.slots))
	}
	first.Close()
	pod.Close()
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the listener of the pod is closed: want an error")
	}
}

func TestUDP(t *testing.T) {
	pod, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pod.ReadFrom(b)
			if err != nil {
				return
			}
			pod.WriteTo(append([]byte("re: "), b[:n]...), from)
		}
	}()
	limit := NewLimit(2)
	f := forward(t, "udp", Config{Dial: to(pod.LocalAddr().String()), Limit: limit, Idle: time.Hour})
	ask := func(text string) (net.Conn, string, error) {
		c, err := net.Dial("udp", f.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write([]byte(text))
		c.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 1500)
		n, err := c.Read(b)
		return c, string(b[:n]), err
	}
	for _, text := range []string{"a", "b"} { // two clients, two flows
		if _, got, err := ask(text); got != "re: "+text || err != nil {
			t.Errorf("answer %q, %v", got, err)
		}
	}
	// A third is dropped: there is room for two.
	c, err := net.Dial("udp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("c"))
	f.mu.Lock()
	if len(f.flows) != 2 {
		t.Errorf("%d flows, want 2", len(f.flows))
	}
	f.mu.Unlock()
}

func TestMark(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:0")
	for _, network := range []string{"tcp", "udp"} {
		var marked []netip.AddrPort
		cfg := Config{Mark: func(_ uintptr, at netip.AddrPort) error {
			marked = append(marked, at)
			return nil
		}}
		f, err := Listen(t.Context(), network, at, cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if len(marked) != 1 || marked[0] != at {
			t.Errorf("%s: marked %v", network, marked)
		}
		cfg.Mark = func(uintptr, netip.AddrPort) error { return syscall.ENOMEM }
		if f, err := Listen(t.Context(), network, at, cfg); !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("%s: a socket that cannot be marked is bound: %v", network, err)
			f.Close()
		}
	}
	all := netip.MustParseAddrPort("0.0.0.0:80")
	if got := boundAt("tcp6", all); got != netip.MustParseAddrPort("[::]:80") {
		t.Error(got)
	}
	if got := boundAt("tcp4", all); got != all {
		t.Error(got)
	}
}
