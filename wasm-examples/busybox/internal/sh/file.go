package sh

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/proc"
)

// A file is an open file description: what descriptors of several shell processes refer to. It closes with its last
// reference, which is what makes a reader see the end of a pipe exactly when the last writer is gone.
type file struct {
	r     io.Reader
	w     io.Writer
	close func()
	refs  atomic.Int32
}

func newFile(r io.Reader, w io.Writer, close func()) *file {
	f := &file{r: r, w: w, close: close}
	f.refs.Store(1)
	return f
}

func (f *file) retain() *file {
	f.refs.Add(1)
	return f
}

func (f *file) release() {
	if f.refs.Add(-1) == 0 && f.close != nil {
		f.close()
	}
}

// pipeCapacity is what Linux gives a pipe, so that scripts meet the same back-pressure.
const pipeCapacity = 64 << 10

// pipe stands in for pipe(2), which WASI preview 1 lacks.
type pipe struct {
	mu            sync.Mutex
	changed       sync.Cond
	buf           []byte
	readersClosed bool
	writersClosed bool
}

func newPipe() (r, w *file) {
	p := &pipe{}
	p.changed.L = &p.mu
	r = newFile(p, nil, func() { p.set(&p.readersClosed) })
	w = newFile(nil, p, func() { p.set(&p.writersClosed) })
	return r, w
}

func (p *pipe) set(flag *bool) {
	p.mu.Lock()
	*flag = true
	p.mu.Unlock()
	p.changed.Broadcast()
}

func (p *pipe) Read(b []byte) (int, error)  { return p.readContext(context.Background(), b) }
func (p *pipe) Write(b []byte) (int, error) { return p.writeContext(context.Background(), b) }

// wait blocks until the pipe changes or ctx ends. The caller holds the lock.
func (p *pipe) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock() // so that the broadcast cannot fall between the check above and Wait
		defer p.mu.Unlock()
		p.changed.Broadcast()
	})
	p.changed.Wait()
	stop()
	return nil
}

func (p *pipe) readContext(ctx context.Context, b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) == 0 {
		if p.writersClosed {
			return 0, io.EOF
		}
		if err := p.wait(ctx); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.buf)
	if p.buf = p.buf[n:]; len(p.buf) == 0 {
		p.buf = nil
	}
	p.changed.Broadcast()
	return n, nil
}

func (p *pipe) writeContext(ctx context.Context, b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := 0; ; {
		if p.readersClosed {
			return n, proc.ErrBrokenPipe
		}
		if k := min(pipeCapacity-len(p.buf), len(b)-n); k > 0 {
			p.buf = append(p.buf, b[n:n+k]...)
			n += k
			p.changed.Broadcast()
		}
		if n == len(b) {
			return n, nil
		}
		if err := p.wait(ctx); err != nil {
			return n, err
		}
	}
}

// stream is a file as one shell process uses it: blocked reads and writes end when that process is killed.
type stream struct {
	ctx context.Context
	f   *file
}

func (s stream) Read(b []byte) (int, error) {
	if s.f == nil || s.f.r == nil {
		return 0, syscall.EBADF
	}
	if p, ok := s.f.r.(*pipe); ok {
		return p.readContext(s.ctx, b)
	}
	return s.f.r.Read(b)
}

func (s stream) Write(b []byte) (int, error) {
	if s.f == nil || s.f.w == nil {
		return 0, syscall.EBADF
	}
	if p, ok := s.f.w.(*pipe); ok {
		return p.writeContext(s.ctx, b)
	}
	return s.f.w.Write(b)
}

// collector gathers the output of a command substitution until its last writer is gone.
type collector struct {
	mu   sync.Mutex
	buf  []byte
	done chan struct{}
}

func newCollector() (*collector, *file) {
	c := &collector{done: make(chan struct{})}
	return c, newFile(nil, c, func() { close(c.done) })
}

func (c *collector) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, b...)
	return len(b), nil
}
