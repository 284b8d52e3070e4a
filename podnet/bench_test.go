package podnet

import (
	"context"
	"io"
	"net"
	"testing"
)

// stacks are what the benchmarks compare, in one run: a Namespace and the
// kernel's loopback.
func stacks(b *testing.B, run func(b *testing.B, listen func() (net.Listener, error), dial func(string) (net.Conn, error))) {
	b.Run("podnet", func(b *testing.B) {
		ns := newPod(b)
		run(b, func() (net.Listener, error) { return ns.Listen("tcp", "127.0.0.1:0") },
			func(a string) (net.Conn, error) { return ns.DialContext(context.Background(), "tcp", a) })
	})
	b.Run("kernel", func(b *testing.B) {
		run(b, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
			func(a string) (net.Conn, error) { return net.Dial("tcp", a) })
	})
}

type lingerer interface{ SetLinger(int) error }

func benchPair(b *testing.B, listen func() (net.Listener, error), dial func(string) (net.Conn, error)) (client, server net.Conn) {
	l, err := listen()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if client, err = dial(l.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	return client, server
}

func BenchmarkPingPong64(b *testing.B) {
	stacks(b, func(b *testing.B, listen func() (net.Listener, error), dial func(string) (net.Conn, error)) {
		client, server := benchPair(b, listen, dial)
		defer client.Close()
		go func() {
			defer server.Close()
			buf := make([]byte, 64)
			for {
				if _, err := io.ReadFull(server, buf); err != nil {
					return
				}
				server.Write(buf)
			}
		}()
		buf := make([]byte, 64)
		b.ReportAllocs()
		for b.Loop() {
			client.Write(buf)
			if _, err := io.ReadFull(client, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkBulk64K(b *testing.B) {
	stacks(b, func(b *testing.B, listen func() (net.Listener, error), dial func(string) (net.Conn, error)) {
		client, server := benchPair(b, listen, dial)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			buf := make([]byte, 64<<10)
			for {
				if _, err := server.Read(buf); err != nil {
					return
				}
			}
		}()
		buf := make([]byte, 64<<10)
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		client.Close()
		<-done
	})
}

func BenchmarkConnectClose(b *testing.B) {
	stacks(b, func(b *testing.B, listen func() (net.Listener, error), dial func(string) (net.Conn, error)) {
		l, err := listen()
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			c, err := dial(l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c.(lingerer).SetLinger(0) // the kernel would run out of ports
			c.Close()
		}
	})
}
