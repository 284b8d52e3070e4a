package runtime

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/runtime/volume"
)

// runDir is the directory of one process: what its pods need while they run. A
// lock on it tells a running owner from one that was killed, whose directory
// the next process removes.
type runDir struct {
	path string
	lock *os.File
	// ends say how the kernel has killed processes whose directories were left.
	ends []string
}

func newRunDir(parent string, log *slog.Logger) (*runDir, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	ends := sweep(parent, log)
	for {
		dir, err := os.MkdirTemp(parent, "")
		if err != nil {
			return nil, err
		}
		// The lock lies beside the directory: whoever sweeps takes it before it
		// removes anything, and a directory is only there while its lock is.
		lock, err := lockFile(dir + ".lock")
		if errors.Is(err, unix.EWOULDBLOCK) {
			// A process that starts just now takes it for a leftover and removes it. Such
			// a process sweeps once.
			continue
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		// A sweep may have removed it before it was locked.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		return &runDir{path: dir, lock: lock, ends: ends}, nil
	}
}

// isAt reports whether an open file is the one of that name.
func isAt(f *os.File, name string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(have, there)
}

// lockFile takes an exclusive lock on a file, or fails with EWOULDBLOCK at once. The
// lock counts only while it is on the file of that name: who had it before may have
// removed that after it was opened here.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !isAt(f, name) {
		return nil, errors.Join(unix.EWOULDBLOCK, f.Close())
	}
	return f, nil
}

// sweep removes what processes that were killed have left behind, and returns what
// there is to say of whom the kernel has killed.
func sweep(parent string, log *slog.Logger) (ends []string) {
	dirs, err := os.ReadDir(parent)
	if err != nil {
		log.Warn("looking for leftovers", "dir", parent, "error", err)
		return nil
	}
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		dir := filepath.Join(parent, d.Name())
		lock, err := lockFile(dir + ".lock")
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // its owner runs, or another process removes it
		}
		if err != nil {
			log.Warn("leftovers of an ended process", "dir", dir, "error", err)
			continue
		}
		if end := oomEnd(lock); end != "" {
			ends = append(ends, end)
		}
		if err := (&runDir{path: dir, lock: lock}).remove(); err != nil {
			log.Warn("leftovers of an ended process", "dir", dir, "error", err)
		}
	}
	return ends
}

// remove removes the directory, and then its lock.
func (d *runDir) remove() error {
	err := volume.RemoveAll(d.path) // guests have written there
	if err == nil {
		err = removeIfThere(d.path + ".lock")
	}
	return errors.Join(err, d.lock.Close())
}

// removeIfThere removes what another process may have removed before.
func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepLogs is for how long the logs of ended pods are kept.
const keepLogs = 7 * 24 * time.Hour

// pruneLogs removes the logs of pods that have written nothing for keepLogs.
func pruneLogs(root string, log *slog.Logger) {
	pods, err := os.ReadDir(root)
	if err != nil {
		return // no logs yet
	}
	limit := time.Now().Add(-keepLogs)
	for _, p := range pods {
		dir := filepath.Join(root, p.Name())
		if newest(dir).Before(limit) {
			if err := os.RemoveAll(dir); err != nil {
				log.Warn("removing old logs", "dir", dir, "error", err)
			}
		}
	}
}

// newest returns when anything in a tree last changed.
func newest(dir string) (t time.Time) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(t) {
			t = info.ModTime()
		}
		return nil
	})
	return t
}
