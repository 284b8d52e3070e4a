package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Registries is how the service reaches registries. The zero value speaks
// https, and http to the loopback addresses, with the credentials of this
// user's Docker or Podman configuration.
type Registries struct {
	// Offline never asks a registry for anything.
	Offline bool
	// Insecure lists registries, as host or host:port, that are spoken to by
	// plain http or under any certificate. Whoever sits between can see
	// credentials; content is verified by digest only where a reference has one.
	Insecure []string
	// Mirrors are asked before the registry that is the key, in order: each a
	// host[:port] with or without a path prefix. What a mirror does not have,
	// or cannot give, is asked of the next.
	Mirrors map[string][]string
	// NoHostCredentials leaves the configuration of Docker and Podman alone:
	// for nodes whose pods are written by strangers.
	NoHostCredentials bool
	// Stall is how long a registry may send nothing; default 30 s.
	Stall time.Duration
	// Retries is how often a request that failed for reasons that may pass (a
	// connection that broke, 429, 5xx) is repeated; default 5, negative none.
	Retries int
	// MaxDownloads is how many blobs are downloaded at a time; default 4.
	MaxDownloads int
	// MaxParallelPulls is how many images pods pull at a time; default 1, the
	// others wait in their order. PullQPS is how many pulls of pods may begin in a
	// second; default 5, negative without limit, and PullBurst how many at once
	// after a pause, default 10. These are a kubelet's limits (TIME-24).
	MaxParallelPulls int
	PullQPS          float64
	PullBurst        int
}

const (
	defaultStall        = 30 * time.Second
	defaultRetries      = 5
	defaultMaxDownloads = 4
	maxRetryDelay       = 20 * time.Second
	firstRetryDelay     = 200 * time.Millisecond
)

func (r *Registries) setDefaults() {
	if r.Stall <= 0 {
		r.Stall = defaultStall
	}
	if r.Retries == 0 {
		r.Retries = defaultRetries
	}
	if r.MaxParallelPulls <= 0 {
		r.MaxParallelPulls = 1
	}
	if r.PullQPS == 0 {
		r.PullQPS = defaultPullQPS
	}
	if r.PullBurst <= 0 {
		r.PullBurst = defaultPullBurst
	}
	if r.MaxDownloads <= 0 {
		r.MaxDownloads = defaultMaxDownloads
	}
}

// ParseMirrors reads mirrors as flags and configuration files have them:
// REGISTRY=HOST[/PREFIX].
func ParseMirrors(list []string) (map[string][]string, error) {
	mirrors := map[string][]string{}
	for _, m := range list {
		registry, mirror, ok := strings.Cut(m, "=")
		if !ok || registry == "" || mirror == "" || strings.Contains(registry, "/") || strings.Contains(mirror, "://") {
			return nil, fmt.Errorf("mirror %q: want REGISTRY=HOST[:PORT][/PREFIX], as in docker.io=127.0.0.1:5000", m)
		}
		if _, err := ggcr.NewRepository(mirror + "/x"); err != nil {
			return nil, fmt.Errorf("mirror %q: %w", m, err)
		}
		mirrors[registry] = append(mirrors[registry], mirror)
	}
	return mirrors, nil
}

// registryOf splits a normalised repository into registry and path.
func registryOf(repository string) (registry, path string) {
	registry, path, _ = strings.Cut(repository, "/")
	return registry, path
}

// sources returns where a repository can be pulled from: mirrors, then the
// registry itself.
func (r *Registries) sources(repository string) ([]ggcr.Repository, error) {
	registry, path := registryOf(repository)
	var list []ggcr.Repository
	for _, full := range append(prefixed(r.Mirrors[registry], path), repository) {
		repo, err := r.repository(full)
		if err != nil {
			return nil, err
		}
		list = append(list, repo)
	}
	return list, nil
}

func prefixed(mirrors []string, path string) []string {
	var list []string
	for _, m := range mirrors {
		list = append(list, strings.TrimSuffix(m, "/")+"/"+path)
	}
	return list
}

func (r *Registries) repository(full string) (ggcr.Repository, error) {
	host, _ := registryOf(full)
	var opts []ggcr.Option
	if r.insecure(host) {
		opts = append(opts, ggcr.Insecure)
	}
	return ggcr.NewRepository(full, opts...)
}

func (r *Registries) insecure(host string) bool {
	for _, i := range r.Insecure {
		if i == host || i == hostOnly(host) {
			return true
		}
	}
	return false
}

