package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)

const stamp = "2026-01-02T03:04:05.6789Z"

func fixedNow() time.Time { return epoch }

func create(t *testing.T, options Options) *Log {
	t.Helper()
	if options.Now == nil {
		options.Now = fixedNow
	}
	l, err := Create(Path(t.TempDir(), "ns", "p", "uid", "c", 0), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Fatalf("Write = %d, %v; want %d, nil", n, err, len(s))
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPathLOG01(t *testing.T) {
	if got, want := Path("/var/log/pods", "ns", "p", "uid", "c", 3), "/var/log/pods/ns_p_uid/c/3.log"; got != want {
		t.Errorf("LOG-01 got %s, want %s", got, want)
	}
}

func TestWrite(t *testing.T) {
	const k16 = MaxLineBytes
	x := strings.Repeat("x", k16)
	for _, tt := range []struct {
		name   string
		writes []string
		want   string // %s stands for the timestamp
	}{
		{"LOG-02 one line", []string{"hello\n"}, "%s stdout F hello\n"},
		{"LOG-02 pieces make a line", []string{"he", "llo", "\nwor", "ld\n"}, "%s stdout F hello\n%s stdout F world\n"},
		{"LOG-02 empty lines", []string{"\n\n"}, "%s stdout F \n%s stdout F \n"},
		{"LOG-02 carriage return and newline", []string{"a\r\nb\r", "\nc\rd\n\r\n"}, "%s stdout F a\n%s stdout F b\n%s stdout F c\rd\n%s stdout F \n"},
		{"LOG-02 only one carriage return is stripped", []string{"a\r\r\n"}, "%s stdout F a\r\n"},
		{"LOG-02 no newline at the end", []string{"a\nend"}, "%s stdout F a\n%s stdout P end\n"},
		{"LOG-02 carriage return at the end", []string{"end\r"}, "%s stdout P end\r\n"},
		{"LOG-02 bytes as they are", []string{"\x00\xff\n"}, "%s stdout F \x00\xff\n"},
		{"TIME-18 exactly as long as a record", []string{x + "\n"}, "%s stdout F " + x + "\n"},
		{"TIME-18 one more", []string{x + "y\n"}, "%s stdout P " + x + "\n%s stdout F y\n"},
		{"TIME-18 twice as long", []string{x + x + "\n"}, "%s stdout P " + x + "\n%s stdout F " + x + "\n"},
		{"TIME-18 carriage return just beyond", []string{x + "\r\n"}, "%s stdout F " + x + "\n"},
		{"TIME-18 carriage return just beyond, in pieces", []string{x, "\r", "\n", "z\n"}, "%s stdout F " + x + "\n%s stdout F z\n"},
		{"TIME-18 carriage return just beyond, not at the end", []string{x, "\r", "z\n"}, "%s stdout P " + x + "\n%s stdout F \rz\n"},
		{"TIME-18 two carriage returns just beyond", []string{x + "\r", "\r\n"}, "%s stdout P " + x + "\n%s stdout F \r\n"},
		{"TIME-18 the stream ends beyond", []string{x + "\r"}, "%s stdout P " + x + "\n%s stdout P \r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.ReplaceAll(tt.want, "%s", stamp)
			byteByByte := strings.Split(strings.Join(tt.writes, ""), "")
			if len(byteByByte) > k16 && testing.Short() {
				byteByByte = tt.writes
			}
			for _, writes := range [][]string{tt.writes, byteByByte, {strings.Join(tt.writes, "")}} {
				l := create(t, Options{})
				w := l.Stream(Stdout)
				for _, s := range writes {
					write(t, w, s)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, content(t, l.Path())); diff != "" {
					t.Fatalf("file (-want +got):\n%.2000s", diff)
				}
			}
		})
	}
}

func TestStreams(t *testing.T) {
	t.Run("LOG-05 both streams in file order, lines not mixed", func(t *testing.T) {
		l := create(t, Options{})
		out, errs := l.Stream(Stdout), l.Stream(Stderr)
		write(t, out, "a")
		write(t, errs, "E\n")
		write(t, out, "b\n")
		write(t, errs, "rest")
		if err := errs.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, out, "c")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want := stamp + " stderr F E\n" + stamp + " stdout F ab\n" + stamp + " stderr P rest\n" + stamp + " stdout P c\n"
		if diff := cmp.Diff(want, content(t, l.Path())); diff != "" {
			t.Errorf("file (-want +got):\n%s", diff)
		}
	})
	t.Run("a write fails only after Close", func(t *testing.T) {
		l := create(t, Options{})
		out, errs := l.Stream(Stdout), l.Stream(Stderr)
		if err := errors.Join(errs.Close(), errs.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := errs.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v", err)
		}
		write(t, out, "x\n")
		if err := errors.Join(l.Close(), l.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("many writers", func(t *testing.T) {
		l := create(t, Options{MaxBytes: 8 << 10, MaxFiles: 100, Now: time.Now})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				w := l.Stream([]string{Stdout, Stderr}[i%2])
				for j := range 50 {
					fmt.Fprintf(w, "writer %d line %d %s\n", i, j, strings.Repeat("-", i))
				}
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, name := range allFiles(t, l.Path()) {
			for line := range strings.Lines(name) {
				rec, ok := parseRecord([]byte(line))
				if !ok || rec.Partial {
					t.Fatalf("bad record %q", line)
				}
				seen[string(rec.Text)] = true
			}
		}
		if len(seen) != 400 {
			t.Errorf("got %d different lines, want 400", len(seen))
		}
	})
	t.Run("goes on where an earlier log ended, and ends a torn record", func(t *testing.T) {
		l := create(t, Options{})
		write(t, l.Stream(Stdout), "one\n")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		torn := content(t, l.Path()) + stamp + " stdout F tor"
		if err := os.WriteFile(l.Path(), []byte(torn), 0o640); err != nil {
			t.Fatal(err)
		}
		again, err := Create(l.Path(), Options{Now: fixedNow})
		if err != nil {
			t.Fatal(err)
		}
		write(t, again.Stream(Stdout), "two\n")
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(torn+"\n"+stamp+" stdout F two\n", content(t, l.Path())); diff != "" {
			t.Errorf("file (-want +got):\n%s", diff)
		}
	})
}

func TestTee(t *testing.T) {
	var got []string
	l := create(t, Options{Tee: func(line Line) {
		got = append(got, fmt.Sprintf("%s %t %s", line.Stream, line.Partial, line.Text))
	}})
	write(t, l.Stream(Stdout), "a\nb")
	if diff := cmp.Diff([]string{"stdout false a"}, got); diff != "" {
		t.Errorf("a line is shown when it ends (-want +got):\n%s", diff)
	}
	write(t, l.Stream(Stderr), "e\r\nlast")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stdout false a", "stderr false e", "stdout true b", "stderr true last"}, got); diff != "" {
		t.Errorf("what the tee saw (-want +got):\n%s", diff)
	}
}

// allFiles returns the content of the log's files, oldest first.
func allFiles(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	for _, f := range rotated(path) {
		text := content(t, f.path)
		if f.compressed {
			z, err := gzip.NewReader(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		out = append(out, text)
	}
	return append(out, content(t, path))
}

func names(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRotation(t *testing.T) {
	now := epoch
	l := create(t, Options{MaxBytes: 200, Now: func() time.Time { return now }})
	w := l.Stream(Stdout)
	line := func(i int) string { return fmt.Sprintf("line %03d %s\n", i, strings.Repeat(".", 150)) }
	write(t, w, line(0))
	if diff := cmp.Diff([]string{"0.log"}, names(t, l.Path())); diff != "" {
		t.Fatalf("LOG-04 too early:\n%s", diff)
	}
	write(t, w, line(1)) // above the limit now
	if diff := cmp.Diff([]string{"0.log", "0.log.20260102-030405"}, names(t, l.Path())); diff != "" {
		t.Fatalf("LOG-04 (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(l.Path()); err != nil || info.Size() != 0 {
		t.Errorf("LOG-04 the current file is not new: %v %v", info, err)
	}
	now = now.Add(-time.Hour) // clocks do that
	for i := 2; i < 20; i++ {
		write(t, w, line(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// Names stay unique and in order; the oldest are gone, all but the newest
	// are compressed.
	want := []string{"0.log", "0.log.20260102-030411.gz", "0.log.20260102-030412.gz", "0.log.20260102-030413.gz", "0.log.20260102-030414"}
	if diff := cmp.Diff(want, names(t, l.Path())); diff != "" {
		t.Fatalf("LOG-04 files (-want +got):\n%s", diff)
	}
	var text string
	for i := 12; i < 20; i++ {
		text += stamp[:11] + "02" + stamp[13:] + " stdout F " + line(i)
	}
	if diff := cmp.Diff(text, strings.Join(allFiles(t, l.Path()), "")); diff != "" {
		t.Errorf("LOG-04 content (-want +got):\n%s", diff)
	}
}

func TestPrune(t *testing.T) {
	t.Run("TIME-12 what is older than the log that is named", func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"0.log", "1.log", "1.log.20260102-030405.gz", "2.log", "2.log.20260102-030405", "10.log", "x.log", "1.txt", "other"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, "2.log")
		if err := errors.Join(Prune(path), Prune(path), Prune(filepath.Join(dir, "nowhere", "2.log"))); err != nil {
			t.Error(err)
		}
		want := []string{"1.txt", "10.log", "2.log", "2.log.20260102-030405", "other", "x.log"}
		if diff := cmp.Diff(want, names(t, path)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if Prune(filepath.Join(dir, "x.log")) == nil {
			t.Error("x.log is an attempt's")
		}
	})
}

func TestRotationFewFiles(t *testing.T) {
	for files, want := range map[int]int{1: 1, 2: 2, 3: 3} {
		l := create(t, Options{MaxBytes: 100, MaxFiles: files})
		for range 50 {
			write(t, l.Stream(Stdout), strings.Repeat("x", 80)+"\n")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := names(t, l.Path()); len(got) != want {
			t.Errorf("LOG-04 MaxFiles %d: got %v", files, got)
		}
	}
}

func TestUnfinishedCompression(t *testing.T) {
	l := create(t, Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".20260101-000000.tmp", ".20260101-000000", ".20260101-000000.gz"} {
		if err := os.WriteFile(l.Path()+name, []byte("x"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Create(l.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := rotated(l.Path()); len(got) != 1 || got[0].compressed || slices.Contains(names(t, l.Path()), "0.log.20260101-000000.tmp") {
		t.Errorf("got %v", got)
	}
}

func TestWriteErrors(t *testing.T) {
	t.Run("a full disk is reported once and does not stop the guest", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("/dev/full is a Linux device")
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "0.log")
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		var reported []error
		lines := 0
		l, err := Create(path, Options{OnError: func(err error) { reported = append(reported, err) }, Tee: func(Line) { lines++ }})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			write(t, l.Stream(Stdout), "x\n")
		}
		if len(reported) != 1 || !strings.Contains(reported[0].Error(), "no space left") {
			t.Errorf("reported %v", reported)
		}
		if lines != 100 {
			t.Errorf("the tee saw %d lines", lines)
		}
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("Close = %v", err)
		}
	})
	t.Run("LOG-04 a rotation that fails leaves the file", func(t *testing.T) {
		l := create(t, Options{MaxBytes: 100, MaxFiles: 50})
		// A directory in the place of the rotated file.
		aside := l.Path() + "." + epoch.Format(rotatedTime)
		if err := os.MkdirAll(filepath.Join(aside, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			write(t, l.Stream(Stdout), fmt.Sprintf("%03d %s\n", i, strings.Repeat("x", 80)))
		}
		var b bytes.Buffer
		if err := Read(context.Background(), l.Path(), ReadOptions{}, &b); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), "\n"); got != 30 {
			t.Errorf("%d lines are left of 30", got)
		}
		for range 1000 { // and does not let it grow for ever
			write(t, l.Stream(Stdout), strings.Repeat("x", 80)+"\n")
			if info, err := os.Stat(l.Path()); err != nil || info.Size() > 50*100+200 {
				t.Fatalf("the file has %d bytes (%v)", info.Size(), err)
			}
		}
		if err := l.Close(); err == nil {
			t.Error("the failure was not reported")
		}
	})
	t.Run("LOG-04 a deleted file is made again", func(t *testing.T) {
		l := create(t, Options{MaxBytes: 100})
		if err := os.Remove(l.Path()); err != nil {
			t.Fatal(err)
		}
		write(t, l.Stream(Stdout), strings.Repeat("x", 100)+"\n")
		write(t, l.Stream(Stdout), "again\n")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, l.Path()); got != stamp+" stdout F again\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no directory can be made", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(filepath.Join(file, "c", "0.log"), Options{}); err == nil {
			t.Error("no error")
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	l := create(t, Options{MaxBytes: 1 << 20, MaxFiles: 2})
	w := l.Stream(Stdout)
	chunk := bytes.Repeat([]byte{'x'}, 1<<20)
	for range 8 { // never a newline
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.(*stream); cap(s.pending) > 4*MaxLineBytes || cap(l.batch) > 4*batchBytes {
		t.Errorf("pending %d, batch %d", cap(s.pending), cap(l.batch))
	}
}

func TestDefaultsTIME17(t *testing.T) {
	l := create(t, Options{})
	if l.options.MaxBytes != 10<<20 || l.options.MaxFiles != 5 {
		t.Errorf("%+v", l.options)
	}
}
