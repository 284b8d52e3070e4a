package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Verify reads the whole store at Root: every blob has the content that its
// name says, every image has all its blobs and a module, every unpacked layer
// that is in use is what was unpacked. It changes nothing. The error says
// everything that is wrong.
func (s *Service) Verify(ctx context.Context) error {
	l, lock, err := s.lockStore(ctx)
	if err != nil {
		return err
	}
	defer lock.release()
	var errs []error
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	blobs, err := os.ReadDir(filepath.Join(l.dir, "blobs", "sha256"))
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	for _, b := range blobs {
		if err := l.verify(ctx, v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: b.Name()}}); err != nil {
			errs = append(errs, err)
		}
	}
	for _, d := range index.Manifests {
		ref := d.Annotations[annotationRefName]
		if err := s.verifyImage(ctx, l, d); err != nil {
			errs = append(errs, fmt.Errorf("image %q: %w", ref, err))
		}
	}
	layers, _ := os.ReadDir(filepath.Join(l.dir, layersDir))
	for _, d := range layers {
		if strings.Contains(d.Name(), "-") {
			continue // damaged, replaced, and still shown by a container
		}
		if err := s.verifyLayer(ctx, filepath.Join(l.dir, layersDir, d.Name())); err != nil {
			errs = append(errs, fmt.Errorf("unpacked layer %s: %w", d.Name(), err))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

func (s *Service) verifyImage(ctx context.Context, l *layout, d v1.Descriptor) error {
	desc, err := selectManifest(l, d, 0)
	if err != nil {
		return err
	}
	raw, err := l.readBlob(desc)
	if err != nil {
		return err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for _, b := range append(m.Layers, m.Config) {
		if err := l.check(b); err != nil {
			return err
		}
	}
	ins, err := s.inspectManifest(ctx, l, d)
	if err != nil {
		return err
	}
	if ins.noModule != nil {
		return nil
	}
	_, err = s.readModule(ctx, ins, ins.image.Module)
	return err
}

// verifyLayer compares the content of an unpacked layer with its checksums. One
// of an earlier boot is not looked at: it would be unpacked again.
func (s *Service) verifyLayer(ctx context.Context, dir string) error {
	records, err := readRecords(dir, s.limits)
	if errors.Is(err, errStale) {
		if _, serr := os.Stat(filepath.Join(dir, recordsFile)); serr == nil {
			return nil
		}
		return err
	}
	for i, r := range records {
		if r.Type != '0' {
			continue
		}
		f, err := os.Open(contentPath(dir, i))
		if err != nil {
			return err
		}
		sum := crc32.New(castagnoli)
		n, err := io.Copy(sum, contextReader{ctx, f})
		f.Close()
		if err != nil {
			return err
		}
		if n != r.Size || sum.Sum32() != r.CRC {
			return fmt.Errorf("file %q is damaged", clip(r.Name))
		}
	}
	return nil
}
