package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Module returns the entry module with the given digest, of an image that was
// resolved before or that lies in a store. The bytes are verified on every
// call. The error is an *Error unless ctx ended.
func (s *Service) Module(ctx context.Context, digest string) ([]byte, error) {
	s.mu.Lock()
	c := s.modules[digest]
	s.mu.Unlock()
	var first error
	if c != nil {
		b, err := s.readModule(ctx, c, digest)
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		first = err
		s.mu.Lock()
		if s.modules[digest] == c {
			delete(s.modules, digest)
		}
		s.mu.Unlock()
	}
	// The place is not known, or the image there was removed or replaced; the
	// same module may lie elsewhere.
	for _, l := range s.stores {
		index, err := l.readIndex()
		if err != nil {
			first = firstOf(first, err)
			continue
		}
		for _, desc := range index.Manifests {
			ins, err := s.inspect(ctx, l, desc)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil || ins.image.Module != digest || content(ins) == c {
				continue
			}
			if b, err := s.readModule(ctx, ins, digest); err == nil || ctx.Err() != nil {
				return b, err
			}
		}
	}
	return nil, inspectError("module "+digest, firstOf(first, errors.New("no image that is known here holds it")))
}

func firstOf(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

func (s *Service) readModule(ctx context.Context, c content, digest string) ([]byte, error) {
	b, err := c.module(ctx, s.limits)
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != digest {
		return nil, fmt.Errorf("the module is damaged or was replaced: its content has the digest %s", got)
	}
	if err := checkModule(b); err != nil {
		return nil, err
	}
	return b, nil
}

// module implements content.
func (ins *inspection) module(ctx context.Context, lim limits) ([]byte, error) {
	desc := ins.layers[ins.entry.layer]
	if ins.entry.raw {
		f, err := os.Open(ins.store.blobPath(desc.Digest))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readModuleFrom(contextReader{ctx, f}, desc.Size, desc.Size, lim)
	}
	if dir := ins.service.layerDir(desc.Digest); dir != "" && ins.entry.record >= 0 {
		// Where the layer lies unpacked; whatever is wrong with that, the blob has
		// it too, and the caller compares the digest.
		if b, err := os.ReadFile(contentPath(dir, ins.entry.record)); err == nil && digestOf(b) == ins.entry.digest {
			return b, nil
		}
	}
	lr, err := openLayer(ctx, ins.store, desc, lim)
	if err != nil {
		return nil, err
	}
	defer lr.Close()
	for record := 0; ; record++ {
		hdr, err := lr.next()
		if err == io.EOF {
			return nil, fmt.Errorf("layer %s: %s is not in it", desc.Digest, ins.entry.path)
		}
		if err != nil {
			return nil, err
		}
		if ins.entry.record < 0 {
			if name, err := cleanEntryName(hdr.Name); err != nil || name != ins.entry.path {
				continue
			}
		} else if record != ins.entry.record {
			continue
		}
		return readModuleFrom(lr, hdr.Size, desc.Size, lim)
	}
}

// readModuleFrom reads size bytes. Memory is set aside in advance only for
// what the stored bytes can plausibly hold: a header may claim anything.
func readModuleFrom(r io.Reader, size, stored int64, lim limits) ([]byte, error) {
	if size < 0 || size > lim.moduleBytes {
		return nil, fmt.Errorf("the module is %w: %d bytes; at most %d are supported", errTooLarge, size, lim.moduleBytes)
	}
	if size > stored {
		return readAtMost(r, size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("reading the module: %w", err)
	}
	return b, nil
}
