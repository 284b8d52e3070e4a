package wasip1

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"
)

// maxChunk is how much of a stream is in flight at a time.
const maxChunk = 64 << 10

// watchers are the calls that sleep until something happens to a file.
type watchers struct{ list []*waker }

func (w *watchers) add(k *waker) {
	if !slices.Contains(w.list, k) {
		w.list = append(w.list, k)
	}
}

func (w *watchers) remove(k *waker) {
	if i := slices.Index(w.list, k); i >= 0 {
		w.list = slices.Delete(w.list, i, i+1)
	}
}

func (w *watchers) wake() {
	for _, k := range w.list {
		k.Wake()
	}
}

// input is stdin: an io.Reader, which cannot be interrupted, behind a
// goroutine, which may be left behind. The goroutine starts when the guest first
// wants input, and reads only as much as was asked for: what a guest never
// reads stays in the reader.
type input struct {
	noFile
	r     io.Reader // nil: at its end from the start
	kind  uint8
	p     *Process
	self  *waker
	since time.Time

	mu      sync.Mutex
	started bool
	reading bool // the goroutine was asked and has not answered
	buf     []byte
	data    []byte // the part of buf not yet read by the guest
	err     error  // ends the stream after data
	asleep  watchers
	ask     chan struct{} // one per Read; closed by shut
}

func newInput(r io.Reader, kind uint8) *input {
	s := &input{r: r, kind: kind, self: newWaker(), ask: make(chan struct{}, 1), since: time.Now()}
	if r == nil {
		s.err = io.EOF
	}
	return s
}

func (s *input) filetype() uint8 { return s.kind }

func (s *input) stat() (filestat, Errno) { return streamStat(s.kind, 1, s.since), 0 }

func streamStat(kind uint8, ino uint64, since time.Time) filestat {
	t := since.UnixNano()
	return filestat{ino: ino, filetype: kind, nlink: 1, atim: t, mtim: t, ctime: t}
}

// want asks the goroutine for input. s.mu is held.
func (s *input) want() {
	if s.reading || s.err != nil || len(s.data) > 0 {
		return
	}
	if !s.started {
		if s.p != nil && !s.p.hold(stdinBytes+pumpBytes) {
			s.err = ErrnoNOMEM
			return
		}
		s.started = true
		s.buf = make([]byte, stdinBytes)
		go s.pump()
	}
	s.reading = true
	s.ask <- struct{}{} // has room: reading was false
}

func (s *input) pump() {
	for range s.ask {
		n, err := s.r.Read(s.buf)
		s.mu.Lock()
		s.data = s.buf[:max(n, 0)]
		s.err = err
		s.reading = false
		s.asleep.wake()
		s.mu.Unlock()
	}
}

func (s *input) read(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno) {
	if total(bufs) == 0 {
		return 0, 0
	}
	for {
		if n, ok, errno := s.take(bufs); ok {
			return n, errno
		}
		if nonblock {
			return 0, ErrnoAGAIN
		}
		s.watch(s.self, false)
		if errno := s.waitReady(ctx); errno != 0 {
			return 0, errno
		}
	}
}

func (s *input) waitReady(ctx context.Context) Errno {
	guest, parks := ctx.(parking)
	if !parks {
		defer s.unwatch(s.self)
	}
	var errno Errno
	for errno == 0 {
		s.self.arm()
		if ready, _, _ := s.poll(false); ready {
			s.self.disarm()
			break
		}
		// The call has had no effect yet. Who is put aside meanwhile stays among those
		// that are woken.
		if parks {
			errno = s.self.park(ctx, guest, s.p)
		} else {
			errno = s.self.wait(ctx, nil)
		}
	}
	if parks {
		s.unwatch(s.self)
	}
	return errno
}

// take copies what there is; ok is false if there is nothing yet.
func (s *input) take(bufs [][]byte) (n int, ok bool, errno Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bufs {
		m := copy(b, s.data)
		n += m
		s.data = s.data[m:]
	}
	switch {
	case n > 0:
		return n, true, 0
	case s.err == io.EOF:
		return 0, true, 0
	case s.err != nil:
		return 0, true, toErrno(s.err)
	}
	s.want()
	return 0, false, 0
}

func (s *input) poll(write bool) (ready bool, nbytes uint64, hangup bool) {
	if write {
		return true, 0, false // and the write says EBADF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.data) > 0 {
		return true, uint64(len(s.data)), s.err == io.EOF
	}
	if s.err != nil {
		return true, 0, s.err == io.EOF
	}
	s.want()
	return false, 0, false
}

