package main

import (
	"archive/zip"
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/applet"
	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

func TestHTTPD(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{
		"index.html": "home", "a/b.txt": "text", "a/WEB-INF/web.xml": "secret", "cgi-bin/plain": "", "cgi-bin/none": "", "cgi-bin/away": "",
	} {
		file := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stderr, said := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	p := &proc.Proc{
		Ctx: ctx, Args: []string{"httpd", "-f", "-p", "127.0.0.1:0", "-h", home}, Dir: "/", Stdout: io.Discard, Stderr: said,
		Start: func(p *proc.Proc) int { // instead of a script
			switch filepath.Base(p.Args[0]) {
			case "plain":
				body, _ := io.ReadAll(p.Stdin)
				io.WriteString(p.Stdout, p.Getenv("REQUEST_METHOD")+" "+p.Getenv("QUERY_STRING")+" "+p.Getenv("HTTP_X_A")+" "+string(body))
			case "away":
				io.WriteString(p.Stdout, "Status: 302 Found\r\nLocation: /\r\n\r\n")
			}
			return 0
		},
	}
	go func() {
		ended <- proc.Invoke(applet.Table()["httpd"], p)
		said.Close()
	}()
	line, err := bufio.NewReader(stderr).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "httpd: listening on ")
	if !ok {
		t.Fatalf("it says %q, %v", line, err)
	}
	go io.Copy(io.Discard, stderr)
	client := &http.Client{Timeout: time.Minute}
	for _, tt := range []struct{ method, target, body, want string }{
		{"GET", "/", "", "200 home"},
		{"HEAD", "/", "", "200 "},
		{"GET", "/a/b.txt?x", "", "200 text"},
		{"GET", "/a/%62.txt", "", "200 text"},
		{"GET", "/a", "", "404 "}, // by the redirect
		{"GET", "/a/../../../../etc/hostname", "", "404 "},
		{"GET", "/a/WEB-INF/web.xml", "", "403 "},
		{"POST", "/a/b.txt", "", "501 "},
		{"GET", "/cgi-bin/plain?k=v", "", "200 GET k=v b "},
		{"POST", "/cgi-bin/plain", "body", "200 POST  b body"},
		{"GET", "/cgi-bin/none", "", "500 "},
		{"GET", "/cgi-bin/away", "", "200 home"},
	} {
		r, err := http.NewRequest(tt.method, "http://"+address+tt.target, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-A", "b")
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got := response.Status[:3] + " "
		if response.StatusCode == http.StatusOK {
			got += string(body)
		}
		if got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.method, tt.target, got, tt.want)
		}
	}
	for request, want := range map[string]string{
		"nonsense\r\n\r\n": "HTTP/1.1 400", "GET / HTTP/1.0\r\nbad\r\n\r\n": "HTTP/1.1 400",
		"GET /" + strings.Repeat("x", 10000) + " HTTP/1.0\r\n\r\n":                    "HTTP/1.1 413",
		"GET / HTTP/1.0\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n":               "HTTP/1.1 413",
		"POST /cgi-bin/plain HTTP/1.0\r\nContent-Length: 99999999999\r\n\r\n":         "HTTP/1.1 413",
		"POST /cgi-bin/plain HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "HTTP/1.1 501",
		"POST /cgi-bin/plain HTTP/1.1\r\nContent-Length: -1\r\n\r\n":                  "HTTP/1.1 400",
		"GET /%00 HTTP/1.0\r\n\r\n":                                                   "HTTP/1.1 400",
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("%.40q: %q, %v, want %q", request, got, err, want)
		}
		c.Close()
	}
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestUnzip(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "x.zip"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for _, name := range []string{"a/b", "c", "../evil"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "text of "+name)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if status, out, errs := runApplet(t, dir, "", "unzip", "-p", "x", "c"); status != 0 || out != "text of c" || errs != "" {
		t.Errorf("%d %q %q", status, out, errs)
	}
	status, out, errs := runApplet(t, dir, "", "unzip", "-q", "x.zip", "-d", "to")
	if status != 1 || out != "" || !strings.Contains(errs, "../evil") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "to/a/b")); err != nil || string(b) != "text of a/b" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
		t.Error("a member lies outside")
	}
	if status, _, _ := runApplet(t, dir, "", "unzip", "-q", "x.zip", "c", "-d", "to"); status != 1 {
		t.Error("a file was overwritten without being asked")
	}
	if status, _, _ := runApplet(t, dir, "", "unzip", "-qo", "x.zip", "c", "-d", "to"); status != 0 {
		t.Error("a file was not overwritten")
	}
}
