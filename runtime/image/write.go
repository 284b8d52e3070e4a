package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// How the store is written, so that neither a power cut nor another process
// can damage it:
//
//   - Content is first written to a private directory below tmp/, and synced.
//   - Under an exclusive lock on the file "lock", blobs are renamed to their
//     digests and index.json is replaced by rename. Blobs that no index names
//     are garbage, so a writer that dies in between leaves garbage only.
//   - The writer of a private directory keeps a lock on it. One that can be
//     locked by somebody else belongs to the dead, and is removed.
//
// Locks are flock(2)s: the kernel releases them when a process dies.
const (
	lockFile  = "lock"
	tmpDir    = "tmp"
	lockRetry = 5 * time.Millisecond
)

var errNoStore = errors.New("no image store is configured")

// fileLock is a held flock.
type fileLock struct{ f *os.File }

func (l fileLock) release() {
	if l.f != nil {
		l.f.Close()
	}
}

// tryLock locks the file at path, or says that somebody else has.
func tryLock(path string) (lock fileLock, busy bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fileLock{}, false, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return fileLock{}, true, nil
		}
		return fileLock{}, false, fmt.Errorf("lock %s: %w", path, err)
	}
	return fileLock{f}, false, nil
}

// lock waits for the store's lock.
func (s *Service) lock(ctx context.Context) (fileLock, error) {
	_, lock, err := s.lockStore(ctx)
	return lock, err
}

// lockStore waits for the store's lock, making the store if need be.
func (s *Service) lockStore(ctx context.Context) (*layout, fileLock, error) {
	if s.cfg.Root == "" {
		return nil, fileLock{}, errNoStore
	}
	l := s.stores[0]
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, fileLock{}, fmt.Errorf("image store: %w", err)
	}
	for wait := lockRetry; ; wait = min(2*wait, 20*lockRetry) {
		lock, busy, err := tryLock(filepath.Join(l.dir, lockFile))
		if err != nil {
			return nil, fileLock{}, fmt.Errorf("image store: %w", err)
		}
		if !busy {
			if err := l.init(); err != nil {
				lock.release()
				return nil, fileLock{}, fmt.Errorf("image store: %w", err)
			}
			return l, lock, nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fileLock{}, fmt.Errorf("image store: waiting for another writer: %w", ctx.Err())
		case <-t.C:
		}
	}
}

// init makes the directory an OCI image layout. The lock is held.
func (l *layout) init() error {
	if _, err := os.Lstat(filepath.Join(l.dir, "oci-layout")); err == nil {
		return nil
	}
	return writeFileAtomic(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`+"\n"))
}

// staging is a private directory for content on its way into the store.
type staging struct {
	dir  string
	lock fileLock
}

// stage makes a staging directory, and removes those of dead writers.
func (s *Service) stage(ctx context.Context) (*staging, error) {
	l, lock, err := s.lockStore(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.release() // a dead writer's directory must not be judged before it is locked
	sweep(l)
	dir, err := os.MkdirTemp(filepath.Join(l.dir, tmpDir), "write-")
	if isAbsent(err) {
		if err = os.Mkdir(filepath.Join(l.dir, tmpDir), 0o755); err == nil {
			dir, err = os.MkdirTemp(filepath.Join(l.dir, tmpDir), "write-")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	own, busy, err := tryLock(filepath.Join(dir, lockFile))
	if err == nil && busy {
		err = errors.New("a new file is locked already")
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("image store: %w", err)
	}
	return &staging{dir: dir, lock: own}, nil
}

func (st *staging) close() {
	os.RemoveAll(st.dir)
	st.lock.release()
}

// sweep removes what dead writers left. The store's lock is held.
func sweep(l *layout) {
	dirs, _ := os.ReadDir(filepath.Join(l.dir, tmpDir))
	for _, d := range dirs {
		dir := filepath.Join(l.dir, tmpDir, d.Name())
		if lock, busy, err := tryLock(filepath.Join(dir, lockFile)); err == nil && !busy {
			os.RemoveAll(dir)
			lock.release()
		}
	}
}

// publish moves staged blobs to their place and changes the index, as one
// step for every reader.
func (s *Service) publish(ctx context.Context, blobs map[string]v1.Hash, change func(*v1.IndexManifest) error) error {
	l, lock, err := s.lockStore(ctx)
	if err != nil {
		return err
	}
	defer lock.release()
	for file, h := range blobs {
		// An existing blob is replaced: it may be one that a failing disk has
		// damaged, and this one is known to be good.
		if err := os.Rename(file, l.blobPath(h)); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	if len(blobs) > 0 {
		if err := syncDir(filepath.Join(l.dir, "blobs", "sha256")); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	return l.changeIndex(change)
}

// changeIndex replaces index.json. The lock is held.
func (l *layout) changeIndex(change func(*v1.IndexManifest) error) error {
	old, err := l.readIndex()
	if err != nil {
		return err
	}
	index := old.DeepCopy() // readers share the old one
	if err := change(index); err != nil {
		return err
	}
	index.SchemaVersion = 2
	index.MediaType = types.OCIImageIndex
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{}
	}
	slices.SortStableFunc(index.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(a.Annotations[annotationRefName], b.Annotations[annotationRefName])
	})
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	l.mu.Lock()
	l.index = nil
	l.mu.Unlock()
	if err := writeFileAtomic(filepath.Join(l.dir, "index.json"), append(raw, '\n')); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return nil
}

// setRef makes ref name desc and nothing else.
func setRef(index *v1.IndexManifest, ref string, desc v1.Descriptor) {
	dropRef(index, ref)
	desc.Annotations = map[string]string{annotationRefName: ref}
	index.Manifests = append(index.Manifests, desc)
}

func dropRef(index *v1.IndexManifest, ref string) (dropped bool) {
	before := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return d.Annotations[annotationRefName] == ref
	})
	return len(index.Manifests) < before
}

// writeFileAtomic replaces a file: after a power cut it has the old content
// or the new.
func writeFileAtomic(path string, data []byte) error {
	tmp := path + ".new" // one writer at a time: the lock is held
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = bytes.NewReader(data).WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems cannot sync a directory; their renames are as durable
	// as they get.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
