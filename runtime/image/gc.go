package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// usedDir has an empty file for each image that was used, by digest: its
// modification time is when.
const (
	usedDir = "used"
	// touchEvery is how exactly the time of the last use is known.
	touchEvery = time.Minute
	// partialAge is how long a download that nobody continues is kept.
	partialAge = 7 * 24 * time.Hour
)

// touch notes that an image is used.
func (s *Service) touch(n name) {
	if s.cfg.Root == "" {
		return
	}
	l := s.stores[0]
	desc, ok, err := l.find(n)
	if err != nil || !ok {
		return
	}
	file := filepath.Join(l.dir, usedDir, desc.Digest.Hex)
	now := time.Now()
	if fi, err := os.Stat(file); err == nil && now.Sub(fi.ModTime()) < touchEvery {
		return
	}
	if os.Chtimes(file, now, now) == nil {
		return
	}
	if os.MkdirAll(filepath.Dir(file), 0o755) == nil {
		_ = os.WriteFile(file, nil, 0o644) // not worth failing for
	}
}

// lastUse is when an image was used, pulled or built last.
func (l *layout) lastUse(desc v1.Descriptor) time.Time {
	var at time.Time
	for _, file := range []string{filepath.Join(l.dir, usedDir, desc.Digest.Hex), l.blobPath(desc.Digest)} {
		if fi, err := os.Stat(file); err == nil && fi.ModTime().After(at) {
			at = fi.ModTime()
		}
	}
	return at
}

// PruneOptions say which images Prune removes. The zero value removes none,
// only what belongs to no image.
type PruneOptions struct {
	// UnusedFor removes images that no container was started from for so long.
	UnusedFor time.Duration
	// All removes images whatever their age.
	All bool
	// ToSize removes images, those unused for longest first, until the store is
	// not larger; zero: no limit.
	ToSize int64
	// MinAge keeps images from ToSize that were used more recently.
	MinAge time.Duration
	// InUse are names and digested references (Image.ID) that are kept in any case.
	InUse []string
	// PulledOnly keeps images that were built or loaded here: no registry could
	// give them back.
	PulledOnly bool
	// DryRun removes nothing, and reports what it would.
	DryRun bool
}

// Pruned is what Prune removed.
type Pruned struct {
	Images []string `json:"images"` // names
	Bytes  int64    `json:"bytes"`  // by which the store became smaller
}

// Prune removes images of the store at Root that are not needed any more, and
// downloads, unpacked layers and blobs that belong to no image. Layers that a
// running container shows stay until it has ended.
func (s *Service) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	l, lock, err := s.lockStore(ctx)
	if err != nil {
		return Pruned{}, err
	}
	defer lock.release()
	index, err := l.readIndex()
	if err != nil {
		return Pruned{}, err
	}
	before, err := l.size(ctx)
	if err != nil {
		return Pruned{}, err
	}
	now := time.Now()
	images := slices.Clone(index.Manifests)
	slices.SortStableFunc(images, func(a, b v1.Descriptor) int { return l.lastUse(a).Compare(l.lastUse(b)) })
	keep := map[string]bool{} // digests and names
	for _, id := range o.InUse {
		if n, err := parseReference(id); err == nil && n.digest != "" {
			keep[n.digest] = true
		} else if err == nil {
			keep[n.full] = true
		}
	}
	var pruned Pruned
	gone := map[string]bool{}
	remaining := before
	for _, d := range images {
		age := now.Sub(l.lastUse(d))
		if keep[d.Digest.String()] || keep[d.Annotations[annotationRefName]] || o.PulledOnly && d.Annotations[annotationPulled] == "" {
			continue
		}
		old := o.All || o.UnusedFor > 0 && age >= o.UnusedFor
		large := o.ToSize > 0 && remaining > o.ToSize && age >= o.MinAge
		if !old && !large {
			continue
		}
		ref := d.Annotations[annotationRefName]
		pruned.Images = append(pruned.Images, ref)
		gone[ref] = true
		if n, err := l.reclaimable(index, gone); err == nil {
			remaining = before - n
		}
	}
	if o.DryRun {
		pruned.Bytes = before - remaining
		return pruned, nil
	}
	if len(gone) > 0 {
		err = l.changeIndex(func(index *v1.IndexManifest) error {
			for ref := range gone {
				dropRef(index, ref)
			}
			return nil
		})
		if err != nil {
			return Pruned{}, err
		}
	}
	sweep(l)
	if err := l.collectGarbage(ctx); err != nil {
		return pruned, err
	}
	l.sweepPartial(now.Add(-partialAge))
	after, err := l.size(ctx)
	pruned.Bytes = max(0, before-after)
	return pruned, err
}

// reclaimable is how many bytes of blobs and unpacked layers only the images
// that go refer to.
func (l *layout) reclaimable(index *v1.IndexManifest, gone map[string]bool) (int64, error) {
	kept, lost := map[v1.Hash]bool{}, map[v1.Hash]bool{}
	for _, d := range index.Manifests {
		marks := kept
		if gone[d.Annotations[annotationRefName]] {
			marks = lost
		}
		if err := l.mark(d, marks, 0); err != nil {
			return 0, err
		}
	}
	var n int64
	for h := range lost {
		if _, ok := kept[h]; ok {
			continue
		}
		if fi, err := os.Stat(l.blobPath(h)); err == nil {
			n += fi.Size()
		}
		n += dirSize(filepath.Join(l.dir, layersDir, h.Hex))
	}
	return n, nil
}

