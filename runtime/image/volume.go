package image

import (
	"bytes"
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// noModuleError says that an image holds nothing that can be started.
type noModuleError struct{ error }

func (e *noModuleError) Unwrap() error { return e.error }

type volumeKey struct{}

// forVolume has images be looked at as volumes.
func forVolume(ctx context.Context) context.Context {
	return context.WithValue(ctx, volumeKey{}, true)
}

// VolumeImage finds the image that ref names, which Ensure has had present.
func (s *Service) VolumeImage(ctx context.Context, ref string) (Image, error) {
	img, c, err := s.lookup(forVolume(ctx), ref)
	if err == nil && c == nil {
		err = &Error{Reason: ReasonErrImagePull, Message: s.absent(ref)}
	}
	return img, err
}

// VolumeRoot returns the files of an image as Root does, and those that are modules,
// too: what a container of the image would be started from is a file like any other
// where the image is a volume (VOL-40).
func (s *Service) VolumeRoot(ctx context.Context, img Image, copies string) (*Root, error) {
	c, err := s.locate(forVolume(ctx), img)
	if err != nil {
		return nil, err
	}
	switch content := c.(type) {
	case *inspection:
		all := *content
		all.volume, all.entry = true, entry{layer: -1, record: -1}
		c = &all
	case dirContent:
		c = dirContent{dir: content.dir}
	case fileContent:
		c = volumeFile(content)
	}
	return s.root(ctx, c, img, copies)
}

// volumeFile is a module alone, as a file.
type volumeFile string

func (c volumeFile) module(ctx context.Context, lim limits) ([]byte, error) {
	return fileContent(c).module(ctx, lim)
}

func (c volumeFile) unpack(ctx context.Context, u *unpacker) error {
	f, err := os.Open(string(c))
	if err != nil {
		return err
	}
	defer f.Close()
	return u.file(filepath.Base(string(c)), 0o644, time.Time{}, contextReader{ctx, f})
}

// annotationTitle is the name of a file that is a layer of an artifact.
const annotationTitle = "org.opencontainers.image.title"

// hasRaw says that a layer of a volume is a file itself.
func (ins *inspection) hasRaw() bool {
	return ins.volume && slices.ContainsFunc(ins.layers, isWasmLayer)
}

// unpackRaw writes the layers that are files themselves.
func (ins *inspection) unpackRaw(ctx context.Context, u *unpacker) error {
	for i, l := range ins.layers {
		if !isWasmLayer(l) {
			continue
		}
		name := path.Base(l.Annotations[annotationTitle])
		if clean, err := cleanEntryName(name); err != nil || clean == "" || clean != name {
			name = entryFile
		}
		layer := *ins
		layer.entry = entry{layer: i, raw: true, digest: l.Digest.String()}
		b, err := ins.service.readModule(ctx, &layer, l.Digest.String())
		if err != nil {
			return err
		}
		if err := u.file(name, 0o644, time.Time{}, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}
