package inproc

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// maxAttached is how much output waits for one attached client. What a slower
// one does not get in time is lost to it.
const maxAttached = 1 << 20

// streams are the ends of a container's streams that Attach joins.
type streams struct {
	stdin, once bool

	chunks chan []byte // to the guest's stdin, from whoever is attached
	noMore chan struct{}
	closed sync.Once // of noMore
	rest   []byte    // of a chunk; only Read uses it

	watched atomic.Bool // there are clients
	mu      sync.Mutex
	ended   bool
	clients map[*client]struct{}
}

func newStreams(c container.Config) *streams {
	return &streams{
		stdin: c.Stdin, once: c.StdinOnce,
		chunks: make(chan []byte), noMore: make(chan struct{}),
		clients: make(map[*client]struct{}),
	}
}

// input is the container's stdin: given is what it is connected to otherwise.
func (s *streams) input(given io.Reader) io.Reader {
	if given != nil || !s.stdin {
		return given
	}
	return s
}

// Read implements io.Reader for the guest: it waits for somebody to attach.
func (s *streams) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		select {
		case s.rest = <-s.chunks:
		case <-s.noMore:
			return 0, io.EOF
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *streams) endInput() { s.closed.Do(func() { close(s.noMore) }) }

// close tells everybody that the container has ended.
func (s *streams) close() {
	s.endInput()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for c := range s.clients {
		c.end()
	}
}

// tee has whoever is attached see what is written to w.
func (s *streams) tee(w io.Writer, stderr bool) io.Writer { return &attachedWriter{s, w, stderr} }

type attachedWriter struct {
	s      *streams
	w      io.Writer
	stderr bool
}

func (w *attachedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if w.s.watched.Load() {
		w.s.mu.Lock()
		for c := range w.s.clients {
			c.offer(p[:max(n, 0)], w.stderr)
		}
		w.s.mu.Unlock()
	}
	return n, err
}

// client is one that is attached: what waits for it, in the order of the writes.
type client struct {
	mu     sync.Mutex
	parts  []part
	bytes  int
	ended  bool
	notify chan struct{} // one slot
}

type part struct {
	stderr bool
	b      []byte
}

func (c *client) offer(b []byte, stderr bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b) == 0 || c.bytes+len(b) > maxAttached {
		return
	}
	c.bytes += len(b)
	c.parts = append(c.parts, part{stderr, append([]byte(nil), b...)})
	c.wake()
}

func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.wake()
}

func (c *client) wake() {
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

func (c *client) take() (parts []part, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts, c.parts, c.bytes = c.parts, nil, 0
	return parts, c.ended
}

func (s *streams) attach() (*client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, false
	}
	c := &client{notify: make(chan struct{}, 1)}
	s.clients[c] = struct{}{}
	s.watched.Store(true)
	return c, true
}

func (s *streams) detach(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	s.watched.Store(len(s.clients) > 0)
}

// Attach implements sandbox.Container.
func (g *guest) Attach(ctx context.Context, config sandbox.AttachConfig) error {
	s := g.streams
	if g.live() == nil {
		return sandbox.ErrNotRunning
	}
	c, ok := s.attach()
	if !ok {
		return sandbox.ErrNotRunning
	}
	defer s.detach(c)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if config.Stdin != nil && s.stdin {
		go s.feed(ctx, config.Stdin)
	}
	go drain(ctx, config.Resize)
	written := make(chan error, 1)
	go func() { written <- c.deliver(ctx, config.Stdout, config.Stderr) }()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// feed copies a client's input to the guest, until either has ended.
func (s *streams) feed(ctx context.Context, r io.Reader) {
	if s.once {
		defer s.endInput()
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			select {
			case s.chunks <- append([]byte(nil), buf[:n]...):
			case <-s.noMore:
				return
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func drain(ctx context.Context, sizes <-chan sandbox.TerminalSize) {
	for sizes != nil {
		select {
		case _, ok := <-sizes:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// deliver writes what is offered until the container has ended.
func (c *client) deliver(ctx context.Context, stdout, stderr io.Writer) error {
	for {
		parts, ended := c.take()
		for _, p := range parts {
			w := stdout
			if p.stderr {
				w = stderr
			}
			if w == nil {
				continue
			}
			if _, err := w.Write(p.b); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if len(parts) > 0 {
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-c.notify:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
