package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func logFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string, options ReadOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Read(t.Context(), path, options, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func ptr[T any](v T) *T { return &v }

const sample = "2026-01-02T03:04:05.1Z stdout F one\n" +
	"2026-01-02T03:04:06.2Z stderr P tw\n" +
	"2026-01-02T03:04:06.3Z stderr F o\n" +
	"2026-01-02T03:04:07Z stdout F \n" +
	"2026-01-02T03:04:08.123456789Z stdout F four\n"

func TestRead(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		name    string
		text    string
		options ReadOptions
		want    string
	}{
		{"LOG-03 pieces are joined", sample, ReadOptions{}, "one\ntwo\n\nfour\n"},
		{"LOG-03 lines that are no records are skipped", "junk\n" + sample + "\n2026-01-02 stdout F x\nT stdin F x\n2026-01-02T03:04:05Z stdout\n2026-01-02T03:04:05Z stdall F x\n", ReadOptions{}, "one\ntwo\n\nfour\n"},
		{"LOG-03 more tags", "2026-01-02T03:04:05Z stdout P:x a\n2026-01-02T03:04:05Z stdout F:y:z b\n", ReadOptions{}, "ab\n"},
		{"LOG-03 Docker", `{"log":"one\n","stream":"stdout","time":"2026-01-02T03:04:05.1Z"}` + "\n{\n" + `{"log":"par","stream":"stderr","time":"2026-01-02T03:04:05.1Z"}` + "\n", ReadOptions{}, "one\npar"},
		{"LOG-02 a record without an end", sample + "2026-01-02T03:04:09Z stdout F torn", ReadOptions{}, "one\ntwo\n\nfour\ntorn"},
		{"LOG-03 a line that is too long is skipped", "2026-01-02T03:04:05Z stdout F " + strings.Repeat("x", maxRecordBytes) + "\n" + sample, ReadOptions{}, "one\ntwo\n\nfour\n"},
		{"LOG-03 nothing but a line that is too long", strings.Repeat("x", 3*maxRecordBytes), ReadOptions{}, ""},
		{"LOG-08 empty", "", ReadOptions{}, ""},
		{"LOG-08 tail counts records", sample, ReadOptions{Tail: ptr(int64(3))}, "o\n\nfour\n"},
		{"LOG-08 tail 0", sample, ReadOptions{Tail: ptr(int64(0))}, ""},
		{"LOG-08 tail -1", sample, ReadOptions{Tail: ptr(int64(-1))}, "one\ntwo\n\nfour\n"},
		{"LOG-08 tail more than there is", sample, ReadOptions{Tail: ptr(int64(100))}, "one\ntwo\n\nfour\n"},
		{"LOG-08 tail exactly", sample, ReadOptions{Tail: ptr(int64(5))}, "one\ntwo\n\nfour\n"},
		{"LOG-08 an unfinished record does not count, and is beyond the tail", sample + "2026-01-02T03:04:09Z stdout F torn", ReadOptions{Tail: ptr(int64(1))}, "four\n"},
		{"LOG-08 since keeps the bound itself", sample, ReadOptions{Since: at("2026-01-02T03:04:07Z")}, "\nfour\n"},
		{"LOG-08 since after tail", sample, ReadOptions{Since: at("2026-01-02T03:04:08Z"), Tail: ptr(int64(2))}, "four\n"},
		{"LOG-08 timestamps, once a line, nine digits", sample, ReadOptions{Timestamps: true},
			"2026-01-02T03:04:05.100000000Z one\n2026-01-02T03:04:06.200000000Z two\n2026-01-02T03:04:07.000000000Z \n2026-01-02T03:04:08.123456789Z four\n"},
		{"LOG-08 limitBytes cuts", sample, ReadOptions{LimitBytes: ptr(int64(6))}, "one\ntw"},
		{"LOG-08 limitBytes counts timestamps", sample, ReadOptions{LimitBytes: ptr(int64(33)), Timestamps: true}, "2026-01-02T03:04:05.100000000Z on"},
		{"LOG-08 limitBytes at a line's end", sample, ReadOptions{LimitBytes: ptr(int64(4))}, "one\n"},
		{"LOG-08 limitBytes of nothing", sample, ReadOptions{LimitBytes: ptr(int64(0))}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, read(t, logFile(t, tt.text), tt.options)); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("tail over block boundaries", func(t *testing.T) {
		var text, want strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&text, "%s stdout F line %d %s\n", stamp, i, strings.Repeat("y", i%97))
			if i >= 5000-3210 {
				fmt.Fprintf(&want, "line %d %s\n", i, strings.Repeat("y", i%97))
			}
		}
		if diff := cmp.Diff(want.String(), read(t, logFile(t, text.String()), ReadOptions{Tail: ptr(int64(3210))})); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("no such file", func(t *testing.T) {
		if err := Read(t.Context(), filepath.Join(t.TempDir(), "x"), ReadOptions{}, io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the writer's error", func(t *testing.T) {
		r, w := io.Pipe()
		_ = r.CloseWithError(io.ErrUnexpectedEOF)
		if err := Read(t.Context(), logFile(t, sample), ReadOptions{}, w); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Read(ctx, logFile(t, sample), ReadOptions{}, io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	l := create(t, Options{})
	text := strings.Repeat("a", 40_000) + "\n\nshort\nno end"
	write(t, l.Stream(Stdout), text)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, l.Path(), ReadOptions{}); got != text {
		t.Errorf("LOG-03 got %d bytes, want %d", len(got), len(text))
	}
}

func TestLastLines(t *testing.T) {
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "%s stderr F line %02d\n", stamp, i)
	}
	path := logFile(t, text.String())
	got, err := LastLines(path, 80, 2048)
	if err != nil || len(got) != 80*8 || !strings.HasPrefix(got, "line 20\n") {
		t.Errorf("TMSG-03 got %d bytes, %v", len(got), err)
	}
	got, err = LastLines(path, 80, 20)
	if err != nil || got != "97\nline 98\nline 99\n"[len("97\nline 98\nline 99\n")-19:] && got != " 97\nline 98\nline 99\n" {
		t.Errorf("TMSG-03 got %q, %v", got, err)
	}
	if got, err := LastLines(path, 0, 2048); got != "" || err != nil {
		t.Errorf("TMSG-03 got %q, %v", got, err)
	}
	if got, err := LastLines(path, 80, 0); got != "" || err != nil {
		t.Errorf("TMSG-03 got %q, %v", got, err)
	}
	if _, err := LastLines(path+"x", 80, 2048); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("TMSG-03 got %v", err)
	}
}

// sink is a writer that says when it has seen enough.
type sink struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestFollow(t *testing.T) {
	for _, notified := range []bool{true, false} {
		t.Run(fmt.Sprintf("LOG-09 notified %t", notified), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := create(t, Options{MaxBytes: 150, Now: time.Now})
				w := l.Stream(Stdout)
				write(t, w, "before\n")
				done, ended := make(chan struct{}), make(chan error, 1)
				options := ReadOptions{Follow: true, Done: done}
				if notified {
					options.Changed = l.Changed
				}
				var out sink
				go func() { ended <- Read(t.Context(), l.Path(), options, &out) }()

				want := "before\n"
				for i := range 20 { // rotates often
					line := fmt.Sprintf("line %d %s\n", i, strings.Repeat(".", 40))
					write(t, w, line[:5])
					write(t, w, line[5:])
					want += line
					synctest.Wait()
					if notified && out.String() != want {
						t.Fatalf("after line %d: got %q", i, out.String())
					}
					if !notified && i%2 == 0 {
						<-time.After(2 * pollInterval)
					}
				}
				write(t, w, "no end")
				want += "no end"
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				close(done)
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, out.String()); diff != "" {
					t.Errorf("output (-want +got):\n%s", diff)
				}
			})
		})
	}
	t.Run("LOG-09 tail and follow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := create(t, Options{Now: time.Now})
			w := l.Stream(Stdout)
			write(t, w, "1\n2\n3\n")
			done, ended := make(chan struct{}), make(chan error, 1)
			var out sink
			go func() {
				ended <- Read(t.Context(), l.Path(), ReadOptions{Follow: true, Done: done, Changed: l.Changed, Tail: ptr(int64(1))}, &out)
			}()
			synctest.Wait()
			write(t, w, "4\n")
			synctest.Wait()
			close(done)
			if err := <-ended; err != nil || out.String() != "3\n4\n" {
				t.Errorf("got %q, %v", out.String(), err)
			}
		})
	})
	t.Run("LOG-09 the context ends it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := create(t, Options{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := Read(ctx, l.Path(), ReadOptions{Follow: true}, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("LOG-09 a limit ends it", func(t *testing.T) {
		var b bytes.Buffer
		err := Read(t.Context(), logFile(t, sample), ReadOptions{Follow: true, LimitBytes: ptr(int64(3))}, &b)
		if err != nil || b.String() != "one" {
			t.Errorf("got %q, %v", b.String(), err)
		}
	})
	t.Run("LOG-09 a rotation while the reader is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := create(t, Options{MaxBytes: 60, MaxFiles: 50, Now: time.Now})
			w := l.Stream(Stdout)
			done, ended := make(chan struct{}), make(chan error, 1)
			r, pipe := io.Pipe() // a reader that is stuck
			go func() {
				err := Read(t.Context(), l.Path(), ReadOptions{Follow: true, Done: done, Changed: l.Changed}, pipe)
				_ = pipe.Close()
				ended <- err
			}()
			synctest.Wait()
			write(t, w, "first line of the log, rather long\n")
			synctest.Wait()
			write(t, w, "second\n")
			close(done)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if rerr := <-ended; rerr != nil || err != nil {
				t.Fatal(rerr, err)
			}
			if want := "first line of the log, rather long\nsecond\n"; string(got) != want {
				t.Errorf("got %q", got)
			}
		})
	})
	t.Run("a file that is cut to nothing begins again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := create(t, Options{MaxBytes: 100, MaxFiles: 1, Now: time.Now})
			w := l.Stream(Stdout)
			done, ended := make(chan struct{}), make(chan error, 1)
			var out sink
			go func() {
				ended <- Read(t.Context(), l.Path(), ReadOptions{Follow: true, Done: done, Changed: l.Changed}, &out)
			}()
			for i := range 9 {
				write(t, w, fmt.Sprintf("%d\n", i))
				synctest.Wait()
			}
			close(done)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(out.String(), "0\n1\n") || !strings.HasSuffix(out.String(), "8\n") {
				t.Errorf("got %q", out.String())
			}
		})
	})
}

