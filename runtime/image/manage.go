package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// List returns the images of all stores in the order of their names, each
// name once: from the store that Resolve would take it from. Images that
// cannot be read are left out and reported by the error.
func (s *Service) List(ctx context.Context) ([]Image, error) {
	var images []Image
	var errs []error
	seen := map[string]bool{}
	for _, l := range s.stores {
		index, err := l.readIndex()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, desc := range index.Manifests {
			ref := desc.Annotations[annotationRefName]
			n, err := parseReference(ref)
			if err != nil || n.full != ref || seen[ref] {
				continue // another tool's name, that nothing here can ask for
			}
			ins, err := s.inspectNamed(ctx, l, n)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				seen[ref] = true
				errs = append(errs, inspectError(ref, err))
				continue
			case ins == nil:
				continue
			}
			seen[ref] = true
			img := ins.image
			img.Ref, img.ID = ref, n.repository+"@"+ins.digest
			images = append(images, img)
		}
	}
	return images, errors.Join(errs...)
}

// Tag gives the image that ref names the further name newRef, which is taken
// from any other image that has it. Both must be names of the store at Root.
func (s *Service) Tag(ctx context.Context, ref, newRef string) error {
	from, err := parseReference(ref)
	if err != nil {
		return err
	}
	to, err := parseTag(newRef)
	if err != nil {
		return err
	}
	return s.publish(ctx, nil, func(index *v1.IndexManifest) error {
		desc, ok := findIn(index, from)
		if !ok {
			return fmt.Errorf("image %q is not in the local store", ref)
		}
		setRef(index, to.full, desc)
		return nil
	})
}

// parseTag parses a name that is to be given to an image: one without digest.
func parseTag(ref string) (name, error) {
	n, err := parseReference(ref)
	if err == nil && n.digest != "" {
		err = &Error{
			Reason:  ReasonInvalidImageName,
			Message: fmt.Sprintf("image name %q: a digest cannot be given to an image, it has one: use a tag", clip(ref)),
		}
	}
	return n, err
}

// Remove takes a name, or with a digest reference all names of the
// repository, from an image in the store at Root, and frees the space of
// images that have no name left. Running containers do not mind.
func (s *Service) Remove(ctx context.Context, ref string) error {
	n, err := parseReference(ref)
	if err != nil {
		return err
	}
	l, lock, err := s.lockStore(ctx)
	if err != nil {
		return err
	}
	defer lock.release()
	err = l.changeIndex(func(index *v1.IndexManifest) error {
		found := false
		for {
			desc, ok := findIn(index, n)
			if !ok {
				break
			}
			found = dropRef(index, desc.Annotations[annotationRefName])
		}
		if !found {
			return fmt.Errorf("image %q is not in the local store", ref)
		}
		return nil
	})
	if err != nil {
		return err
	}
	sweep(l)
	return l.collectGarbage(ctx)
}

// collectGarbage removes the blobs that no image refers to. The lock is held.
func (l *layout) collectGarbage(ctx context.Context) error {
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	keep := map[v1.Hash]bool{}
	for _, desc := range index.Manifests {
		if err := l.mark(desc, keep, 0); err != nil {
			// What a damaged image refers to is not known: keep everything.
			return fmt.Errorf("image store: space was not reclaimed, as the image %q is damaged: %w", desc.Annotations[annotationRefName], err)
		}
	}
	dir := filepath.Join(l.dir, "blobs", "sha256")
	blobs, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, ok := keep[v1.Hash{Algorithm: "sha256", Hex: b.Name()}]; ok {
			continue
		}
		if err := os.Remove(filepath.Join(dir, b.Name())); err != nil && !isAbsent(err) {
			return fmt.Errorf("image store: %w", err)
		}
	}
	l.sweepUsed(keep)
	return nil
}

// mark marks what desc refers to: true for what has been followed, false for
// what is only kept.
func (l *layout) mark(desc v1.Descriptor, keep map[v1.Hash]bool, depth int) error {
	if keep[desc.Digest] {
		return nil
	}
	keep[desc.Digest] = true
	if depth > maxIndexNesting || (!desc.MediaType.IsImage() && !desc.MediaType.IsIndex()) {
		return nil
	}
	raw, err := l.readBlob(desc)
	if isAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var m struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		if _, ok := keep[blob.Digest]; !ok {
			keep[blob.Digest] = false
		}
	}
	for _, child := range m.Manifests {
		if err := l.mark(child, keep, depth+1); err != nil {
			return err
		}
	}
	return nil
}
