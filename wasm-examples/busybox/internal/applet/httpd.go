package applet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// Bounds of what a client can ask for.
const (
	httpdClients  = 64 // connections at a time; more wait
	httpdLine     = 8 << 10
	httpdHeaders  = 100
	httpdBody     = 16 << 20
	httpdPatience = 60 * time.Second // for a request, and for the client to take the answer
)

// httpd serves a directory, and runs what lies in a folder cgi-bin.
func httpd(p *proc.Proc) int {
	f, rest, ok := parse(p, "fivp:h:u:c:r:", nil)
	if !ok || len(rest) > 0 || f.has('i') {
		return p.Usage("[-fv] [-p [IP:]PORT] [-h HOME]")
	}
	s := &httpServer{p: p, home: p.Dir, verbose: f.has('v')}
	if home, ok := f.value('h'); ok {
		s.home = p.Path(home)
	}
	if info, err := os.Stat(s.home); err != nil || !info.IsDir() {
		p.Errorf("can't change directory to '%s': No such file or directory", s.home)
		return 1
	}
	address := "80"
	if v, ok := f.value('p'); ok {
		address = v
	}
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	var listen net.ListenConfig
	l, err := listen.Listen(p.Ctx, "tcp", address)
	if err != nil {
		p.Errorf("bind: %s", netReason(err))
		return 1
	}
	if _, port, _ := net.SplitHostPort(address); port == "0" { // any: nobody else knows which
		p.Errorf("listening on %s", l.Addr())
	}
	if !f.has('f') { // a daemon, which lives as long as the instance
		go s.serve(context.Background(), l)
		return 0
	}
	s.serve(p.Ctx, l)
	return 0
}

type httpServer struct {
	p       *proc.Proc
	home    string
	verbose bool
	log     sync.Mutex
}

func (s *httpServer) serve(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	places := make(chan struct{}, httpdClients)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if !pause(s.p, 100*time.Millisecond) { // no descriptors left: some will be
				return
			}
			continue
		}
		places <- struct{}{}
		go func() {
			defer func() {
				c.Close()
				<-places
			}()
			s.answer(ctx, c)
		}()
	}
}

// httpRequest is what a client has sent.
type httpRequest struct {
	method, target, path, query, protocol string
	headers                               [][2]string // names in lower case
	body                                  []byte
}

func (r *httpRequest) header(name string) string {
	for _, h := range r.headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

// httpError is an answer without content.
type httpError struct {
	status   int
	location string
}

func (e httpError) Error() string { return strconv.Itoa(e.status) + " " + httpReasons[e.status] }

var httpReasons = map[int]string{
	200: "OK", 302: "Found", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
	413: "Payload Too Large", 501: "Not Implemented", 500: "Internal Server Error",
}

func (s *httpServer) answer(ctx context.Context, c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(httpdPatience))
	w := bufio.NewWriter(c)
	defer w.Flush()
	r, err := readRequest(bufio.NewReaderSize(c, httpdLine))
	if err == io.EOF {
		return
	}
	if s.verbose {
		s.log.Lock()
		fmt.Fprintf(s.p.Stderr, "%s: %s %s\n", c.RemoteAddr(), r.method, r.target)
		s.log.Unlock()
	}
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(httpdPatience))
		err = s.content(ctx, w, c, r)
	}
	var failure httpError
	if err == nil || !errors.As(err, &failure) {
		return // the client has gone
	}
	text := fmt.Sprintf("<HTML><HEAD><TITLE>%[1]v</TITLE></HEAD>\n<BODY><H1>%[1]v</H1>\n</BODY></HTML>\n", failure)
	fmt.Fprintf(w, "HTTP/1.1 %v\r\nContent-type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n", failure, len(text))
	if failure.location != "" {
		fmt.Fprintf(w, "Location: %s\r\n", failure.location)
	}
	io.WriteString(w, "\r\n")
	if r.method != "HEAD" {
		io.WriteString(w, text)
	}
}

func readRequest(in *bufio.Reader) (*httpRequest, error) {
	r := &httpRequest{}
	bad := httpError{status: 400}
	line, err := httpLine(in)
	if err != nil {
		return r, err
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.") || !strings.HasPrefix(words[1], "/") {
		return r, bad
	}
	r.method, r.target, r.protocol = words[0], words[1], words[2]
	raw, query, _ := strings.Cut(words[1], "?")
	r.query = query
	decoded, err := url.PathUnescape(raw)
	if err != nil || strings.ContainsRune(decoded, 0) {
		return r, bad
	}
	r.path = path.Clean("/" + decoded)
	if strings.HasSuffix(decoded, "/") && r.path != "/" {
		r.path += "/"
	}
	for {
		line, err := httpLine(in)
		switch {
		case err != nil:
			return r, err
		case line == "":
			return r, readBody(in, r)
		case len(r.headers) == httpdHeaders:
			return r, httpError{status: 413}
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return r, bad
		}
		r.headers = append(r.headers, [2]string{strings.ToLower(name), strings.TrimSpace(value)})
	}
}

