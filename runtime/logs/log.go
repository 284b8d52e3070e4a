// Package logs writes and reads container logs in the CRI log format:
//
//	<RFC 3339 time> <stdout|stderr> <P|F> <content>
//
// one record a line, F for a full line and P for a piece of one. A Log splits
// what a guest writes into records, rotates the file when it has grown, and
// never lets a full disk stop the guest. Read serves it back the way `kubectl
// logs` expects. The rules are LOG-01 to LOG-11.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Limits of the format (TIME-17, TIME-18).
const (
	// MaxLineBytes is the longest content of one record.
	MaxLineBytes = 16 << 10
	// DefaultMaxBytes is the size at which a file is rotated.
	DefaultMaxBytes = 10 << 20
	// DefaultMaxFiles is how many files of one log there may be, the current
	// one included.
	DefaultMaxFiles = 5
)

// batchBytes is how much formatted text is gathered before it goes to the file.
const batchBytes = 64 << 10

// The streams of a Log.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Path is where the log of one container attempt lies below root (LOG-01).
func Path(root, namespace, pod, uid, container string, attempt int) string {
	return filepath.Join(PodDir(root, namespace, pod, uid), container, strconv.Itoa(attempt)+".log")
}

// PodDir is the directory of all logs of one pod.
func PodDir(root, namespace, pod, uid string) string {
	return filepath.Join(root, namespace+"_"+pod+"_"+uid)
}

// Line is one record.
type Line struct {
	At      time.Time
	Stream  string // Stdout or Stderr
	Partial bool   // a piece of a line; the next record of the stream goes on
	Text    []byte // without newline
}

// Options of a Log; the zero value means the defaults.
type Options struct {
	MaxBytes int64 // of one file, before rotation
	MaxFiles int   // current one included

	// Tee is called with each record as it is written, pieces included, in file
	// order and one at a time; Text is valid during the call only. A Tee that
	// blocks holds up the guest, and Close: that is back-pressure, and the
	// caller's choice. It must not use the Log.
	Tee func(Line)
	// OnError is told when the file first cannot be written, and again after
	// every time it could be written in between. It must not use the Log.
	OnError func(error)
	// Now is time.Now unless set.
	Now func() time.Time
}

// Log is the log of one container attempt. It is safe for concurrent use.
type Log struct {
	path    string
	options Options

	mu   sync.Mutex
	file *os.File // nil: could not be reopened after a rotation
	size int64
	// rotateAt is the size at which the file is to be rotated: MaxBytes, and
	// later after an attempt that failed.
	rotateAt int64
	streams  map[string]*stream
	batch    []byte
	failed   bool  // the last write failed, and was reported
	err      error // the first failure
	closed   bool
	changed  chan struct{} // closed at the next change; nil if nobody waits

	compressing bool
	background  sync.WaitGroup
}

// Create opens the log at path, making its directories, and goes on where an
// earlier Log of the same path ended. The caller closes it.
func Create(path string, options Options) (*Log, error) {
	if options.MaxBytes <= 0 {
		options.MaxBytes = DefaultMaxBytes
	}
	if options.MaxFiles <= 0 {
		options.MaxFiles = DefaultMaxFiles
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	removeUnfinished(path)
	l := &Log{path: path, options: options, streams: map[string]*stream{}, rotateAt: options.MaxBytes}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the current file for appending. A record that was cut short when
// the machine went down is ended, so that the next one stays readable.
func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			if _, err = f.Write([]byte{'\n'}); err == nil {
				size++
			}
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open log %s: %w", l.path, err), f.Close())
	}
	l.file, l.size = f, size
	return nil
}

// Path is the path of the current file.
func (l *Log) Path() string { return l.path }

// Stream returns the writer of one stream, Stdout or Stderr. All writers of one
// name are the same stream: what they write is joined into lines together. A
// write fails only after Close; that the disk is full is no business of the
// guest (see Options.OnError). Closing a stream writes what is left of its last
// line as a partial record.
func (l *Log) Stream(name string) io.WriteCloser {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[name]
	if s == nil {
		s = &stream{log: l, name: name}
		l.streams[name] = s
	}
	return s
}

// Changed returns a channel that is closed when the log has grown, was rotated
// or closed. For ReadOptions.Changed.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
		if l.closed {
			close(l.changed)
		}
	}
	return l.changed
}

func (l *Log) notify() {
	if l.changed != nil && !l.closed {
		close(l.changed)
		l.changed = nil
	}
}

// Close writes unfinished lines as partial records, closes the file and waits
// for compression to end. It returns the first error that was met in the life
// of the log. Calling it again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	for _, name := range []string{Stdout, Stderr} {
		if s := l.streams[name]; s != nil {
			s.flush()
		}
	}
	for _, s := range l.streams { // streams of other names, if any
		s.flush()
	}
	l.writeBatch()
	l.notify()
	l.closed = true
	if l.changed == nil {
		l.changed = make(chan struct{})
		close(l.changed)
	}
	if l.file != nil {
		if err := l.file.Close(); err != nil && l.err == nil {
			l.err = fmt.Errorf("close log: %w", err)
		}
		l.file = nil
	}
	err := l.err
	l.mu.Unlock()
	l.background.Wait()
	return err
}

