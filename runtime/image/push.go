package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push brings an image of the store to a registry: under its own name, or
// under another one if to is not empty. Blobs that the registry has are not
// sent. It returns the digested reference of what was pushed. What was pulled
// from an index is pushed as the one image of it that is for this node.
func (s *Service) Push(ctx context.Context, ref, to string, progress func(done, total int64)) (string, error) {
	img, _, err := s.stored(ctx, ref)
	if err != nil {
		return "", err
	}
	if to == "" {
		to = ref
	}
	n, err := parseTag(to)
	if err != nil {
		return "", err
	}
	if s.cfg.Registries.Offline {
		return "", fmt.Errorf("push image %q: registries are not to be asked", ref)
	}
	repo, err := s.cfg.Registries.repository(n.repository)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	creds, err := s.credentials(ctx, repo, n.repository, nil)
	if err != nil {
		return "", err
	}
	_, tag, _ := strings.Cut(n.full[len(n.repository):], ":")
	base := &retrying{inner: s.transport(repo), retries: s.cfg.Registries.Retries, registries: &s.cfg.Registries}
	opts := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(base), remote.WithAuth(creds[0].auth),
		remote.WithJobs(s.cfg.Registries.MaxDownloads),
	}
	if progress != nil {
		updates := make(chan v1.Update, 64)
		opts = append(opts, remote.WithProgress(updates))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for u := range updates {
				progress(u.Complete, u.Total)
			}
		}()
		defer func() { <-done }()
	}
	if err := remote.Write(repo.Tag(tag), img, opts...); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("push image %q: %s", ref, explain(to, repo, err))
	}
	return n.repository + "@" + digest.String(), nil
}

// stored returns an image of a store as go-containerregistry sees images, and
// the store.
func (s *Service) stored(ctx context.Context, ref string) (v1.Image, *inspection, error) {
	n, err := parseReference(ref)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range s.stores {
		ins, err := s.inspectNamed(ctx, l, n)
		if err != nil {
			return nil, nil, inspectError(ref, err)
		}
		if ins == nil {
			continue
		}
		img, err := ins.asImage()
		return img, ins, err
	}
	return nil, nil, fmt.Errorf("image %q is not in the local store", ref)
}

// asImage is the manifest that was chosen for this node.
func (ins *inspection) asImage() (v1.Image, error) {
	raw, err := ins.store.readBlob(ins.blobs[0])
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	mt := mediaTypeOf(raw)
	if mt == "" {
		mt = types.OCIManifestSchema1
	}
	return partial.CompressedToImage(&storedImage{store: ins.store, raw: raw, manifest: m, mediaType: mt})
}

// storedImage implements partial.CompressedImageCore.
type storedImage struct {
	store     *layout
	raw       []byte
	manifest  v1.Manifest
	mediaType types.MediaType
}

func (i *storedImage) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *storedImage) MediaType() (types.MediaType, error) { return i.mediaType, nil }
func (i *storedImage) RawConfigFile() ([]byte, error)      { return i.store.readBlob(i.manifest.Config) }
func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]v1.Descriptor{i.manifest.Config}, i.manifest.Layers...) {
		if d.Digest == h {
			return &storedLayer{store: i.store, desc: d}, nil
		}
	}
	return nil, fmt.Errorf("layer %s is not in the image", h)
}

// storedLayer implements partial.CompressedLayer.
type storedLayer struct {
	store *layout
	desc  v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

// Compressed verifies the blob while it is read: a damaged one is an error
// before its last byte is given out.
func (l *storedLayer) Compressed() (io.ReadCloser, error) { return l.store.openBlob(l.desc) }

// openBlob returns a verifying reader of a blob.
func (l *layout) openBlob(desc v1.Descriptor) (io.ReadCloser, error) {
	if err := l.check(desc); err != nil {
		return nil, err
	}
	f, err := os.Open(l.blobPath(desc.Digest))
	if err != nil {
		return nil, err
	}
	hasher, err := v1.Hasher(desc.Digest.Algorithm)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &verifyingReader{f: f, sum: &countingHash{w: io.Discard, sum: hasher}, desc: desc}, nil
}

type verifyingReader struct {
	f    *os.File
	sum  *countingHash
	desc v1.Descriptor
}

func (r *verifyingReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	_, _ = r.sum.Write(p[:n])
	if r.sum.n == r.desc.Size && n > 0 || errors.Is(err, io.EOF) {
		if got := fmt.Sprintf("%x", r.sum.sum.Sum(nil)); got != r.desc.Digest.Hex {
			return 0, fmt.Errorf("blob %s is damaged: its content has the digest sha256:%s", r.desc.Digest, got)
		}
	}
	return n, err
}

func (r *verifyingReader) Close() error { return r.f.Close() }
