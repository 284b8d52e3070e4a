package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/applet"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// applets run natively here: what the network does in a pod is tested with the
// pod.
func runApplet(t *testing.T, dir, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	p := &proc.Proc{Ctx: context.Background(), Args: args, Dir: dir, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	status = proc.Invoke(applet.Table()[args[0]], p)
	return status, out.String(), errs.String()
}

func TestWget(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "/there?x=1", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/missing":
			http.NotFound(w, r)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		default:
			body, _ := io.ReadAll(r.Body)
			io.WriteString(w, r.Method+" "+r.RequestURI+" "+r.Host+" "+r.Header.Get("X-A")+" "+string(body))
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		"to standard output": {[]string{"-q", "-O", "-", server.URL + "/a?b=c"}, 0, "GET /a?b=c " + host + "  ", ""},
		"without a scheme":   {[]string{"-qO-", host}, 0, "GET / " + host + "  ", ""},
		"headers":            {[]string{"-qO-", "--header", "X-A: b", "--header", "Host: pod", host}, 0, "GET / pod b ", ""},
		"post":               {[]string{"-qO-", "--post-data", "k=v", host}, 0, "POST / " + host + "  k=v", ""},
		"redirect":           {[]string{"-qO-", server.URL + "/away"}, 0, "GET /there?x=1 " + host + "  ", ""},
		"too many redirects": {[]string{"-qO-", server.URL + "/loop"}, 1, "", "wget: Too many redirections\n"},
		"not found":          {[]string{"-qO-", server.URL + "/missing"}, 1, "", "wget: Server returned error: HTTP/1.0 404 Not Found\n"},
		"cut short":          {[]string{"-qO-", server.URL + "/cut"}, 1, "short", "wget: Connection closed prematurely\n"},
		"spider":             {[]string{"-q", "--spider", server.URL}, 0, "", ""},
		"no http":            {[]string{"gopher://x/"}, 1, "", "wget: Not an http or ftp url: gopher://x/\n"},
		"usage":              {nil, 1, "", "Usage: wget [-qS] [--spider] [-O FILE] [--header STR] [--post-data STR] [-T SEC] [-U AGENT] URL\n"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := runApplet(t, dir, "", append([]string{"wget"}, tt.args...)...)
			if status != tt.status || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("status %d, stdout %q, stderr %q, want %d, %q, %q", status, stdout, stderr, tt.status, tt.stdout, tt.stderr)
			}
		})
	}
	if status, _, stderr := runApplet(t, dir, "", "wget", server.URL+"/file"); status != 0 || stderr != "'file' saved\n" {
		t.Errorf("saving: status %d, %q", status, stderr)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || !strings.HasPrefix(string(got), "GET /file ") {
		t.Errorf("the saved file has %q, %v", got, err)
	}
}

func TestNC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			io.WriteString(c, strings.ToUpper(string(b)))
			c.Close()
		}
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if status, stdout, stderr := runApplet(t, "/", "shout", "nc", host, port); status != 0 || stdout != "SHOUT" {
		t.Errorf("nc: status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if status, _, stderr := runApplet(t, "/", "", "nc", "-z", "-v", host, port); status != 0 || !strings.HasSuffix(stderr, " open\n") {
		t.Errorf("nc -zv: status %d, stderr %q", status, stderr)
	}
	l.Close()
	status, _, stderr := runApplet(t, "/", "", "nc", "-w", "1", host, port)
	if want := "nc: can't connect to remote host (127.0.0.1): Connection refused\n"; status != 1 || stderr != want {
		t.Errorf("nc to nobody: status %d, stderr %q, want %q", status, stderr, want)
	}
}