// stream joins what is written into lines. Its state is guarded by log.mu.
type stream struct {
	log     *Log
	name    string
	pending []byte // at most MaxLineBytes+1
	closed  bool
}

func (s *stream) Write(p []byte) (int, error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || s.closed {
		return 0, fmt.Errorf("write to log: %w", os.ErrClosed)
	}
	total := len(p)
	now := l.options.Now()
	for len(p) > 0 {
		if len(s.pending) > MaxLineBytes && p[0] != '\n' {
			// The carriage return after a full piece was not the line's end.
			s.splitLine(now)
		}
		// Only as much at a time as one record may hold, so that a guest that
		// never ends its line costs no memory.
		take := min(len(p), max(1, MaxLineBytes+1-len(s.pending)))
		chunk := p[:take]
		if i := bytes.IndexByte(chunk, '\n'); i >= 0 {
			s.pending = append(s.pending, chunk[:i]...)
			p = p[i+1:]
			s.endLine(now)
			continue
		}
		s.pending = append(s.pending, chunk...)
		p = p[take:]
		// A carriage return may turn out to belong to the line's end, and then
		// the line is no longer than a record may be.
		if len(s.pending) > MaxLineBytes && s.pending[MaxLineBytes] != '\r' {
			s.splitLine(now)
		}
	}
	l.writeBatch()
	l.notify()
	return total, nil
}

// splitLine writes the first MaxLineBytes of the pending line as a piece.
func (s *stream) splitLine(now time.Time) {
	s.log.record(Line{At: now, Stream: s.name, Partial: true, Text: s.pending[:MaxLineBytes]})
	s.pending = append(s.pending[:0], s.pending[MaxLineBytes:]...)
}

// endLine writes the pending line, which is complete.
func (s *stream) endLine(now time.Time) {
	s.pending = bytes.TrimSuffix(s.pending, []byte{'\r'})
	for len(s.pending) > MaxLineBytes {
		s.splitLine(now)
	}
	s.log.record(Line{At: now, Stream: s.name, Text: s.pending})
	s.pending = s.pending[:0]
}

// flush writes what is left of a line that did not end.
func (s *stream) flush() {
	s.closed = true
	now := s.log.options.Now()
	for len(s.pending) > MaxLineBytes {
		s.splitLine(now)
	}
	if len(s.pending) > 0 {
		s.log.record(Line{At: now, Stream: s.name, Partial: true, Text: s.pending})
	}
	s.pending = nil
}

func (s *stream) Close() error {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || s.closed {
		return nil
	}
	s.flush()
	l.writeBatch()
	l.notify()
	return nil
}

// record formats one record into the batch and shows it to the tee.
func (l *Log) record(line Line) {
	b := line.At.AppendFormat(l.batch, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, line.Stream...)
	if line.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, line.Text...)
	l.batch = append(b, '\n')
	if len(l.batch) >= batchBytes {
		l.writeBatch()
	}
	if l.options.Tee != nil {
		l.options.Tee(line)
	}
}

// writeBatch writes the gathered records to the file, all of them or none: what
// a full disk cut short is taken back, so that no reader sees half a record.
func (l *Log) writeBatch() {
	if len(l.batch) == 0 {
		return
	}
	batch := l.batch
	l.batch = l.batch[:0]
	if l.file == nil {
		if err := l.open(); err != nil {
			l.fail(err)
			return
		}
	}
	n, err := l.file.Write(batch)
	if err != nil {
		if n > 0 {
			if terr := l.file.Truncate(l.size); terr != nil {
				l.size += int64(n)
			}
		}
		l.fail(fmt.Errorf("write log: %w", err))
		return
	}
	l.failed = false
	l.size += int64(n)
	if l.size >= l.rotateAt {
		l.rotateAt = l.options.MaxBytes
		if err := l.rotate(); err != nil {
			l.fail(fmt.Errorf("rotate log: %w", err))
			l.rotateAt = l.size + l.options.MaxBytes
			// It is tried again, until the file is as large as all of them may be
			// together. Then rather lose what it holds than fill the disk.
			if l.size >= int64(l.options.MaxFiles)*l.options.MaxBytes && l.file.Truncate(0) == nil {
				l.size, l.rotateAt = 0, l.options.MaxBytes
			}
		}
	}
}

// fail reports the first of a row of failures.
func (l *Log) fail(err error) {
	if l.err == nil {
		l.err = err
	}
	if !l.failed && l.options.OnError != nil {
		l.options.OnError(err)
	}
	l.failed = true
}
