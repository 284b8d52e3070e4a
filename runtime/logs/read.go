package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxRecordBytes bounds one line of a file. What we write is far below; a
// longer line was written by something else, or is damage, and is skipped.
const maxRecordBytes = 256 << 10

// pollInterval is how often a followed file is looked at that nobody notifies
// about.
const pollInterval = 100 * time.Millisecond

const timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"

// ReadOptions choose what Read shows (LOG-08, LOG-09).
type ReadOptions struct {
	// Tail shows only the last so many records; nil shows all, 0 nothing.
	Tail *int64
	// Since leaves out what is older.
	Since time.Time
	// LimitBytes ends the output after so many bytes; nil is unlimited.
	LimitBytes *int64
	// Timestamps puts the time of the record before each line.
	Timestamps bool

	// Follow goes on until Done is closed and everything has been read.
	Follow bool
	// Done is closed when the instance has ended and its log is complete. nil
	// never is: the context ends the reading.
	Done <-chan struct{}
	// Changed says when to look again (Log.Changed). nil polls.
	Changed func() <-chan struct{}
}

// Read writes the content of the log at path to w: both streams in the order of
// the file, the pieces of a line put together (LOG-03, LOG-05). Only the
// current file is read, as long as it was at the beginning; with Follow, what is
// added too, and the files that take its place. A reader that falls behind by
// more than one rotation misses what lies between, as it does upstream. Lines
// that are not records are skipped; records in Docker's JSON format are
// understood.
//
// It returns nil at the end, ctx's error if that was first, and errors of w as
// they are. A file that does not exist gives an error that matches
// fs.ErrNotExist.
func Read(ctx context.Context, path string, options ReadOptions, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r := &reader{path: path, file: f, options: options, out: w, newLine: true, buf: make([]byte, 0, 32<<10)}
	defer func() { _ = r.file.Close() }()
	return r.run(ctx)
}

var errLimit = errors.New("limit reached")

type reader struct {
	path    string
	file    *os.File
	left    int64 // how much of the file is still to be read, without Follow
	options ReadOptions
	out     io.Writer

	buf      []byte // read and not yet parsed; begins at a line's begin
	skipping bool   // inside a line that is too long
	newLine  bool   // the next output begins a line
	written  int64
	records  int64 // still to be shown; < 0: no limit
}

func (r *reader) run(ctx context.Context) error {
	r.records = -1
	if limit := r.options.LimitBytes; limit != nil && *limit <= 0 {
		return nil
	}
	if tail := r.options.Tail; tail != nil && *tail >= 0 {
		start, err := tailStart(r.file, *tail)
		if err != nil {
			return fmt.Errorf("tail log: %w", err)
		}
		if _, err := r.file.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("tail log: %w", err)
		}
		if !r.options.Follow {
			// Without Follow the answer is exactly so many records, also if
			// others are being written meanwhile.
			if r.records = *tail; r.records == 0 {
				return nil
			}
		}
	}
	if !r.options.Follow {
		at, err := r.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		info, err := r.file.Stat()
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		r.left = info.Size() - at
	}
	for {
		// Both are taken before reading, so that what happens between the
		// reading and the waiting is not missed.
		done := r.isDone()
		var changed <-chan struct{}
		if r.options.Follow && !done && r.options.Changed != nil {
			changed = r.options.Changed()
		}
		replaced, err := r.drain(ctx)
		switch {
		case errors.Is(err, errLimit):
			return nil
		case err != nil:
			return err
		case replaced:
			continue
		case !r.options.Follow, done:
			// What is left is a record without an end: show it.
			if err := r.last(); err != nil && !errors.Is(err, errLimit) {
				return err
			}
			return nil
		}
		if err := r.wait(ctx, changed); err != nil {
			return err
		}
	}
}

func (r *reader) isDone() bool {
	select {
	case <-r.options.Done:
		return true
	default:
		return false
	}
}

func (r *reader) wait(ctx context.Context, changed <-chan struct{}) error {
	var tick <-chan time.Time
	if changed == nil {
		t := time.NewTimer(pollInterval)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.options.Done:
	case <-changed:
	case <-tick:
	}
	return nil
}

// drain reads to the end of the file. If the path has got another file in the
// meantime, the old one is finished, and the new one opened.
func (r *reader) drain(ctx context.Context) (replaced bool, err error) {
	if err := r.toEnd(ctx); err != nil || !r.options.Follow {
		return false, err
	}
	current, err := os.Stat(r.path)
	if err != nil {
		return false, nil // between two steps of a rotation, or removed: come again
	}
	open, err := r.file.Stat()
	if err != nil {
		return false, fmt.Errorf("follow log: %w", err)
	}
	if os.SameFile(current, open) {
		// A file that was cut to nothing in its place begins again.
		if at, err := r.file.Seek(0, io.SeekCurrent); err == nil && open.Size() < at {
			r.buf, r.skipping = r.buf[:0], false
			_, err = r.file.Seek(0, io.SeekStart)
			return err == nil, err
		}
		return false, nil
	}
	next, err := os.Open(r.path)
	if err != nil {
		return false, nil
	}
	// Nothing is appended to a file after it was put aside, so that this end is
	// the last one.
	if err := r.toEnd(ctx); err != nil {
		_ = next.Close()
		return false, err
	}
	if err := r.last(); err != nil {
		_ = next.Close()
		return false, err
	}
	_ = r.file.Close()
	r.file = next
	return true, nil
}

