package httpget

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wasmpod/wasmpod/probes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var dial = new(net.Dialer).DialContext

// target is what to ask of a server, at a path.
func target(t testing.TB, server, path string) Target {
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	return Target{
		Action: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port), Scheme: corev1.URIScheme(strings.ToUpper(u.Scheme))},
		PodIP:  u.Hostname(),
	}
}

func probe(t testing.TB, target Target) (probes.Result, string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Probe(ctx, dial, target)
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/code/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/code/"))
		w.WriteHeader(n)
		io.WriteString(w, "secret")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s host=%s agent=%q accept=%q x=%q enc=%q", r.Method, r.RequestURI, r.Host, r.UserAgent(), r.Header["Accept"], r.Header["X"], r.Header["Accept-Encoding"])
	})
	mux.Handle("/local", http.RedirectHandler("/code/200", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler("http://elsewhere.example/", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 2*maxHeaderBytes))
	})
	return mux
}

func TestVerdicts(t *testing.T) {
	server := httptest.NewServer(handler())
	defer server.Close()
	for _, tt := range []struct {
		name, path string
		want       probes.Result
		output     string
	}{
		{"PROBE-18 200", "/code/200", probes.Success, "secret"},
		{"PROBE-18 399", "/code/399", probes.Warning, "Probe terminated redirects, Response body: secret"},
		{"PROBE-18 400", "/code/400", probes.Failure, "HTTP probe failed with statuscode: 400"},
		{"PROBE-18 500", "/code/500", probes.Failure, "HTTP probe failed with statuscode: 500"},
		{"PROBE-18 local redirect", "/local", probes.Success, "secret"},
		{"PROBE-18 redirect to another host", "/away", probes.Warning, "Probe terminated redirects, Response body: <a href=\"http://elsewhere.example/\">Found</a>.\n\n"},
		{"PROBE-18 endless redirects", "/loop", probes.Failure, `Get "/loop": stopped after 10 redirects`},
		{"PROBE-17 query", "/echo?a=b", probes.Success, `GET /echo?a=b host=` + strings.TrimPrefix(server.URL, "http://") + ` agent="kube-probe/1.36" accept=["*/*"] x=[] enc=[]`},
		{"endless body", "/flood", probes.Success, string(make([]byte, maxBodyBytes))},
		{"long header", "/header", probes.Failure, "server response headers exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			result, output, err := probe(t, target(t, server.URL, tt.path))
			if err != nil || result != tt.want || output != tt.output && !strings.Contains(output, tt.output) || tt.output == "" && output != "" {
				t.Errorf("%v %.300q %v, want %v %.300q", result, output, err, tt.want, tt.output)
			}
		})
	}
}

func TestPROBE17Headers(t *testing.T) {
	server := httptest.NewServer(handler())
	defer server.Close()
	to := target(t, server.URL, "/echo")
	to.Action.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "example"}, {Name: "x", Value: "1"}, {Name: "X", Value: "2"}, {Name: "accept", Value: ""}, {Name: "user-agent", Value: "me"}}
	_, output, err := probe(t, to)
	if want := `GET /echo host=example agent="me" accept=[] x=["1" "2"] enc=[]`; err != nil || output != want {
		t.Errorf("%s %v, want %s", output, err, want)
	}
}

func TestPROBE24Port(t *testing.T) {
	server := httptest.NewServer(handler())
	defer server.Close()
	to := target(t, server.URL, "/code/200")
	to.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: to.Action.Port.IntVal}}
	to.Action.Port = intstr.FromString("web")
	if result, _, err := probe(t, to); result != probes.Success || err != nil {
		t.Errorf("%v %v", result, err)
	}
	to.Action.Port = intstr.FromString("other")
	if result, _, err := probe(t, to); result != probes.Unknown || err == nil {
		t.Errorf("PROBE-09: %v %v", result, err)
	}
}

func TestPROBE17HTTPS(t *testing.T) {
	server := httptest.NewTLSServer(handler())
	defer server.Close()
	if result, _, err := probe(t, target(t, server.URL, "/code/200")); result != probes.Success || err != nil {
		t.Errorf("%v %v", result, err)
	}
}

func TestHOOK07(t *testing.T) {
	var authorized []bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorized = append(authorized, r.Header.Get("Authorization") != "")
		if r.UserAgent() != "kube-lifecycle/1.36" {
			t.Errorf("User-Agent %q", r.UserAgent())
		}
		w.WriteHeader(500)
	}))
	defer server.Close()
	to := target(t, server.URL, "/")
	to.Action.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "secret"}}
	if fallback, err := Hook(t.Context(), dial, to); fallback != "" || err != nil {
		t.Errorf("any status: %q %v", fallback, err)
	}
	to.Action.Scheme = corev1.URISchemeHTTPS
	fallback, err := Hook(t.Context(), dial, to)
	if want := "request to HTTPS lifecycle hook " + strings.TrimPrefix(server.URL, "http://") + " got HTTP response, retry with HTTP succeeded"; fallback != want || err != nil {
		t.Errorf("fallback %q %v", fallback, err)
	}
	if fmt.Sprint(authorized) != "[true false]" {
		t.Errorf("Authorization sent: %v", authorized)
	}
	server.Close()
	if _, err := Hook(t.Context(), dial, to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v", err)
	}
}

// answers dials a server that does as it likes with the connection.
func answers(serve func(net.Conn)) Dial {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			_, _ = http.ReadRequest(bufio.NewReader(server))
			serve(server)
		}()
		return client, nil
	}
}

