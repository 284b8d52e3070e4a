package runtime

import (
	"context"
	"errors"
	"io"
	"time"
)

// streamIdle is after what time without any data the streams of an exec, an attach or
// a port-forward are ended (TIME-23).
const streamIdle = 4 * time.Hour

// ErrIdle is why they were.
var ErrIdle = errors.New("streams were idle for 4 hours")

// idleTimer ends a context when nothing has moved on some streams for streamIdle.
type idleTimer struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// withIdle returns a context that ends with ErrIdle, unless data is told of; the caller
// calls stop.
func withIdle(ctx context.Context) (context.Context, *idleTimer) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &idleTimer{timer: time.AfterFunc(streamIdle, func() { cancel(ErrIdle) }), cancel: cancel}
}

func (t *idleTimer) stop() {
	t.timer.Stop()
	t.cancel(nil)
}

// writer tells of what is written to w; nil stays nil.
func (t *idleTimer) writer(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return idleWriter{w, t}
}

// reader tells of what is read from r; nil stays nil.
func (t *idleTimer) reader(r io.Reader) io.Reader {
	if r == nil {
		return nil
	}
	return idleReader{r, t}
}

type idleWriter struct {
	io.Writer
	timer *idleTimer
}

func (w idleWriter) Write(p []byte) (int, error) {
	w.timer.timer.Reset(streamIdle)
	return w.Writer.Write(p)
}

type idleReader struct {
	io.Reader
	timer *idleTimer
}

func (r idleReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.timer.timer.Reset(streamIdle)
	}
	return n, err
}
