package runtime

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// dialed is a sandbox of which only its network is used.
type dialed struct {
	sandbox.Sandbox
	done chan struct{}
	dial func(network, address string) (net.Conn, error)
}

func (d *dialed) ID() string            { return "s1" }
func (d *dialed) Done() <-chan struct{} { return d.done }
func (d *dialed) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	return d.dial(network, address)
}

// echo is a pod that sends back what it gets, at one address.
func echo(at string) *dialed {
	return &dialed{done: make(chan struct{}), dial: func(network, address string) (net.Conn, error) {
		if address != at {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
		}
		here, there := net.Pipe()
		go func() {
			_, _ = io.Copy(there, there)
			there.Close()
		}()
		return here, nil
	}}
}

func TestForward(t *testing.T) {
	// start forwards to a pod, and returns the client's end and how it ends.
	start := func(t *testing.T, s *dialed) (net.Conn, context.CancelFunc, chan error) {
		client, stream := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ctx, idle := withIdle(ctx)
			defer idle.stop()
			defer stream.Close()
			ended <- forward(ctx, s, 8080, stream, idle)
		}()
		return client, cancel, ended
	}
	say := func(t *testing.T, client net.Conn) {
		t.Helper()
		go func() { _, _ = client.Write([]byte("hello")) }()
		b := make([]byte, 5)
		if _, err := io.ReadFull(client, b); err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
	}
	t.Run("EXEC-05 localhost of IPv4, then of IPv6", func(t *testing.T) {
		for _, at := range []string{"127.0.0.1:8080", "[::1]:8080"} {
			synctest.Test(t, func(t *testing.T) {
				client, _, ended := start(t, echo(at))
				say(t, client)
				client.Close()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Run("EXEC-05 nobody listens", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, _, ended := start(t, echo("127.0.0.1:1"))
			const want = `failed to connect to localhost:8080 inside namespace "s1", IPv4: dial tcp4: connection refused IPv6 dial tcp6: connection refused`
			if err := <-ended; err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	})
	t.Run("EXEC-05 the pod goes away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := echo("127.0.0.1:8080")
			client, _, ended := start(t, s)
			say(t, client)
			close(s.done)
			if err := <-ended; !errors.Is(err, ErrLostConnection) || err.Error() != "lost connection to pod" {
				t.Error(err)
			}
		})
	})
	t.Run("EXEC-05 it is cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, cancel, ended := start(t, echo("127.0.0.1:8080"))
			say(t, client)
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	})
	t.Run("TIME-23 streams that are idle for 4 hours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			client, _, ended := start(t, echo("127.0.0.1:8080"))
			time.Sleep(3 * time.Hour)
			say(t, client)
			if err := <-ended; !errors.Is(err, ErrIdle) || time.Since(begin) != 7*time.Hour {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	})
	t.Run("EXEC-05 pods that do not run", func(t *testing.T) {
		r := &Runtime{store: store.New()}
		pod := &corev1.Pod{}
		pod.UID, pod.Name, pod.Namespace = "u", "p", "ns"
		if err := r.store.AddPod(pod); err != nil {
			t.Fatal(err)
		}
		for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodSucceeded} {
			r.store.SetStatus("u", corev1.PodStatus{Phase: phase})
			want := "unable to forward port because pod is not running. Current status=" + string(phase)
			client, stream := net.Pipe()
			if err := r.PortForward(t.Context(), "u", 80, stream); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
			if _, err := client.Write([]byte("x")); err == nil {
				t.Error("the stream is not closed")
			}
			if _, err := r.OpenForward("u", nil, []string{"80"}, nil); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		if err := r.PortForward(t.Context(), "none", 80, struct{ io.ReadWriteCloser }{nopStream{}}); err == nil || !strings.HasPrefix(err.Error(), "pod not found") {
			t.Error(err)
		}
	})
}

type nopStream struct{}

func (nopStream) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopStream) Write(p []byte) (int, error) { return len(p), nil }
func (nopStream) Close() error                { return nil }

func TestParseForward(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}}}
	for _, tt := range []struct {
		ports         string
		local, remote uint16
		reason        string
	}{
		{"EXEC-05 8888:8080", 8888, 8080, ""},
		{"EXEC-05 8080", 8080, 8080, ""},
		{"EXEC-05 :8080", 0, 8080, ""},
		{"EXEC-05 0:8080", 0, 8080, ""},
		{"EXEC-05 http", 8080, 8080, ""},
		{"EXEC-05 80:http", 80, 8080, ""},
		{"EXEC-05 ", 0, 0, "invalid port format ''"},
		{"EXEC-05 1:2:3", 0, 0, "invalid port format '1:2:3'"},
		{"EXEC-05 1:", 0, 0, "error parsing remote port ''"},
		{"EXEC-05 x", 0, 0, "error parsing remote port 'x'"},
		{"EXEC-05 x:80", 0, 0, "error parsing local port 'x'"},
		{"EXEC-05 80:0", 0, 0, "remote port must be > 0"},
		{"EXEC-05 80:65536", 0, 0, "error parsing remote port '65536'"},
	} {
		t.Run(tt.ports, func(t *testing.T) {
			local, remote, err := parseForward(pod, strings.TrimPrefix(tt.ports, "EXEC-05 "))
			if tt.reason == "" && (err != nil || local != tt.local || remote != tt.remote) {
				t.Errorf("%d -> %d, %v", local, remote, err)
			}
			if tt.reason != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.reason)) {
				t.Errorf("%v, want %s", err, tt.reason)
			}
		})
	}
}

func TestForwardAddressesEXEC05(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	for _, tt := range []struct {
		addresses []string
		want      string
	}{
		{[]string{"127.0.0.1"}, "unable to listen on port"},
		{[]string{"::1", "127.0.0.1"}, "unable to listen on port"},       // one that was named cannot be had
		{[]string{"127.0.0.1", "no-ip"}, "no-ip is not a valid IP"},      // before any is bound
		{[]string{"localhost", "256.0.0.1"}, "256.0.0.1 is not a valid"}, // though localhost can be had
	} {
		f := &Forward{}
		err := f.listen(tt.addresses, port, 80)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.addresses, err, tt.want)
		}
		for _, l := range f.listeners {
			l.Close()
		}
	}
}

// flaky is a listener that fails once before it accepts.
type flaky struct {
	net.Listener
	failed bool
}

func (l *flaky) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// A process that has run out of descriptors for a moment goes on listening.
func TestForwardGoesOnAcceptingEXEC05(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := echo("127.0.0.1:8080")
	f := &Forward{sandbox: s, places: make(chan struct{}, 1), listeners: []net.Listener{&flaky{Listener: inner}}, remote: []uint16{8080}}
	f.ctx, f.cancel = context.WithCancel(t.Context())
	defer f.Close()
	f.serving.Go(func() { f.accept(f.listeners[0], 8080) })
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	close(s.done)
	if err := f.Wait(t.Context()); !errors.Is(err, ErrLostConnection) {
		t.Errorf("%v, want %v", err, ErrLostConnection)
	}
}