func readBody(in *bufio.Reader, r *httpRequest) error {
	if r.header("transfer-encoding") != "" {
		return httpError{status: 501}
	}
	length := r.header("content-length")
	if length == "" {
		return nil
	}
	n, err := strconv.ParseUint(length, 10, 63)
	switch {
	case err != nil:
		return httpError{status: 400}
	case n > httpdBody:
		return httpError{status: 413}
	}
	r.body, err = io.ReadAll(io.LimitReader(in, int64(n)))
	if err == nil && uint64(len(r.body)) < n {
		err = io.EOF
	}
	return err
}

// httpLine reads a line of bounded length, without its end.
func httpLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return "", httpError{status: 413}
	case err != nil:
		return "", io.EOF
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// content sends a file, or what a script says.
func (s *httpServer) content(ctx context.Context, w *bufio.Writer, c net.Conn, r *httpRequest) error {
	name := path.Join(s.home, r.path)
	info, err := os.Stat(name)
	if err != nil {
		return httpError{status: 404}
	}
	if info.IsDir() {
		if !strings.HasSuffix(r.path, "/") {
			return httpError{status: 302, location: (&url.URL{Path: r.path + "/", RawQuery: r.query}).String()}
		}
		name = path.Join(name, "index.html")
		if info, err = os.Stat(name); err != nil {
			return httpError{status: 404}
		}
	}
	switch {
	case strings.Contains(r.path, "/WEB-INF/"): // as servlet containers have it
		return httpError{status: 403}
	case !info.Mode().IsRegular():
		return httpError{status: 404}
	case strings.Contains(path.Dir(r.path)+"/", "/cgi-bin/"):
		return s.script(ctx, w, c, r, name)
	case r.method != "GET" && r.method != "HEAD":
		return httpError{status: 501}
	}
	file, err := os.Open(name)
	if err != nil {
		return httpError{status: 403}
	}
	defer file.Close()
	fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-type: %s\r\nConnection: close\r\nContent-Length: %d\r\nLast-Modified: %s\r\n\r\n",
		contentType(name), info.Size(), info.ModTime().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
	if r.method == "HEAD" {
		return nil
	}
	_, err = io.CopyN(w, file, info.Size())
	return err
}

var contentTypes = map[string]string{
	".html": "text/html", ".htm": "text/html", ".txt": "text/plain", ".css": "text/css", ".js": "text/javascript",
	".json": "application/json", ".xml": "text/xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
	".gif": "image/gif", ".svg": "image/svg+xml", ".ico": "image/x-icon", ".wasm": "application/wasm",
}

func contentType(name string) string {
	if t, ok := contentTypes[path.Ext(name)]; ok {
		return t
	}
	return "application/octet-stream"
}

// script runs a program of cgi-bin. Its output is the answer, with a status line
// before it, if it brings none, and a type.
func (s *httpServer) script(ctx context.Context, w *bufio.Writer, c net.Conn, r *httpRequest, name string) error {
	if s.p.Start == nil {
		return httpError{status: 501}
	}
	host, port, _ := net.SplitHostPort(c.RemoteAddr().String())
	env := []string{
		"PATH=" + s.p.Getenv("PATH"), "GATEWAY_INTERFACE=CGI/1.1", "SERVER_SOFTWARE=busybox httpd", "SERVER_PROTOCOL=" + r.protocol,
		"REQUEST_METHOD=" + r.method, "REQUEST_URI=" + r.target, "QUERY_STRING=" + r.query,
		"SCRIPT_NAME=" + r.path, "SCRIPT_FILENAME=" + name, "REMOTE_ADDR=" + host, "REMOTE_PORT=" + port,
		"CONTENT_LENGTH=" + strconv.Itoa(len(r.body)), "CONTENT_TYPE=" + r.header("content-type"),
	}
	for _, h := range r.headers {
		env = append(env, "HTTP_"+strings.ToUpper(strings.ReplaceAll(h[0], "-", "_"))+"="+h[1])
	}
	ctx, cancel := context.WithTimeout(ctx, httpdPatience)
	defer cancel()
	out := &cgiWriter{w: w}
	q := *s.p
	q.Ctx, q.Args, q.Env, q.Dir = ctx, []string{name}, env, path.Dir(name)
	q.Stdin, q.Stdout = bytes.NewReader(r.body), out
	proc.Invoke(q.Start, &q)
	if !out.begun {
		return httpError{status: 500}
	}
	return nil
}

// cgiWriter puts a status line before what a script writes.
type cgiWriter struct {
	w     *bufio.Writer
	begun bool
}

func (c *cgiWriter) Write(b []byte) (int, error) {
	if !c.begun && len(b) > 0 {
		c.begun = true
		line, _, _ := bytes.Cut(b, []byte("\n"))
		name, _, isHeader := strings.Cut(strings.ToLower(string(line)), ":")
		switch {
		case bytes.HasPrefix(b, []byte("HTTP/")):
		case isHeader && name == "status":
			io.WriteString(c.w, "HTTP/1.1 ")
			_, err := c.w.Write(bytes.TrimLeft(b[len("status:"):], " "))
			return len(b), err
		case isHeader && (name == "content-type" || name == "location"):
			io.WriteString(c.w, "HTTP/1.1 200 OK\r\nConnection: close\r\n")
		default:
			io.WriteString(c.w, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-type: text/plain\r\n\r\n")
		}
	}
	return c.w.Write(b)
}