func (s *input) watch(w *waker, write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep.add(w)
}

func (s *input) unwatch(w *waker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep.remove(w)
}

// shut ends the goroutine, at once or when its Read returns.
func (s *input) shut() {
	close(s.ask)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = watchers{} // a guest that was killed in its sleep, perhaps
}

// patience is how long a guest keeps its place before it takes a write to be one
// that blocks. It sleeps meanwhile: who only yields comes after everybody else
// that Go has to run, a thousand goroutines when pods start in numbers.
const patience = 200 * time.Microsecond

// output is stdout or stderr: an io.Writer behind a goroutine, since a Write
// may block for as long as it likes and a kill must not wait for it. The guest
// does wait, so its bytes are with the writer when the call returns; they are
// copied first, so that a Write left behind does not read freed guest memory.
type output struct {
	noFile
	w      io.Writer // nil: discards
	prompt bool      // w does not block: no goroutine is needed
	kind   uint8
	ino    uint64
	since  time.Time
	payer  *Process // of the buffer; nil: nobody

	started bool
	buf     []byte
	work    chan int // how much of buf to write
	done    chan error
	timer   *time.Timer // of flush
	stuck   bool        // a killed call left a Write behind
}

func newOutput(w io.Writer, prompt bool, kind uint8, ino uint64) *output {
	return &output{w: w, prompt: prompt, kind: kind, ino: ino, since: time.Now(), work: make(chan int), done: make(chan error, 1)}
}

func (s *output) filetype() uint8         { return s.kind }
func (s *output) stat() (filestat, Errno) { return streamStat(s.kind, s.ino, s.since), 0 }

func (s *output) pump() {
	for n := range s.work {
		m, err := s.w.Write(s.buf[:n])
		if err == nil && m < n {
			err = io.ErrShortWrite
		}
		s.done <- err
	}
}

func (s *output) write(ctx context.Context, bufs [][]byte, _ bool) (n int, errno Errno) {
	if s.w == nil {
		return total(bufs), 0
	}
	if s.prompt {
		return s.writeNow(ctx, bufs)
	}
	if s.stuck {
		return 0, ErrnoIO
	}
	if !s.started {
		if s.payer != nil && !s.payer.hold(pumpBytes) {
			return 0, ErrnoNOMEM
		}
		s.started = true
		go s.pump()
	}
	if need := min(total(bufs), maxChunk); need > cap(s.buf) {
		if s.payer != nil && !s.payer.hold(int64(need-cap(s.buf))) {
			return 0, ErrnoNOMEM
		}
		s.buf = make([]byte, 0, need)
	}
	chunk := s.buf[:0]
	for _, b := range bufs {
		for len(b) > 0 {
			if len(chunk) == maxChunk {
				if errno := s.flush(ctx, chunk); errno != 0 {
					return n, errno
				}
				n += len(chunk)
				chunk = chunk[:0]
			}
			m := min(len(b), maxChunk-len(chunk))
			chunk = append(chunk, b[:m]...)
			b = b[m:]
		}
	}
	s.buf = chunk
	if len(chunk) == 0 {
		return n, 0
	}
	if errno := s.flush(ctx, chunk); errno != 0 {
		return n, errno
	}
	return n + len(chunk), 0
}

// writeNow writes on the guest's goroutine.
func (s *output) writeNow(ctx context.Context, bufs [][]byte) (n int, errno Errno) {
	for _, b := range bufs {
		for len(b) > 0 {
			if n > 0 && ctx.Err() != nil {
				panic(killed)
			}
			m, err := s.w.Write(b[:min(len(b), maxChunk)])
			n, b = n+max(m, 0), b[max(m, 0):]
			switch {
			case err != nil:
				return n, toErrno(err)
			case m <= 0:
				return n, ErrnoIO
			}
		}
	}
	return n, 0
}

func (s *output) flush(ctx context.Context, chunk []byte) Errno {
	s.buf = chunk
	s.work <- len(chunk)
	// Most writers are quick. Who gave its place up for each line would wait for
	// the slices of all others.
	if s.timer == nil {
		s.timer = time.NewTimer(patience)
	} else {
		s.timer.Reset(patience)
	}
	defer s.timer.Stop()
	select {
	case err := <-s.done:
		return toErrno(err)
	case <-s.timer.C:
		leave(ctx)
		select {
		case err := <-s.done:
			enter(ctx)
			return toErrno(err)
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	s.stuck = true
	panic(killed)
}

func (s *output) shut() { close(s.work) }