func (r *reader) toEnd(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if len(r.buf) == cap(r.buf) {
			r.buf = append(r.buf, 0)[:len(r.buf)]
		}
		room := r.buf[len(r.buf):cap(r.buf)]
		if !r.options.Follow {
			// A guest that writes faster than we read must not keep us here.
			if r.left <= 0 {
				return nil
			}
			room = room[:min(int64(len(room)), r.left)]
		}
		n, err := r.file.Read(room)
		r.left -= int64(n)
		r.buf = r.buf[:len(r.buf)+n]
		if perr := r.parse(); perr != nil {
			return perr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// parse shows the complete lines of the buffer.
func (r *reader) parse() error {
	rest := r.buf
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if r.skipping || i > maxRecordBytes {
			r.skipping = false
		} else if err := r.show(rest[:i+1]); err != nil {
			return err
		}
		rest = rest[i+1:]
	}
	if len(rest) > maxRecordBytes || r.skipping {
		r.skipping, rest = true, nil
	}
	r.buf = r.buf[:copy(r.buf, rest)]
	return nil
}

// last shows a record that has no end.
func (r *reader) last() error {
	if len(r.buf) == 0 || r.skipping {
		r.buf, r.skipping = r.buf[:0], false
		return nil
	}
	err := r.show(r.buf)
	r.buf = r.buf[:0]
	return err
}

// show writes one record out.
func (r *reader) show(record []byte) error {
	line, ok := parseRecord(record)
	if !ok {
		return nil
	}
	text := line.Text
	begin := r.newLine
	r.newLine = len(text) == 0 || text[len(text)-1] == '\n'
	if r.records > 0 {
		r.records--
	}
	if !line.At.Before(r.options.Since) {
		if r.options.Timestamps && begin {
			stamped := line.At.AppendFormat(make([]byte, 0, len(timestampFormat)+1+len(text)), timestampFormat)
			text = append(append(stamped, ' '), text...)
		}
		limit := r.options.LimitBytes
		if limit != nil && int64(len(text)) > *limit-r.written {
			text = text[:*limit-r.written]
		}
		n, err := r.out.Write(text)
		r.written += int64(n)
		if err != nil {
			return err
		}
		if n < len(text) {
			return io.ErrShortWrite
		}
		if limit != nil && r.written >= *limit {
			return errLimit
		}
	}
	if r.records == 0 {
		return errLimit
	}
	return nil
}

// parseRecord reads one line of a file (LOG-02, LOG-03). The Text of a full
// line has its newline. It aliases record.
func parseRecord(record []byte) (Line, bool) {
	if len(record) > 0 && record[0] == '{' {
		return parseDockerRecord(record)
	}
	stamp, rest, ok := bytes.Cut(record, []byte{' '})
	if !ok {
		return Line{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Line{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || string(stream) != Stdout && string(stream) != Stderr {
		return Line{}, false
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return Line{}, false
	}
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	line := Line{At: at, Stream: string(stream), Partial: string(tag) == "P", Text: text}
	if line.Partial {
		line.Text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	return line, true
}

func parseDockerRecord(record []byte) (Line, bool) {
	var r struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}
	if json.Unmarshal(record, &r) != nil || r.Stream != Stdout && r.Stream != Stderr {
		return Line{}, false
	}
	return Line{At: r.Time, Stream: r.Stream, Partial: len(r.Log) > 0 && r.Log[len(r.Log)-1] != '\n', Text: []byte(r.Log)}, true
}

// tailStart is the offset of the last n lines of f. A last line without an end
// does not count.
func tailStart(f *os.File, n int64) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	var seen int64
	for end > 0 {
		begin := max(0, end-int64(len(buf)))
		block := buf[:end-begin]
		if _, err := f.ReadAt(block, begin); err != nil && err != io.EOF {
			return 0, err
		}
		for i := len(block); ; {
			if i = bytes.LastIndexByte(block[:i], '\n'); i < 0 {
				break
			}
			if seen++; seen > n {
				return begin + int64(i) + 1, nil
			}
		}
		end = begin
	}
	return 0, nil
}

// LastLines is the end of the log at path: at most so many records, and of
// these at most the last so many bytes (TMSG-03). It may begin in the middle of
// a character.
func LastLines(path string, lines, bytes int) (string, error) {
	tail := int64(max(lines, 0))
	w := &lastBytes{max: max(bytes, 0)}
	if err := Read(context.Background(), path, ReadOptions{Tail: &tail}, w); err != nil {
		return "", err
	}
	return string(w.tail()), nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	max int
	buf []byte
}

func (b *lastBytes) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	if len(b.buf) > 2*b.max {
		b.buf = b.buf[:copy(b.buf, b.tail())]
	}
	return len(p), nil
}

func (b *lastBytes) tail() []byte { return b.buf[max(0, len(b.buf)-b.max):] }
