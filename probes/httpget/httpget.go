// Package httpget makes the HTTP requests of probes and lifecycle hooks, as the
// kubelet makes them (PROBE-17, PROBE-18, HOOK-07). How a connection is made is
// given by whoever calls: for pods, through their own network.
//
// What answers is a guest, and may be hostile. A request takes no longer than
// its context, holds at most maxHeaderBytes and maxBodyBytes of what is
// answered, and leaves no goroutine and no connection behind.
package httpget

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

const (
	// maxBodyBytes of an answer are read (PROBE-18).
	maxBodyBytes = 10 << 10
	// maxHeaderBytes bounds the header of an answer: a thousand hostile guests
	// may be probed at a time. The kubelet has Go's 10 MiB.
	maxHeaderBytes = 64 << 10
	maxRedirects   = 10
	// tlsTime is for the handshake, where there is no other limit (HOOK-03).
	tlsTime = 10 * time.Second
)

// version is the Kubernetes version whose behaviour this is, for User-Agent.
const version = "1.36"

// Dial makes a connection, as net.Dialer.DialContext does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Target is what to ask.
type Target struct {
	Action *corev1.HTTPGetAction
	// Ports are those of the container, which the action's may name (PROBE-24).
	Ports []corev1.ContainerPort
	PodIP string // the host, unless the action has one
}

// Probe makes one attempt, for which it has until the deadline of ctx. output is
// the text of the event. An error means that the attempt could not be made, or
// that the answer broke off, and that the result does not count (PROBE-09).
func Probe(ctx context.Context, dial Dial, target Target) (result probes.Result, output string, err error) {
	req, err := target.request("probe")
	if err != nil {
		return probes.Unknown, "", err
	}
	client, cancel := newClient(&ctx, dial, req.URL.Scheme)
	defer cancel()
	res, err := client.Do(req.WithContext(ctx))
	if err != nil {
		text := err.Error()
		if strings.HasSuffix(text, context.DeadlineExceeded.Error()) {
			// net/http says so only when the deadline has passed by some time, which
			// in a synctest bubble it never has.
			text += " (Client.Timeout exceeded while awaiting headers)"
		}
		return probes.Failure, text, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBodyBytes))
	if err != nil {
		return probes.Failure, "", err
	}
	switch {
	case res.StatusCode < 200 || res.StatusCode >= 400:
		// The body stays out of it: it could hold what readers of events must not see.
		return probes.Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode), nil
	case res.StatusCode >= 300:
		return probes.Warning, "Probe terminated redirects, Response body: " + string(body), nil
	}
	return probes.Success, string(body), nil
}

// Hook makes the request of a lifecycle hook. Whatever is answered is a success
// (HOOK-07). A server that does not speak TLS is asked again without, and without
// the Authorization header; fallback is then the message of the event
// LifecycleHTTPFallback.
func Hook(ctx context.Context, dial Dial, target Target) (fallback string, err error) {
	req, err := target.request("lifecycle")
	if err != nil {
		return "", err
	}
	client, cancel := newClient(&ctx, dial, req.URL.Scheme)
	defer cancel()
	err = ask(client, req.WithContext(ctx))
	if err == nil || !isPlainHTTP(err) {
		return "", err
	}
	req = req.Clone(ctx)
	req.URL.Scheme = "http"
	req.Header.Del("Authorization")
	if ask(client, req) != nil {
		return "", err // the first one says what is wrong
	}
	return fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host), nil
}

// ask makes a request and looks only whether there is an answer. A body that is not
// too long is taken all the same, and waited for, as the kubelet does (TIME-20).
func ask(client *http.Client, req *http.Request) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	if res.ContentLength <= maxBodyBytes {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxBodyBytes))
	}
	return res.Body.Close()
}

// isPlainHTTP: the server has answered a TLS handshake in plain text.
func isPlainHTTP(err error) bool {
	var urlErr *url.Error
	return errors.As(err, &urlErr) && strings.Contains(urlErr.Err.Error(), "server gave HTTP response to HTTPS client")
}

// newClient returns a client for one request and its redirects. Nothing is shared
// with those of other pods: neither connections nor addresses. It takes the
// deadline out of ctx, because the client's own timeout is the one whose text the
// kubelet's events have.
func newClient(ctx *context.Context, dial Dial, scheme string) (*http.Client, context.CancelFunc) {
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // PROBE-17
		TLSHandshakeTimeout:    tlsTime,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ReadBufferSize:         2 << 10,
		WriteBufferSize:        2 << 10,
		ForceAttemptHTTP2:      scheme == "https",
	}
	client := &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	parent := *ctx
	deadline, ok := parent.Deadline()
	if !ok {
		return client, transport.CloseIdleConnections
	}
	// Zero would be no limit.
	client.Timeout = max(time.Until(deadline), time.Nanosecond)
	inner, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		if !errors.Is(parent.Err(), context.DeadlineExceeded) {
			cancel(context.Cause(parent))
		}
	})
	*ctx = inner
	return client, func() {
		stop()
		cancel(nil)
		transport.CloseIdleConnections()
	}
}

// request is the GET that the kubelet would send.
func (t Target) request(purpose string) (*http.Request, error) {
	scheme := strings.ToLower(string(t.Action.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	host := t.Action.Host
	if host == "" {
		host = t.PodIP
	}
	port, err := probes.Port(t.Action.Port, t.Ports)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(t.Action.Path)
	if err != nil {
		u = &url.URL{Path: t.Action.Path} // as it is, though it may be wrong
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range t.Action.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "kube-"+purpose+"/"+version)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}
