package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Load brings the images of an archive into the store at Root: an oci-archive
// or docker-archive, compressed or not, at file; the content of r, if that is
// not nil; or an OCI image layout, if file is a directory. names, if any, are
// given to the one image that it then must hold. Everything is verified; the
// images appear completely or not at all.
func (s *Service) Load(ctx context.Context, file string, r io.Reader, names ...string) ([]Image, error) {
	var given []name
	for _, ref := range names {
		n, err := parseTag(ref)
		if err != nil {
			return nil, err
		}
		given = append(given, n)
	}
	st, err := s.stage(ctx)
	if err != nil {
		return nil, err
	}
	defer st.close()
	ld := &loader{s: s, ctx: ctx, st: st, blobs: map[string]v1.Hash{}, files: map[v1.Hash]string{}, named: map[string]stagedFile{}}
	if fi, serr := os.Stat(file); r == nil && serr == nil && fi.IsDir() {
		err = ld.layout(file)
	} else {
		err = ld.archive(file, r)
	}
	if err != nil {
		return nil, fmt.Errorf("load images: %w", full(err, file))
	}
	refs, err := ld.names(given)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	err = s.publish(ctx, ld.blobs, func(index *v1.IndexManifest) error {
		for _, ref := range refs {
			if err := ld.complete(ref.desc); err != nil {
				return err
			}
			setRef(index, ref.name.full, ref.desc)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	var images []Image
	for _, ref := range refs {
		img, c, err := s.lookup(ctx, ref.name.full)
		if err == nil && c == nil {
			err = fmt.Errorf("image %q was removed", ref.name.full)
		}
		if err == nil {
			err = s.provesModule(ctx, ref.name.full, ref.name, img, c)
		}
		if err != nil {
			return images, err
		}
		images = append(images, img)
	}
	return images, nil
}

type loader struct {
	s     *Service
	ctx   context.Context
	st    *staging
	blobs map[string]v1.Hash // staged file -> digest, for publish
	files map[v1.Hash]string // the other way
	named map[string]stagedFile
	links map[string]string
	bytes int64

	index  *v1.IndexManifest
	docker []dockerManifest
}

type stagedFile struct {
	digest v1.Hash
	size   int64
	head   []byte
}

type loadedRef struct {
	name name
	desc v1.Descriptor
}

// layout takes over what an OCI image layout's index names.
func (ld *loader) layout(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Open("index.json")
	if err != nil {
		return fmt.Errorf("%s is no OCI image layout: %w", dir, err)
	}
	raw, err := readAtMost(f, maxIndexBytes)
	f.Close()
	if err != nil {
		return err
	}
	if ld.index, err = parseIndex(raw); err != nil {
		return err
	}
	var bring func(d v1.Descriptor, depth int) error
	seen := map[v1.Hash]bool{}
	bring = func(d v1.Descriptor, depth int) error {
		if seen[d.Digest] || depth > maxIndexNesting {
			return nil
		}
		seen[d.Digest] = true
		if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 {
			return fmt.Errorf("blob %q: only sha256 is supported", clip(d.Digest.String()))
		}
		f, err := root.Open("blobs/sha256/" + d.Digest.Hex)
		if isAbsent(err) && depth > 0 {
			return nil // an image for others
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := ld.stageBlob(f, d.Digest.Hex); err != nil {
			return err
		}
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			return nil
		}
		children, err := ld.children(d.Digest)
		if err != nil {
			return err
		}
		for _, c := range children {
			if err := bring(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	for _, d := range ld.index.Manifests {
		if err := bring(d, 0); err != nil {
			return err
		}
	}
	return nil
}

func (ld *loader) children(h v1.Hash) ([]v1.Descriptor, error) {
	raw, err := ld.small(h)
	if err != nil {
		return nil, err
	}
	var m struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("blob %s: %w", h, err)
	}
	list := append(m.Layers, m.Manifests...)
	if m.Config != nil {
		list = append(list, *m.Config)
	}
	return list, nil
}

// small reads a blob from the staging directory, or from the store.
func (ld *loader) small(h v1.Hash) ([]byte, error) {
	file, ok := ld.files[h]
	if !ok {
		return ld.s.stores[0].readBlob(v1.Descriptor{Digest: h})
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, maxManifestBytes)
}

// stageBlob copies a stream to a staged file; want, if not empty, is what its
// digest must be.
func (ld *loader) stageBlob(r io.Reader, want string) (stagedFile, error) {
	f, err := os.CreateTemp(ld.st.dir, "blob-")
	if err != nil {
		return stagedFile{}, err
	}
	defer f.Close()
	sum := sha256.New()
	buf := bufio.NewReaderSize(io.LimitReader(contextReader{ld.ctx, r}, ld.s.limits.imageBytes-ld.bytes+1), 256<<10)
	head, err := buf.Peek(8)
	if err != nil && err != io.EOF {
		return stagedFile{}, err
	}
	head = bytes.Clone(head)
	n, err := io.Copy(io.MultiWriter(f, sum), buf)
	if err != nil {
		return stagedFile{}, err
	}
	if ld.bytes += n; ld.bytes > ld.s.limits.imageBytes {
		return stagedFile{}, fmt.Errorf("%w: more than %d bytes", errTooLarge, ld.s.limits.imageBytes)
	}
	sf := stagedFile{v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, n, head}
	if want != "" && sf.digest.Hex != want {
		return stagedFile{}, fmt.Errorf("blob sha256:%s is damaged: its content has the digest %s", want, sf.digest)
	}
	if err := f.Chmod(0o644); err != nil {
		return stagedFile{}, err
	}
	if err := f.Sync(); err != nil {
		return stagedFile{}, err
	}
	if _, ok := ld.files[sf.digest]; ok {
		return sf, os.Remove(f.Name())
	}
	ld.blobs[f.Name()], ld.files[sf.digest] = sf.digest, f.Name()
	return sf, nil
}

// maxArchiveEntries bounds the work that an archive makes.
const maxArchiveEntries = 100_000

// archive reads a tar archive once, whatever the order of what is in it.
func (ld *loader) archive(file string, r io.Reader) error {
	if r == nil {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	tr, done, _, err := unpackStream(contextReader{ld.ctx, r}, ld.s.limits)
	if err != nil {
		return err
	}
	defer func() { _ = done() }()
	ld.links = map[string]string{}
	for entries := 0; ; entries++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if entries == 0 {
				return fmt.Errorf("%s is neither an oci-archive nor a docker-archive: %w (a module alone becomes an image by 'wasmpod image build -t NAME FILE.wasm')", file, err)
			}
			return err
		}
		if entries > maxArchiveEntries {
			return fmt.Errorf("%w: the archive has more than %d entries", errTooLarge, maxArchiveEntries)
		}
		name := path.Clean("/" + hdr.Name)[1:]
		switch {
		case hdr.Typeflag == tar.TypeSymlink || hdr.Typeflag == tar.TypeLink: // older docker archives
			target := hdr.Linkname
			if hdr.Typeflag == tar.TypeSymlink {
				target = path.Join(path.Dir(name), target)
			}
			ld.links[name] = path.Clean("/" + target)[1:]
		case hdr.Typeflag != tar.TypeReg:
		case name == "index.json":
			raw, err := readAtMost(tr, maxIndexBytes)
			if err != nil {
				return err
			}
			if ld.index, err = parseIndex(raw); err != nil {
				return err
			}
		case name == "manifest.json":
			raw, err := readAtMost(tr, maxManifestBytes)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(raw, &ld.docker); err != nil {
				return fmt.Errorf("manifest.json: %w", err)
			}
		case strings.HasPrefix(name, "blobs/sha256/"):
			sf, err := ld.stageBlob(tr, path.Base(name))
			if err != nil {
				return err
			}
			ld.named[name] = sf
		case strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, ".tar.gz"):
			sf, err := ld.stageBlob(tr, "")
			if err != nil {
				return err
			}
			ld.named[name] = sf
		}
	}
	if ld.index == nil && ld.docker == nil {
		return fmt.Errorf("%s is neither an oci-archive nor a docker-archive: it has no index.json and no manifest.json", file)
	}
	return nil
}

// names says which images the archive holds, and how they will be called.
func (ld *loader) names(given []name) ([]loadedRef, error) {
	var refs []loadedRef
	var unnamed []v1.Descriptor
	add := func(d v1.Descriptor, ref string) {
		if n, err := parseTag(ref); ref != "" && err == nil {
			refs = append(refs, loadedRef{n, d})
		} else {
			unnamed = append(unnamed, d)
		}
	}
	if ld.index != nil {
		for _, d := range ld.index.Manifests {
			if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
				continue
			}
			ref := d.Annotations[annotationContainerdName]
			if ref == "" {
				ref = d.Annotations[annotationRefName]
				if !strings.ContainsAny(ref, ":/") {
					ref = "" // a bare tag says nothing
				}
			}
			add(v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}, ref)
		}
	} else {
		for _, m := range ld.docker {
			d, err := ld.dockerImage(m)
			if err != nil {
				return nil, err
			}
			for _, tag := range m.RepoTags {
				add(d, tag)
			}
			if len(m.RepoTags) == 0 {
				add(d, "")
			}
		}
	}
	if len(given) > 0 {
		digests := map[v1.Hash]v1.Descriptor{}
		for _, r := range refs {
			digests[r.desc.Digest] = r.desc
		}
		for _, d := range unnamed {
			digests[d.Digest] = d
		}
		if len(digests) != 1 {
			return nil, fmt.Errorf("it holds %d images, which cannot all have the name %q", len(digests), given[0].full)
		}
		refs = nil
		for _, d := range digests {
			for _, n := range given {
				refs = append(refs, loadedRef{n, d})
			}
		}
		return refs, nil
	}
	switch {
	case len(unnamed) > 0 && len(refs) == 0:
		return nil, errors.New("its images have no names: give one with -t NAME")
	case len(refs) == 0:
		return nil, errors.New("it holds no image")
	}
	return refs, nil
}

// file finds a file of a docker-archive, through links.
func (ld *loader) file(name string) (stagedFile, bool) {
	name = path.Clean("/" + name)[1:]
	for range maxSymlinksFollowed {
		if sf, ok := ld.named[name]; ok {
			return sf, true
		}
		target, ok := ld.links[name]
		if !ok {
			break
		}
		name = target
	}
	return stagedFile{}, false
}

// dockerImage makes a manifest for an image of a docker-archive, which has
// none.
func (ld *loader) dockerImage(d dockerManifest) (v1.Descriptor, error) {
	cf, ok := ld.file(d.Config)
	if !ok {
		return v1.Descriptor{}, fmt.Errorf("manifest.json names the configuration %q, which is not in the archive", clip(d.Config))
	}
	if len(d.Layers) > maxLayers {
		return v1.Descriptor{}, fmt.Errorf("%d layers; at most %d are supported", len(d.Layers), maxLayers)
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: cf.digest, Size: cf.size},
		Layers: []v1.Descriptor{},
	}
	for _, name := range d.Layers {
		l, ok := ld.file(name)
		if !ok {
			return v1.Descriptor{}, fmt.Errorf("manifest.json names the layer %q, which is not in the archive", clip(name))
		}
		mt := types.OCIUncompressedLayer
		switch {
		case bytes.HasPrefix(l.head, gzipMagic):
			mt = types.OCILayer
		case bytes.HasPrefix(l.head, zstdMagic):
			mt = types.OCILayerZStd
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: mt, Digest: l.digest, Size: l.size})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	sf, err := ld.stageBlob(bytes.NewReader(raw), "")
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: sf.digest, Size: sf.size}, err
}

// complete says what of an image is missing in the store.
func (ld *loader) complete(d v1.Descriptor) error {
	l := ld.s.stores[0]
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
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	for _, b := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := l.check(b); err != nil {
			return fmt.Errorf("the archive is not complete: %w", err)
		}
	}
	return nil
}