// sweepPartial removes downloads that nobody has continued since.
func (l *layout) sweepPartial(before time.Time) {
	dir := filepath.Join(l.dir, partialDir)
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		fi, err := f.Info()
		if err != nil || fi.ModTime().After(before) {
			continue
		}
		file := filepath.Join(dir, f.Name())
		if lock, busy, err := tryLock(file); err == nil && !busy {
			_ = os.Remove(file)
			lock.release()
		}
	}
}

// size is how many bytes the store has on disk.
func (l *layout) size(ctx context.Context) (int64, error) {
	return dirSize(l.dir), ctx.Err()
}

func dirSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what goes away meanwhile does not count
		}
		if fi, err := d.Info(); err == nil {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// Usage says how full the file system is that the store at Root is on, and how
// large the store.
func (s *Service) Usage(ctx context.Context) (store, free, capacity int64, err error) {
	if s.cfg.Root == "" {
		return 0, 0, 0, errNoStore
	}
	if free, capacity, err = diskOf(s.stores[0].dir); err != nil {
		return 0, 0, 0, err
	}
	store, err = s.stores[0].size(ctx)
	return store, free, capacity, err
}

// diskOf looks at the file system of a directory that may not exist yet.
func diskOf(dir string) (free, capacity int64, err error) {
	for {
		var st syscall.Statfs_t
		if err = syscall.Statfs(dir, &st); err == nil {
			return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
		}
		up := filepath.Dir(dir)
		if !isAbsent(err) || up == dir {
			return 0, 0, fmt.Errorf("image store: %w", err)
		}
		dir = up
	}
}

// Thresholds of the automatic collection, as the kubelet has them: when the
// file system is fuller than High percent, images are removed, those unused for
// longest first, until it is not fuller than Low. The zero value collects nothing.
type Thresholds struct {
	High, Low int // percent; High 0 or 100 disables
	// MinAge is how long an image is kept after its last use.
	MinAge time.Duration
	// MaxAge removes images unused for so long, however much space there is;
	// zero: never.
	MaxAge time.Duration
}

// Enabled says whether there is anything to collect by.
func (t Thresholds) Enabled() bool { return t.full() || t.MaxAge > 0 }

func (t Thresholds) full() bool { return t.High > 0 && t.High < 100 }

// Check says what is wrong with thresholds.
func (t Thresholds) Check() error {
	switch {
	case t.High < 0 || t.High > 100 || t.Low < 0 || t.Low > 100:
		return fmt.Errorf("thresholds are percentages: %d and %d are not", t.High, t.Low)
	case t.full() && t.Low >= t.High:
		return fmt.Errorf("the low threshold %d has to be below the high one, %d", t.Low, t.High)
	case t.MinAge < 0 || t.MaxAge < 0:
		return errors.New("ages cannot be negative")
	case t.MaxAge > 0 && t.MaxAge < t.MinAge:
		return fmt.Errorf("the maximum age %v has to be above the minimum, %v", t.MaxAge, t.MinAge)
	}
	return nil
}

// Collected is what Collect did. Wanted is how much was to be freed so that the
// file system is not fuller than Low; where Bytes is less, there was nothing else
// that may be removed.
type Collected struct {
	Pruned
	Wanted int64
}

// Collect applies thresholds once. inUse is as PruneOptions.InUse; images that
// nobody pulled are kept too.
func (s *Service) Collect(ctx context.Context, t Thresholds, inUse []string) (Collected, error) {
	if s.cfg.Root == "" {
		return Collected{}, errNoStore
	}
	dir := s.stores[0].dir
	if _, err := os.Stat(filepath.Join(dir, "index.json")); isAbsent(err) {
		return Collected{}, nil // nothing has been pulled yet
	}
	free, capacity, err := s.disk(dir)
	if err != nil {
		return Collected{}, err
	}
	o := PruneOptions{UnusedFor: t.MaxAge, MinAge: t.MinAge, InUse: inUse, PulledOnly: true}
	var c Collected
	if used := capacity - free; capacity > 0 && t.full() && used >= capacity/100*int64(t.High) {
		store, err := s.stores[0].size(ctx)
		if err != nil {
			return Collected{}, err
		}
		c.Wanted = used - capacity/100*int64(t.Low)
		o.ToSize = max(1, store-c.Wanted)
	}
	if o.UnusedFor == 0 && o.ToSize == 0 {
		return Collected{}, nil
	}
	c.Pruned, err = s.Prune(ctx, o)
	return c, err
}

// Touch notes that images are in use, so that other processes on the same store
// do not take them for unused. ids are as PruneOptions.InUse.
func (s *Service) Touch(ids []string) {
	for _, id := range ids {
		if n, err := parseReference(id); err == nil {
			s.touch(n)
		}
	}
}

// sweepUsed forgets when images were used that are not here any more.
func (l *layout) sweepUsed(keep map[v1.Hash]bool) {
	for _, sub := range []string{usedDir, layersDir} {
		dir := filepath.Join(l.dir, sub)
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if _, ok := keep[v1.Hash{Algorithm: "sha256", Hex: e.Name()}]; ok {
				continue
			}
			lock, busy := leaseAll(filepath.Join(dir, e.Name()))
			if busy {
				continue // a container shows it
			}
			// Away in one step: what lies under a name is complete.
			away := filepath.Join(l.dir, tmpDir, "gone-"+strings.TrimPrefix(e.Name(), "."))
			_ = os.MkdirAll(filepath.Dir(away), 0o755)
			_ = os.RemoveAll(away)
			if os.Rename(filepath.Join(dir, e.Name()), away) == nil {
				_ = os.RemoveAll(away)
			}
			lock.release()
		}
	}
}
