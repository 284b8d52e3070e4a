package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/distribution/reference"
)

// layout reads one OCI image layout. Everything it returns is verified
// against the digest it was asked for by.
type layout struct {
	dir string

	mu    sync.Mutex
	index *v1.IndexManifest // as last parsed
	stamp fileStamp         // of the index.json that was parsed
}

// fileStamp tells two states of a file apart. A file that changed within the
// clock granularity of the file system cannot be told apart by it: such a
// stamp is not settled, and nothing is cached under it.
type fileStamp struct {
	size    int64
	mtime   time.Time
	inode   uint64
	ctime   int64
	settled bool
}

// settleTime is longer than the time stamp granularity of any file system
// that an image may lie on (two seconds for FAT).
const settleTime = 2500 * time.Millisecond

func stampOf(fi os.FileInfo, now time.Time) fileStamp {
	st := fileStamp{size: fi.Size(), mtime: fi.ModTime()}
	st.inode, st.ctime = inodeOf(fi)
	newest := st.mtime
	if c := time.Unix(0, st.ctime); st.ctime != 0 && c.After(newest) {
		newest = c
	}
	st.settled = now.Sub(newest) > settleTime
	return st
}

// same reports whether a file that had the settled stamp a still has it.
func (a fileStamp) same(b fileStamp) bool {
	return a.settled && a.size == b.size && a.mtime.Equal(b.mtime) && a.inode == b.inode && a.ctime == b.ctime
}

// readIndex returns the store's index; an empty one if there is no store. The
// caller does not change it.
func (l *layout) readIndex() (*v1.IndexManifest, error) {
	f, err := os.Open(filepath.Join(l.dir, "index.json"))
	if isAbsent(err) {
		return &v1.IndexManifest{SchemaVersion: 2}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	stamp := stampOf(fi, time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index != nil && l.stamp.same(stamp) {
		return l.index, nil
	}
	raw, err := readAtMost(f, maxIndexBytes)
	if err != nil {
		return nil, fmt.Errorf("image store: %s: %w", f.Name(), err)
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("image store: %s: %w", f.Name(), err)
	}
	l.index, l.stamp = index, stamp
	return index, nil
}

func parseIndex(raw []byte) (*v1.IndexManifest, error) {
	index := &v1.IndexManifest{}
	if err := json.Unmarshal(raw, index); err != nil {
		return nil, fmt.Errorf("not an OCI image index: %w", err)
	}
	return index, nil
}

// find returns the descriptor that the store has under the given name.
func (l *layout) find(n name) (v1.Descriptor, bool, error) {
	index, err := l.readIndex()
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	desc, ok := findIn(index, n)
	return desc, ok, nil
}

func findIn(index *v1.IndexManifest, n name) (v1.Descriptor, bool) {
	for _, desc := range index.Manifests {
		ref := desc.Annotations[annotationRefName]
		switch {
		case n.digest == "" && ref == n.full:
			return desc, true
		case n.digest != "" && desc.Digest.String() == n.digest && repositoryOf(ref) == n.repository:
			return desc, true
		}
	}
	return v1.Descriptor{}, false
}

// repositoryOf returns the normalised repository of a reference in an index,
// or nothing if it is not one of ours: other tools write bare tags there.
func repositoryOf(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return named.Name()
}

func (l *layout) blobPath(h v1.Hash) string {
	return filepath.Join(l.dir, "blobs", h.Algorithm, h.Hex)
}

// readBlob returns a small blob, verified.
func (l *layout) readBlob(desc v1.Descriptor) ([]byte, error) {
	if desc.Digest.Algorithm != "sha256" {
		return nil, fmt.Errorf("digest %q: only sha256 is supported", desc.Digest)
	}
	f, err := os.Open(l.blobPath(desc.Digest))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	defer f.Close()
	raw, err := readAtMost(f, maxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if got := digestOf(raw); got != desc.Digest.String() {
		return nil, fmt.Errorf("blob %s is damaged: its content has the digest %s", desc.Digest, got)
	}
	return raw, nil
}

// check notices the cheap half of what can be wrong with a blob: that it is
// missing or has another size than its descriptor says.
func (l *layout) check(desc v1.Descriptor) error {
	if desc.Digest.Algorithm != "sha256" {
		return fmt.Errorf("digest %q: only sha256 is supported", desc.Digest)
	}
	fi, err := os.Stat(l.blobPath(desc.Digest))
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if !fi.Mode().IsRegular() || fi.Size() != desc.Size {
		return fmt.Errorf("blob %s is damaged: it has %d bytes and should have %d", desc.Digest, fi.Size(), desc.Size)
	}
	return nil
}

var errTooLarge = errors.New("too large")

// readAtMost reads all of r, which must not hold more than most bytes.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
	}
	return b.Bytes(), nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
