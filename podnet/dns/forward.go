package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// ErrRefused is what Config.Forward returns for a client that may not ask for
// names outside.
var ErrRefused = errors.New("the client may not ask for names outside")

const (
	maxCached   = 2048
	maxCacheTTL = 30 * time.Second
	tryTimeout  = 2 * time.Second
)

// ForwarderConfig is what a Forwarder is made of.
type ForwarderConfig struct {
	// Servers are asked in turn until one answers.
	Servers []netip.AddrPort
	// Allow says whether a client may ask; nil: everybody.
	Allow func(client netip.Addr) bool
}

// Forwarder asks real resolvers and keeps answers for a short time. It is safe
// for concurrent use.
type Forwarder struct {
	cfg ForwarderConfig

	mu    sync.Mutex
	cache map[cacheKey]cached
}

type cacheKey struct {
	name  string
	qtype uint16
}

type cached struct {
	msg     *dns.Msg
	expires time.Time
}

// NewForwarder returns a Forwarder, whose Forward is for Config.Forward.
func NewForwarder(cfg ForwarderConfig) *Forwarder {
	return &Forwarder{cfg: cfg, cache: make(map[cacheKey]cached)}
}

// Forward asks the servers. Nothing of the client's message goes out but name
// and type. The answer belongs to the caller.
func (f *Forwarder) Forward(ctx context.Context, client netip.Addr, question *dns.Msg) (*dns.Msg, error) {
	if f.cfg.Allow != nil && !f.cfg.Allow(client) {
		return nil, ErrRefused
	}
	q := question.Question[0]
	key := cacheKey{strings.ToLower(q.Name), q.Qtype}
	if m := f.lookup(key, time.Now()); m != nil {
		return m, nil
	}
	ask := new(dns.Msg)
	ask.SetQuestion(q.Name, q.Qtype)
	ask.SetEdns0(1232, false) // fits every path
	lastErr := errors.New("no resolver to ask")
	for _, server := range f.cfg.Servers {
		m, err := exchange(ctx, ask, server)
		if err == nil && m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused {
			f.store(key, m, time.Now())
			return m.Copy(), nil
		}
		if lastErr = err; err == nil {
			lastErr = errors.New("resolver: " + dns.RcodeToString[m.Rcode])
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, lastErr
}

// exchange asks by UDP, and by TCP if the answer does not fit.
func exchange(ctx context.Context, ask *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: tryTimeout}
		m, _, err := c.ExchangeContext(ctx, ask, server.String())
		if err != nil {
			return nil, err
		}
		if len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, ask.Question[0].Name) || m.Question[0].Qtype != ask.Question[0].Qtype {
			return nil, errors.New("the answer is to another question")
		}
		if !m.Truncated || network == "tcp" {
			return m, nil
		}
	}
	return nil, nil // not reached
}

func (f *Forwarder) lookup(key cacheKey, now time.Time) *dns.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.cache[key]
	if !ok {
		return nil
	}
	if !now.Before(c.expires) {
		delete(f.cache, key)
		return nil
	}
	return c.msg.Copy()
}

func (f *Forwarder) store(key cacheKey, m *dns.Msg, now time.Time) {
	ttl := maxCacheTTL
	for _, list := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range list {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	if ttl <= 0 || len(m.Answer)+len(m.Ns) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.cache { // any: what is asked for often comes back
		if len(f.cache) < maxCached {
			break
		}
		delete(f.cache, k)
	}
	f.cache[key] = cached{m.Copy(), now.Add(ttl)}
}