// FuzzRead feeds the reader damaged files: it must end, never panic, and never
// show more than was written.
func FuzzRead(f *testing.F) {
	f.Add([]byte(sample), int64(-1), int64(0), false)
	f.Add([]byte(sample[:60]), int64(2), int64(5), true)
	f.Add([]byte("{\"log\":\"x\",\"stream\":\"stdout\"}\n"), int64(1), int64(-1), true)
	f.Add([]byte("\n\n \x00"), int64(0), int64(1), false)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte, tail, limit int64, timestamps bool) {
		path := filepath.Join(dir, fmt.Sprintf("%d.log", os.Getpid()))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		options := ReadOptions{Tail: &tail, Timestamps: timestamps}
		if limit > 0 {
			options.LimitBytes = &limit
		}
		var b bytes.Buffer
		if err := Read(context.Background(), path, options, &b); err != nil {
			t.Fatal(err)
		}
		if limit > 0 && int64(b.Len()) > limit {
			t.Errorf("limit %d, got %d bytes", limit, b.Len())
		}
		if tail == 0 && b.Len() > 0 {
			t.Errorf("tail 0, got %q", b.Bytes())
		}
	})
}

// FuzzWrite writes in arbitrary pieces: what is read back is what was written,
// but for carriage returns at the end of lines.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("a\r\nb\n\nc"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), MaxLineBytes+2), uint16(7))
	f.Add(append(bytes.Repeat([]byte("x"), MaxLineBytes), "\r\n\r"...), uint16(3))
	f.Fuzz(func(t *testing.T, text []byte, piece uint16) {
		l := create(t, Options{MaxBytes: 1 << 30})
		w := l.Stream(Stdout)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			write(t, w, string(rest[:n]))
			rest = rest[n:]
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(string(text), "\r\n", "\n")
		if got := read(t, l.Path(), ReadOptions{}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
