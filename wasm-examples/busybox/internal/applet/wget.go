package applet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// maxRedirects is how often wget goes where it is sent.
const maxRedirects = 10

// wget fetches a file. It speaks HTTP/1.0, whose answers are simple to read,
// as net/http would double the size of this program.
func wget(p *proc.Proc) int {
	f, rest, ok := parse(p, "cqSO:T:U:sH:D:", map[string]byte{
		"quiet": 'q', "output-document": 'O', "timeout": 'T', "user-agent": 'U', "spider": 's', "server-response": 'S',
		"header": 'H', "post-data": 'D',
	})
	if !ok || len(rest) != 1 {
		return p.Usage("[-qS] [--spider] [-O FILE] [--header STR] [--post-data STR] [-T SEC] [-U AGENT] URL")
	}
	timeout := 900 * time.Second
	if v, ok := f.value('T'); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n <= 0 {
			p.Errorf("invalid number '%s'", v)
			return 1
		}
		timeout = time.Duration(n) * time.Second
	}
	target := rest[0]
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	for range maxRedirects {
		if err != nil {
			break
		}
		var to *url.URL
		if to, err = wgetOnce(p, f, u, timeout); err == nil && to == nil {
			return 0
		}
		u = to
	}
	if err == nil {
		err = errors.New("too many redirections")
	}
	p.Errorf("%s", netReason(err))
	return 1
}

// wgetOnce makes one request. It returns where the server sends us, if it does.
func wgetOnce(p *proc.Proc, f *flags, u *url.URL, timeout time.Duration) (redirect *url.URL, err error) {
	if u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("not an http or ftp url: %s", u) // busybox's words
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(p.Ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("can't connect to remote host: %s", netReason(err))
	}
	defer conn.Close()
	defer context.AfterFunc(p.Ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(timeout))
	if err := sendRequest(conn, f, u); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	tp := textproto.NewReader(r)
	status, err := tp.ReadLine()
	if err != nil {
		return nil, errors.New("error getting response")
	}
	header, err := tp.ReadMIMEHeader()
	if err != nil {
		return nil, errors.New("error getting response")
	}
	if f.has('S') {
		io.WriteString(p.Stderr, "  "+status+"\n")
		for name, values := range header {
			io.WriteString(p.Stderr, "  "+name+": "+strings.Join(values, ", ")+"\n")
		}
	}
	version, rest, _ := strings.Cut(status, " ")
	switch code, _, _ := strings.Cut(rest, " "); {
	case !strings.HasPrefix(version, "HTTP/"):
		return nil, errors.New("error getting response")
	case strings.HasPrefix(code, "2"):
		return nil, save(p, f, u, header, r)
	case strings.HasPrefix(code, "3") && header.Get("Location") != "":
		return u.Parse(header.Get("Location"))
	}
	return nil, fmt.Errorf("server returned error: %s", status)
}

func sendRequest(w io.Writer, f *flags, u *url.URL) error {
	agent := "Wget"
	if v, ok := f.value('U'); ok {
		agent = v
	}
	own := map[string]string{"Host": u.Host, "User-Agent": agent, "Connection": "close"}
	body, post := f.value('D')
	method := "GET"
	if post {
		method = "POST"
		own["Content-Type"] = "application/x-www-form-urlencoded"
		own["Content-Length"] = strconv.Itoa(len(body))
	}
	var b strings.Builder
	b.WriteString(method + " " + u.RequestURI() + " HTTP/1.0\r\n")
	for _, h := range f.values['H'] {
		if strings.ContainsAny(h, "\r\n") {
			return fmt.Errorf("bad header '%q'", h)
		}
		name, _, _ := strings.Cut(h, ":")
		delete(own, textproto.CanonicalMIMEHeaderKey(name))
		b.WriteString(h + "\r\n")
	}
	for name, value := range own {
		b.WriteString(name + ": " + value + "\r\n")
	}
	b.WriteString("\r\n" + body)
	_, err := io.WriteString(w, b.String())
	return err
}

// save writes what the server sends to where the user wants it.
func save(p *proc.Proc, f *flags, u *url.URL, header textproto.MIMEHeader, r io.Reader) error {
	if f.has('s') {
		return nil
	}
	out, ok := f.value('O')
	if !ok {
		if out = path.Base(u.Path); out == "/" || out == "." {
			out = "index.html"
		}
	}
	w := io.WriteCloser(nopWriteCloser{p.Stdout})
	if out != "-" {
		var err error
		if w, err = p.Create(out, os.O_TRUNC); err != nil {
			return fmt.Errorf("can't open '%s': %s", out, proc.Reason(err))
		}
	}
	n, err := io.Copy(w, r)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if length := header.Get("Content-Length"); length != "" && length != strconv.FormatInt(n, 10) {
		return errors.New("connection closed prematurely")
	}
	if !f.has('q') && out != "-" {
		io.WriteString(p.Stderr, "'"+out+"' saved\n")
	}
	return nil
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }
