package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Formats of Save.
const (
	FormatOCIArchive    = "oci-archive"    // a tar archive of an OCI image layout
	FormatDockerArchive = "docker-archive" // as docker save and docker load have it
	FormatOCI           = "oci"            // an OCI image layout in a directory
)

// annotationContainerdName is how containerd names images in archives.
const annotationContainerdName = "io.containerd.image.name"

// Save writes images of the store, and what they consist of, to w: the same
// bytes for the same images. Content is verified on the way.
func (s *Service) Save(ctx context.Context, w io.Writer, format string, refs ...string) error {
	images, err := s.savable(ctx, refs)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	switch format {
	case FormatOCIArchive:
		err = saveOCI(ctx, images, func(name string, size int64, r io.Reader) error { return tarFile(tw, name, size, r) })
	case FormatDockerArchive:
		err = saveDocker(ctx, images, tw)
	default:
		return fmt.Errorf("format %q: want %s or %s", format, FormatOCIArchive, FormatDockerArchive)
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

// SaveLayout writes images into an OCI image layout in a directory, which must
// not exist or be empty.
func (s *Service) SaveLayout(ctx context.Context, dir string, refs ...string) error {
	images, err := s.savable(ctx, refs)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("directory %s is not empty", dir)
	}
	return saveOCI(ctx, images, func(name string, size int64, r io.Reader) error {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return full(err, file)
	})
}

type savedImage struct {
	ref string // normalised
	ins *inspection
	top v1.Descriptor // an index, where all of it is here; else the manifest
}

func (s *Service) savable(ctx context.Context, refs []string) ([]savedImage, error) {
	if len(refs) == 0 {
		return nil, errors.New("save: no image is named")
	}
	var list []savedImage
	for _, ref := range refs {
		n, err := parseReference(ref)
		if err != nil {
			return nil, err
		}
		_, ins, err := s.stored(ctx, ref)
		if err != nil {
			return nil, err
		}
		top := ins.blobs[0]
		if mt := top.MediaType; mt == "" {
			top.MediaType = types.OCIManifestSchema1
		}
		top.Annotations, top.Data, top.Platform = nil, nil, nil
		list = append(list, savedImage{n.full, ins, top})
	}
	return list, nil
}

func tarFile(tw *tar.Writer, name string, size int64, r io.Reader) error {
	hdr := header(sourceFile{guest: name, kind: tar.TypeReg, mode: 0o644, size: size})
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	return copyExactly(tw, r, size)
}

func saveOCI(ctx context.Context, images []savedImage, put func(name string, size int64, r io.Reader) error) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	blobs := map[string]func() (io.ReadCloser, int64, error){}
	for _, img := range images {
		d := img.top
		d.Annotations = map[string]string{annotationRefName: img.ref, annotationContainerdName: img.ref}
		index.Manifests = append(index.Manifests, d)
		for _, b := range img.ins.blobs {
			blobs[b.Digest.Hex] = func() (io.ReadCloser, int64, error) {
				r, err := img.ins.store.openBlob(b)
				return r, b.Size, err
			}
		}
	}
	text := func(name, s string) error { return put(name, int64(len(s)), strings.NewReader(s)) }
	if err := text("oci-layout", `{"imageLayoutVersion":"1.0.0"}`+"\n"); err != nil {
		return err
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := text("index.json", string(raw)+"\n"); err != nil {
		return err
	}
	for _, hex := range slices.Sorted(maps.Keys(blobs)) {
		r, size, err := blobs[hex]()
		if err != nil {
			return err
		}
		err = put("blobs/sha256/"+hex, size, contextReader{ctx, r})
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// dockerManifest is an entry of a docker-archive's manifest.json.
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

func saveDocker(ctx context.Context, images []savedImage, tw *tar.Writer) error {
	var list []dockerManifest
	written := map[string]bool{}
	for _, img := range images {
		m := dockerManifest{Layers: []string{}}
		if !strings.Contains(img.ref, "@") {
			m.RepoTags = []string{strings.TrimPrefix(strings.TrimPrefix(img.ref, "docker.io/library/"), "docker.io/")}
		}
		for i, b := range img.ins.blobs[1:] {
			name := b.Digest.Hex + ".json"
			switch {
			case i == 0:
				m.Config = name
			case isWasmLayer(b):
				return fmt.Errorf("image %q: its layer is the module itself, which a docker-archive cannot hold: save it as %s", img.ref, FormatOCIArchive)
			default:
				if name = b.Digest.Hex + ".tar"; strings.HasSuffix(string(b.MediaType), "gzip") {
					name += ".gz"
				}
				m.Layers = append(m.Layers, name)
			}
			if written[name] {
				continue
			}
			written[name] = true
			r, err := img.ins.store.openBlob(b)
			if err != nil {
				return err
			}
			err = tarFile(tw, name, b.Size, contextReader{ctx, r})
			r.Close()
			if err != nil {
				return err
			}
		}
		list = append(list, m)
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return tarFile(tw, "manifest.json", int64(len(raw)), strings.NewReader(string(raw)))
}