func hostOnly(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

func isLoopback(hostport string) bool {
	host := hostOnly(hostport)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// session is an authenticated connection to one repository of one registry.
type session struct {
	repo   ggcr.Repository
	client *http.Client
	trip   http.RoundTripper
	stall  time.Duration
	limit  int // of retries
}

// dial authenticates: anonymously, by password, or by a token, as the registry
// asks. What is wrong with the credentials shows here or at the first request.
func (s *Service) dial(ctx context.Context, repo ggcr.Repository, auth authn.Authenticator, scope string) (*session, error) {
	r := &s.cfg.Registries
	base := &retrying{inner: s.transport(repo), retries: r.Retries, registries: r}
	trip, err := transport.NewWithContext(ctx, repo.Registry, auth, base, []string{repo.Scope(scope)})
	if err != nil {
		return nil, err
	}
	return &session{repo: repo, trip: trip, stall: r.Stall, limit: r.Retries, client: &http.Client{Transport: trip}}, nil
}

// transport returns the connections to a registry, which are kept for the next
// pull.
func (s *Service) transport(repo ggcr.Repository) http.RoundTripper {
	s.transportsOnce.Do(func() {
		verified := &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          32,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       30 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: s.cfg.Registries.Stall,
			// Half the default's system calls for a large blob.
			ReadBufferSize:         64 << 10,
			MaxResponseHeaderBytes: 1 << 20,
			DisableCompression:     true, // a blob is what its digest says
		}
		unverified := verified.Clone()
		unverified.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // by configuration of this registry
		s.verified, s.unverified = verified, unverified
	})
	if s.cfg.Registries.insecure(repo.RegistryStr()) {
		return s.unverified
	}
	return s.verified
}

// retrying repeats requests that failed for reasons that may pass, and refuses
// plain http to whom it was not allowed for: go-containerregistry would fall
// back to it for every private address, and follow redirects to it.
type retrying struct {
	inner      http.RoundTripper
	retries    int
	registries *Registries
}

func (t *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !isLoopback(req.URL.Host) && !t.registries.insecure(req.URL.Host) {
		return nil, &insecureError{host: req.URL.Host}
	}
	for attempt := 0; ; attempt++ {
		resp, err := t.inner.RoundTrip(req)
		wait, again := retryAfter(resp, err, attempt)
		if !again || attempt >= t.retries || req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
			return resp, err
		}
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
			resp.Body.Close()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-req.Context().Done():
			timer.Stop()
			return nil, context.Cause(req.Context())
		}
		req = req.Clone(req.Context())
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

type insecureError struct{ host string }

func (e *insecureError) Error() string {
	return fmt.Sprintf("registry %s: it would have to be spoken to without encryption; if the network to it can be trusted, add it to --insecure-registries", e.host)
}

// retryAfter says whether to repeat a request, and when: what the registry
// asks for, but not for ever, else later each time and never all at once.
func retryAfter(resp *http.Response, err error, attempt int) (time.Duration, bool) {
	delay := min(firstRetryDelay<<attempt, maxRetryDelay)
	delay = delay/2 + rand.N(delay/2+1)
	if err != nil {
		return delay, passes(err)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0, false
	}
	after := resp.Header.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil && s >= 0 {
		delay = max(delay, min(time.Duration(min(s, 3600))*time.Second, maxRetryDelay))
	} else if at, err := http.ParseTime(after); err == nil {
		delay = max(delay, min(time.Until(at), maxRetryDelay))
	}
	return delay, true
}

// passes tells errors of a connection that broke from those of one that cannot
// be made.
func passes(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// explain words an error of a registry for who wrote the reference.
func explain(ref string, repo ggcr.Repository, err error) string {
	from := repo.RegistryStr()
	var te *transport.Error
	var ue *url.Error
	var ie *insecureError
	switch {
	case errors.As(err, &ie):
		return ie.Error()
	case errors.As(err, &te):
		switch te.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Sprintf("registry %s denies access to %q, or there is no such repository (%s): log in with 'docker login' or 'skopeo login', or give the pod imagePullSecrets", from, ref, brief(te))
		case http.StatusNotFound:
			return fmt.Sprintf("registry %s has no image %q (%s): check the name and the tag", from, ref, brief(te))
		case http.StatusTooManyRequests:
			return fmt.Sprintf("registry %s: too many requests (%s): wait, log in, or configure a mirror with --registry-mirrors", from, brief(te))
		}
		return fmt.Sprintf("registry %s: %s", from, brief(te))
	case errors.As(err, &ue):
		return fmt.Sprintf("registry %s cannot be reached: %v", from, ue.Err)
	}
	return fmt.Sprintf("registry %s: %s", from, clip(err.Error()))
}

// brief is the code and message of a registry's error, bounded: the text is
// the registry's.
func brief(te *transport.Error) string {
	var parts []string
	for _, d := range te.Errors {
		parts = append(parts, strings.Trim(string(d.Code)+": "+d.Message, ": "))
	}
	if len(parts) == 0 {
		parts = append(parts, strings.ToLower(http.StatusText(te.StatusCode)))
	}
	return clip(strings.ToValidUTF8(strconv.Itoa(te.StatusCode)+" "+strings.Join(parts, "; "), "\ufffd"))
}
