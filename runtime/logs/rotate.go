package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	rotatedTime = "20060102-150405"
	gzSuffix    = ".gz"
	tmpSuffix   = ".tmp"
)

// rotate puts the current file aside as <path>.<time> and begins a new one.
// Older files are compressed, the oldest removed (LOG-04). Called with mu held.
func (l *Log) rotate() error {
	if l.options.MaxFiles == 1 {
		if err := l.file.Truncate(0); err != nil {
			return err
		}
		l.size = 0
		return nil
	}
	old := rotated(l.path)
	at := l.options.Now().UTC().Truncate(time.Second)
	if len(old) > 0 {
		// Names must be unique and in order even if a guest fills more than one
		// file a second, or the clock was set back.
		if last := old[len(old)-1].at; !at.After(last) {
			at = last.Add(time.Second)
		}
	}
	aside := l.path + "." + at.Format(rotatedTime)
	// A file that somebody has deleted is replaced all the same.
	if err := os.Rename(l.path, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	previous, size := l.file, l.size
	if err := l.open(); err != nil {
		// Better a log that is too long than none.
		l.file, l.size = previous, size
		return errors.Join(err, os.Rename(aside, l.path))
	}
	errs := []error{previous.Close()}
	for keep := l.options.MaxFiles - 2; len(old) > keep; old = old[1:] {
		errs = append(errs, old[0].remove())
	}
	if !l.compressing && len(old) > 0 {
		l.compressing = true
		l.background.Go(l.compress)
	}
	return errors.Join(errs...)
}

// compress gzips the rotated files but the newest, one after the other, until
// none is left. At most one runs per log. Compression is not the guest's
// concern: the guest goes on writing meanwhile.
func (l *Log) compress() {
	for {
		l.mu.Lock()
		files := rotated(l.path)
		var next *rotatedFile
		for i := range max(len(files)-1, 0) {
			if !files[i].compressed {
				next = &files[i]
				break
			}
		}
		if next == nil {
			l.compressing = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()

		err := gzipFile(next.path)

		l.mu.Lock()
		switch _, serr := os.Lstat(next.path); {
		case errors.Is(serr, os.ErrNotExist) && err == nil:
		case errors.Is(serr, os.ErrNotExist):
			// Rotated away while it was being compressed.
			_ = os.Remove(next.path + gzSuffix)
		case err != nil:
			// Tried again at the next rotation.
			l.fail(fmt.Errorf("compress log: %w", err))
			l.compressing = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// gzipFile replaces path by path.gz. The compressed file appears whole or not
// at all.
func gzipFile(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := path + tmpSuffix
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path+gzSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}

type rotatedFile struct {
	path       string // the one without .gz, if both exist
	at         time.Time
	compressed bool
}

func (f rotatedFile) remove() error {
	var errs []error
	plain := strings.TrimSuffix(f.path, gzSuffix)
	for _, p := range []string{plain, plain + gzSuffix} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rotated lists the rotated files of path, oldest first.
func rotated(path string) []rotatedFile {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var files []rotatedFile
	prefix := filepath.Base(path) + "."
	for _, e := range entries {
		stamp, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		stamp, compressed := strings.CutSuffix(stamp, gzSuffix)
		at, err := time.Parse(rotatedTime, stamp)
		if err != nil {
			continue
		}
		files = append(files, rotatedFile{path: filepath.Join(filepath.Dir(path), e.Name()), at: at, compressed: compressed})
	}
	slices.SortStableFunc(files, func(a, b rotatedFile) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.path, b.path)
	})
	// A crash between the two steps of gzipFile leaves the same content twice;
	// the uncompressed file is the one to believe.
	return slices.CompactFunc(files, func(a, b rotatedFile) bool { return a.at.Equal(b.at) })
}

// Prune deletes the logs of all attempts older than the one whose log is at path, with
// their rotated files. They must be closed. That there are none is no error (TIME-12).
func Prune(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	keep, err := attemptOf(filepath.Base(path))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if n, err := attemptOf(e.Name()); err == nil && n < keep && e.Type().IsRegular() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// attemptOf is the attempt whose log a file is, or part of: 3 for 3.log and for
// 3.log.20260102-030405.gz.
func attemptOf(name string) (int, error) {
	number, rest, _ := strings.Cut(name, ".")
	if rest != "log" && !strings.HasPrefix(rest, "log.") {
		return 0, fmt.Errorf("%s is no log", name)
	}
	return strconv.Atoi(number)
}

// removeUnfinished removes what interrupted compressions left behind.
func removeUnfinished(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") && strings.HasSuffix(e.Name(), tmpSuffix) {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}