func TestPROBE18Hostile(t *testing.T) {
	to := Target{Action: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt(80)}, PodIP: "127.128.0.1"}
	forever := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, text); err != nil {
					return
				}
				time.Sleep(time.Millisecond) // of the bubble: so that the probe's time passes
			}
		}
	}
	for name, tt := range map[string]struct {
		serve  func(net.Conn)
		result probes.Result
		text   string // of output or error
	}{
		"hangs":       {func(c net.Conn) { io.Copy(io.Discard, c) }, probes.Failure, `Get "http://127.128.0.1:80/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`},
		"closes":      {func(net.Conn) {}, probes.Failure, "EOF"},
		"garbage":     {func(c net.Conn) { io.WriteString(c, "\x00\xff garbage\r\n\r\n") }, probes.Failure, "malformed HTTP"},
		"slow header": {forever("x"), probes.Failure, "context deadline exceeded"},
		"endless header": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			forever("X: " + strings.Repeat("x", 1000) + "\r\n")(c)
		}, probes.Failure, "server response headers exceeded"},
		"endless 1xx":     {forever("HTTP/1.1 103 Early Hints\r\n\r\n"), probes.Failure, ""},
		"body that hangs": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nx"); io.Copy(io.Discard, c) }, probes.Failure, "context deadline exceeded"},
		"body breaks off": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx") }, probes.Failure, "unexpected EOF"},
		"chunks of a byte": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			forever("1\r\nx\r\n")(c)
		}, probes.Failure, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				result, output, err := Probe(ctx, answers(tt.serve), to)
				took := time.Since(begin)
				time.Sleep(time.Second) // until the server has noticed
				if err != nil {
					output = err.Error()
				}
				if result != tt.result || !strings.Contains(output, tt.text) || took > time.Second {
					t.Errorf("%v %.300q after %v, want %v %q", result, output, took, tt.result, tt.text)
				}
			})
		})
	}
	t.Run("refuses", func(t *testing.T) {
		refuse := func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 128, 0, 1), Port: 80}, Err: fmt.Errorf("connect: %w", syscall.ECONNREFUSED)}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, output, _ := Probe(ctx, refuse, to)
		if want := `Get "http://127.128.0.1:80/": dial tcp 127.128.0.1:80: connect: connection refused`; output != want {
			t.Errorf("%s, want %s", output, want)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		to := Target{Action: &corev1.HTTPGetAction{Port: intstr.FromInt(80)}, PodIP: "127.128.0.1"}
		_, output, _ := Probe(ctx, answers(func(c net.Conn) { io.Copy(io.Discard, c) }), to)
		if time.Since(begin) != time.Second || !strings.Contains(output, "context canceled") {
			t.Errorf("%q after %v", output, time.Since(begin))
		}
	})
}

// FuzzProbe: whatever is answered, a probe ends.
func FuzzProbe(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), false)
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n"), false)
	f.Add([]byte("\x16\x03\x01"), true)
	f.Fuzz(func(t *testing.T, answer []byte, https bool) {
		to := Target{Action: &corev1.HTTPGetAction{Port: intstr.FromInt(80)}, PodIP: "127.128.0.1"}
		if https {
			to.Action.Scheme = corev1.URISchemeHTTPS
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, output, _ := Probe(ctx, func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				go io.Copy(io.Discard, server)
				server.Write(answer)
			}()
			return client, nil
		}, to)
		if len(output) > maxHeaderBytes+maxBodyBytes {
			t.Errorf("%d bytes of output", len(output))
		}
	})
}

func BenchmarkProbe(b *testing.B) {
	listener := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: handler()}
	go server.Serve(listener)
	defer server.Close()
	dial := func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		listener.c <- server
		return client, nil
	}
	to := Target{Action: &corev1.HTTPGetAction{Path: "/code/200", Port: intstr.FromInt(80)}, PodIP: "127.128.0.1"}
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if result, output, err := Probe(ctx, dial, to); result != probes.Success {
			b.Fatal(output, err)
		}
	}
}

type pipes struct {
	c    chan net.Conn
	done chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.c:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// What a hook's server says in its body is read up to 10 KiB, and does not matter.
func TestHookBody(t *testing.T) {
	for name, tt := range map[string]struct {
		header string
		body   int
		took   time.Duration
	}{
		"TIME-20 HOOK-07 a body is waited for":                 {"Content-Length: 10240\r\n", 10240, 2 * time.Second},
		"TIME-20 one that is too long is not":                  {"Content-Length: 10241\r\n", 10241, 0},
		"TIME-20 of one without a length, no more than 10 KiB": {"", 1 << 20, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				taken := make(chan int, 1)
				dial := func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					go func() {
						defer server.Close()
						_, _ = http.ReadRequest(bufio.NewReader(server))
						_, _ = io.WriteString(server, "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n"+tt.header+"\r\n")
						time.Sleep(2 * time.Second)
						n, block := 0, make([]byte, 512)
						for n < tt.body {
							k, err := server.Write(block[:min(len(block), tt.body-n)])
							if n += k; err != nil {
								break
							}
						}
						taken <- n
					}()
					return client, nil
				}
				begin := time.Now()
				fallback, err := Hook(t.Context(), dial, Target{Action: &corev1.HTTPGetAction{Port: intstr.FromInt(80)}, PodIP: "127.128.0.1"})
				if fallback != "" || err != nil || time.Since(begin) != tt.took {
					t.Errorf("%q %v after %v", fallback, err, time.Since(begin))
				}
				if n := <-taken; n > 2*maxBodyBytes {
					t.Errorf("%d bytes taken", n)
				}
			})
		})
	}
}
