//go:build linux

package cgroupfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// record is the file that says which groups an owner makes. It is locked for as
// long as the owner lives.
type record struct {
	file *os.File
	path string
}

// recorded is what the file holds.
type recorded struct {
	// Dirs are the topmost directories. All have the same last name.
	Dirs []string `json:"dirs"`
}

const recordSuffix = ".json"

// maxRecord bounds what is read of a file.
const maxRecord = 1 << 16

func newRecord(state, name string, dirs []string) (*record, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	b, err := json.Marshal(recorded{dirs})
	if err != nil {
		return nil, err
	}
	// Sweep looks at it only under its name, which it gets when it is locked, and on
	// disk before the groups are there: a record without groups is harmless.
	f, err := os.CreateTemp(state, "new-*")
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = f.Write(b)
	}
	path := filepath.Join(state, name+recordSuffix)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return &record{f, path}, nil
}

// close gives the lock back; the record stays while there are groups.
func (r *record) close(removed bool) error {
	var err error
	if removed {
		err = os.Remove(r.path)
	}
	return errors.Join(err, r.file.Close())
}

// name is what our groups are called, and nobody else's: the record says when.
var name = regexp.MustCompile(`^` + prefix + `[0-9a-f]{16}$`)

// Sweep removes the groups of owners that are gone, as far as no process is in
// them. It leaves those of running ones, and everything that is in no record.
func Sweep(state string, log *slog.Logger) {
	entries, err := os.ReadDir(state)
	if err != nil {
		return // nothing was ever made
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok || !name.MatchString(id) {
			continue
		}
		if err := sweepRecord(filepath.Join(state, e.Name()), id); err != nil {
			log.Warn("cgroups of an ended process", "record", e.Name(), "error", err)
		}
	}
}

func sweepRecord(file, id string) error {
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody else sweeps too
	}
	if err != nil {
		return err
	}
	r := &record{f, file}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return f.Close() // its owner lives
	case err != nil:
		return errors.Join(err, f.Close())
	}
	var got recorded
	b := make([]byte, maxRecord)
	n, _ := f.Read(b)
	if err := json.Unmarshal(b[:n], &got); err != nil {
		return errors.Join(r.close(true), fmt.Errorf("unreadable: %w", err))
	}
	var errs []error
	for _, dir := range got.Dirs {
		if filepath.Base(dir) != id || !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || !isCgroup(dir) {
			continue // no group, or not one of that owner
		}
		errs = append(errs, cgroups.RemovePath(dir))
	}
	err = errors.Join(errs...)
	return errors.Join(err, r.close(err == nil))
}

// isCgroup says whether dir is in a cgroup filesystem and belongs to this user.
func isCgroup(dir string) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(dir, &fs) != nil || unix.Lstat(dir, &st) != nil {
		return false
	}
	return (fs.Type == unix.CGROUP2_SUPER_MAGIC || fs.Type == unix.CGROUP_SUPER_MAGIC) &&
		st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == os.Geteuid()
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }
