package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	corev1 "k8s.io/api/core/v1"
)

// Progress is how far a pull or a push has come with one blob.
type Progress struct {
	Blob        string // digest
	Done, Total int64  // bytes
	// Present: the blob was there before, and nothing is transferred.
	Present bool
}

// PullOptions are for one pull. The zero value pulls with what the host knows
// to log in with.
type PullOptions struct {
	// Secrets are imagePullSecrets, tried before the host's own credentials.
	Secrets []*corev1.Secret
	// OnProgress, if not nil, is called often and concurrently.
	OnProgress func(Progress)
	// Verify reads blobs that are there already, and replaces damaged ones.
	Verify bool
	// Operator makes the image one that every pod may use, whatever it was
	// pulled with.
	Operator bool
}

// manifestTimeout bounds the requests for what is small.
const manifestTimeout = 2 * time.Minute

// maxPullTries is how often a pull begins anew because another process has
// removed, meanwhile, what was there when it began.
const maxPullTries = 4

// Pull brings an image from its registry into the store at Root, whether it is
// there already or not. Nothing is downloaded that the store has. Content is
// verified while it arrives; a blob whose download breaks is continued, also by
// a later pull or another process. The image appears under its name completely
// or not at all. The error is an *Error unless ctx ended.
func (s *Service) Pull(ctx context.Context, ref string, opts PullOptions) (Image, error) {
	n, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if opts.OnProgress == nil {
		opts.OnProgress = func(Progress) {}
	}
	err = s.pull(ctx, n, ref, opts)
	if ctx.Err() != nil {
		return Image{}, context.Cause(ctx)
	}
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return Image{}, e
		}
		text := err.Error()
		if !strings.Contains(text, ref) {
			text = fmt.Sprintf("failed to pull image %q: %s", ref, text)
		}
		return Image{}, &Error{Reason: ReasonErrImagePull, Message: text, Err: err}
	}
	img, c, err := s.lookup(ctx, n.full)
	switch {
	case err == nil && c == nil, isAbsent(err):
		return Image{}, removedMeanwhile(ref)
	case err != nil:
		return Image{}, err
	}
	return img, s.provesModule(ctx, ref, n, img, c)
}

func removedMeanwhile(ref string) error {
	return &Error{Reason: ReasonErrImagePull, Message: fmt.Sprintf("image %q was removed while it was pulled", ref)}
}

// provesModule makes sure that an image which came from outside holds the
// module that it says is its: code is kept and found by that digest, and an
// image must not get at another's by naming it.
func (s *Service) provesModule(ctx context.Context, ref string, n name, img Image, c content) error {
	_, err := s.readModule(ctx, c, img.Module)
	switch {
	case err == nil, ctx.Err() != nil:
		return err
	case isAbsent(err): // another process is at it
		return removedMeanwhile(ref)
	}
	_ = s.publish(ctx, nil, func(index *v1.IndexManifest) error {
		dropRef(index, n.full)
		return nil
	})
	return &Error{Reason: ReasonErrImagePull, Message: fmt.Sprintf("image %q: %v", ref, err), Err: err}
}

func (s *Service) pull(ctx context.Context, n name, ref string, opts PullOptions) error {
	if s.cfg.Root == "" {
		return errNoStore
	}
	if s.cfg.Registries.Offline {
		return errors.New(s.absent(ref))
	}
	sources, err := s.cfg.Registries.sources(n.repository)
	if err != nil {
		return err
	}
	var why []string
	var unsigned *signatureError
	for _, repo := range sources {
		creds, err := s.credentials(ctx, repo, n.repository, opts.Secrets)
		if err != nil {
			return err
		}
		for _, c := range creds {
			err := s.pullFrom(ctx, n, ref, repo, c, opts)
			if err == nil || ctx.Err() != nil {
				return err
			}
			if fatal := (*unsuitableError)(nil); errors.As(err, &fatal) {
				return err
			}
			_ = errors.As(err, &unsigned)
			why = append(why, explain(ref, repo, err))
		}
	}
	if unsigned != nil {
		return unsigned.refused(ref)
	}
	return errors.New(strings.Join(dedupe(why), "; "))
}

func dedupe(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// unsuitableError is about the image, and every registry would give the same.
type unsuitableError struct{ error }

func (e *unsuitableError) Unwrap() error { return e.error }

// pullFrom pulls an image from one registry with one credential.
func (s *Service) pullFrom(ctx context.Context, n name, ref string, repo ggcr.Repository, c credential, opts PullOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sess, err := s.dialWithin(ctx, repo, c, transport.PullScope)
	if err != nil {
		return err
	}
	p := &puller{s: s, sess: sess, ref: ref, name: n, opts: opts, store: s.stores[0], slots: s.downloads()}
	if err := p.describe(ctx); err != nil {
		return err
	}
	if p.signed, err = p.verifySignature(ctx); err != nil {
		return err
	}
	for range maxPullTries {
		err = p.transfer(ctx, c)
		if !errors.Is(err, errVanished) {
			return err
		}
	}
	return err
}

// dialWithin bounds the time for logging in.
func (s *Service) dialWithin(ctx context.Context, repo ggcr.Repository, c credential, scope string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	return s.dial(ctx, repo, c.auth, scope)
}

// downloads returns the places for blobs under way, of all pulls together.
func (s *Service) downloads() chan struct{} {
	s.slotsOnce.Do(func() { s.slots = make(chan struct{}, s.cfg.Registries.MaxDownloads) })
	return s.slots
}

// puller pulls one image.
type puller struct {
	s     *Service
	sess  *session
	ref   string
	name  name
	opts  PullOptions
	store *layout
	slots chan struct{}

	top      v1.Descriptor      // what the reference names: an index or an image
	small    map[v1.Hash][]byte // indexes, manifest and configuration
	manifest v1.Manifest
	config   v1.ConfigFile
	signed   string // digest of the key that it is signed with
}

// describe reads everything that is small: what the reference names, down to
// the configuration of the image for this node. An image that cannot run here
// is refused before its layers are downloaded.
func (p *puller) describe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	p.small = map[v1.Hash][]byte{}
	id := p.name.digest
	if id == "" {
		_, id, _ = strings.Cut(p.name.full[len(p.name.repository):], ":")
	}
	desc, raw, err := p.getManifest(ctx, id)
	if err != nil {
		return err
	}
	p.top = desc
	for depth := 0; desc.MediaType.IsIndex(); depth++ {
		if depth >= maxIndexNesting {
			return &unsuitableError{errors.New("image indexes are nested too deep")}
		}
		index, err := parseIndex(raw)
		if err != nil {
			return err
		}
		next, err := bestForPlatform(index.Manifests)
		if err != nil {
			// Perhaps one for Linux that holds a module all the same.
			var ok bool
			if next, ok = nativeCandidate(index.Manifests); !ok {
				return p.unsuitable(offeredPlatforms(index.Manifests))
			}
		}
		if desc, raw, err = p.getManifest(ctx, next.Digest.String()); err != nil {
			return err
		}
	}
	if !desc.MediaType.IsImage() {
		return &unsuitableError{fmt.Errorf("image %q: the registry has a %q of that name, which is no image", p.ref, clip(string(desc.MediaType)))}
	}
	if err := json.Unmarshal(raw, &p.manifest); err != nil {
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	if len(p.manifest.Layers) > maxLayers {
		return &unsuitableError{fmt.Errorf("manifest %s: %d layers; at most %d are supported", desc.Digest, len(p.manifest.Layers), maxLayers)}
	}
	var total int64
	for _, d := range append([]v1.Descriptor{p.manifest.Config}, p.manifest.Layers...) {
		if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 || d.Size < 0 {
			return &unsuitableError{fmt.Errorf("manifest %s: the blob %q cannot be pulled: only sha256 is supported", desc.Digest, clip(d.Digest.String()))}
		}
		if total += d.Size; d.Size > p.s.limits.imageBytes || total > p.s.limits.imageBytes {
			return &unsuitableError{fmt.Errorf("image %q: %w: more than %d bytes", p.ref, errTooLarge, p.s.limits.imageBytes)}
		}
	}
	if err := p.readConfig(ctx); err != nil {
		return err
	}
	if isComponent(&p.config) {
		return &unsuitableError{fmt.Errorf("image %q holds a WebAssembly component (%s); only core modules of WASI preview 1 can run here: build it for wasip1", p.ref, clip(p.config.OS))}
	}
	if isNative(&p.manifest, &p.config) {
		return p.unsuitable([]string{p.config.OS + "/" + p.config.Architecture})
	}
	return nil
}

func (p *puller) getManifest(ctx context.Context, id string) (v1.Descriptor, []byte, error) {
	var ref ggcr.Reference = p.sess.repo.Tag(id)
	var want v1.Hash
	if strings.Contains(id, ":") {
		ref = p.sess.repo.Digest(id)
		var err error
		if want, err = v1.NewHash(id); err != nil || want.Algorithm != "sha256" {
			return v1.Descriptor{}, nil, &unsuitableError{fmt.Errorf("digest %q: only sha256 is supported", clip(id))}
		}
		// Indexes and manifests are content: what is here is not asked for.
		if raw, err := p.store.readBlob(v1.Descriptor{Digest: want}); err == nil {
			if mt := mediaTypeOf(raw); mt.IsImage() || mt.IsIndex() {
				p.small[want] = raw
				return v1.Descriptor{MediaType: mt, Digest: want, Size: int64(len(raw))}, raw, nil
			}
		}
	}
	d, err := remote.Get(ref, remote.WithContext(ctx), remote.WithTransport(p.sess.trip))
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	if len(d.Manifest) > maxManifestBytes {
		return v1.Descriptor{}, nil, &unsuitableError{fmt.Errorf("manifest %s: %w: more than %d bytes", d.Digest, errTooLarge, maxManifestBytes)}
	}
	desc := v1.Descriptor{MediaType: d.MediaType, Size: int64(len(d.Manifest)), Platform: d.Platform}
	if mt := mediaTypeOf(d.Manifest); mt != "" {
		desc.MediaType = mt // what the content says was verified, unlike the header
	}
	desc.Digest, _ = v1.NewHash(digestOf(d.Manifest))
	if want.Hex != "" && desc.Digest != want {
		return v1.Descriptor{}, nil, fmt.Errorf("manifest %s: the registry sent content with the digest %s", want, desc.Digest)
	}
	p.small[desc.Digest] = d.Manifest
	return desc, d.Manifest, nil
}

func mediaTypeOf(raw []byte) types.MediaType {
	var m struct {
		MediaType types.MediaType  `json:"mediaType"`
		Manifests []v1.Descriptor  `json:"manifests"`
		Config    *json.RawMessage `json:"config"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	switch {
	case m.MediaType != "":
		return m.MediaType
	case m.Manifests != nil:
		return types.OCIImageIndex
	case m.Config != nil:
		return types.OCIManifestSchema1
	}
	return ""
}

func (p *puller) readConfig(ctx context.Context) error {
	desc := p.manifest.Config
	raw, err := p.store.readBlob(desc)
	if err != nil {
		if desc.Size > maxManifestBytes {
			return &unsuitableError{fmt.Errorf("configuration %s: %w: %d bytes", desc.Digest, errTooLarge, desc.Size)}
		}
		if raw, err = p.sess.get(ctx, p.sess.blobURL(desc.Digest), maxManifestBytes); err != nil {
			return err
		}
		if got := digestOf(raw); got != desc.Digest.String() || int64(len(raw)) != desc.Size {
			return fmt.Errorf("configuration %s: the registry sent content with the digest %s", desc.Digest, got)
		}
	}
	p.small[desc.Digest] = raw
	if err := json.Unmarshal(raw, &p.config); err != nil {
		return &unsuitableError{fmt.Errorf("configuration %s: %w", desc.Digest, err)}
	}
	return nil
}

func (s *session) get(ctx context.Context, url string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	return readAtMost(resp.Body, most)
}

// errVanished: another process has removed blobs that were there.
var errVanished = errors.New("blobs were removed from the store while the image was pulled")

// transfer downloads what is missing, unpacks it on the way, and publishes the
// image.
func (p *puller) transfer(ctx context.Context, c credential) error {
	st, err := p.s.stage(ctx)
	if err != nil {
		return err
	}
	defer st.close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	unpacked := map[v1.Hash]string{}
	seen := map[v1.Hash]bool{}
	for _, desc := range p.manifest.Layers {
		if seen[desc.Digest] {
			continue
		}
		seen[desc.Digest] = true
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-p.slots }()
			dir, err := p.layer(ctx, st, desc)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if first == nil && ctx.Err() == nil {
					first = err
				}
				cancel(err) // the others are not worth waiting for
				return
			}
			if dir != "" {
				unpacked[desc.Digest] = dir
			}
		})
	}
	wg.Wait()
	switch {
	case first != nil:
		return first
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	blobs := map[string]v1.Hash{}
	for h, raw := range p.small {
		file, err := st.write(h.Hex, raw)
		if err != nil {
			return err
		}
		blobs[file] = h
	}
	p.s.mu.Lock()
	for d := range seen { // they may have been damaged, and are not any more
		delete(p.s.modules, d.String())
	}
	p.s.mu.Unlock()
	err = p.s.publish(ctx, blobs, func(index *v1.IndexManifest) error {
		for h := range seen {
			if _, err := os.Stat(p.store.blobPath(h)); err != nil {
				return errVanished
			}
		}
		for h, dir := range unpacked {
			if err := p.s.adoptLayer(dir, h); err != nil {
				return err
			}
		}
		desc := p.top
		setRef(index, p.name.full, desc)
		markPulled(index, p.name.full, time.Now(), p.signed)
		return p.s.recordAccess(desc.Digest.String(), p.name.repository, c, p.opts.Operator)
	})
	if err != nil {
		return err
	}
	dirs := make([]string, 0, len(unpacked))
	for h := range unpacked {
		dirs = append(dirs, p.s.layerDir(h))
	}
	p.s.settleLater(dirs)
	return nil
}

// write stages a small blob.
func (st *staging) write(name string, raw []byte) (string, error) {
	file := filepath.Join(st.dir, "blob-"+name)
	f, err := os.Create(file)
	if err != nil {
		return "", fmt.Errorf("image store: %w", err)
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("image store: %w", full(err, file))
	}
	return file, nil
}

// layer makes sure that a layer's blob is in the store, and unpacks it into the
// staging directory if that has not been done before.
func (p *puller) layer(ctx context.Context, st *staging, desc v1.Descriptor) (unpacked string, err error) {
	report := func(pr Progress) {
		pr.Blob, pr.Total = desc.Digest.String(), desc.Size
		p.opts.OnProgress(pr)
	}
	present := func() bool {
		return p.store.check(desc) == nil && (!p.opts.Verify || p.store.verify(ctx, desc) == nil)
	}
	if present() {
		report(Progress{Done: desc.Size, Present: true})
		return "", nil
	}
	report(Progress{})
	f, err := p.store.openPartial(ctx, desc.Digest)
	if err != nil {
		return "", err
	}
	// Only who holds the lock may judge a blob, and replaces a damaged one by
	// rename: to remove it before would sometimes remove the good one that another
	// pull has just moved there.
	if present() {
		_ = os.Remove(f.Name())
		f.Close()
		report(Progress{Done: desc.Size, Present: true})
		return "", nil
	}
	defer f.Close()
	var done int64
	d := &download{session: p.sess, store: p.store, desc: desc, file: f, grown: make(chan struct{})}
	d.progress = func(delta int64) {
		done += delta
		report(Progress{Done: done})
	}
	wait := func() string { return "" }
	if !isWasmLayer(desc) && desc.Annotations[annotationModule] == "" {
		if _, err := readRecords(p.s.layerDir(desc.Digest), p.s.limits); err != nil {
			if wait, err = p.unpackOnTheWay(ctx, st, d); err != nil {
				return "", err
			}
		}
	}
	err = d.run(ctx)
	dir := wait()
	if err != nil {
		return "", full(err, f.Name())
	}
	if err := os.Rename(f.Name(), p.store.blobPath(desc.Digest)); err != nil {
		return "", fmt.Errorf("image store: %w", err)
	}
	return dir, nil
}

// unpackOnTheWay unpacks a layer while it is downloaded. What comes of it is
// only used if the blob turns out to be what its digest says; if unpacking
// fails, for whatever reason, it is tried again when the image is used, and
// the error shows there.
func (p *puller) unpackOnTheWay(ctx context.Context, st *staging, d *download) (wait func() string, err error) {
	into, err := st.layer(d.desc.Digest)
	if err != nil {
		return nil, err
	}
	r, err := d.follow(ctx)
	if err != nil {
		return nil, err
	}
	done := make(chan string, 1)
	go func() {
		defer r.Close()
		done <- func() string {
			tr, closer, _, err := unpackStream(r, p.s.limits)
			if err != nil {
				return ""
			}
			defer func() { _ = closer() }()
			sc := scanner{dir: into, lim: p.s.limits}
			if err := sc.scan(tr); err != nil {
				return ""
			}
			// To the end of the blob: only then it has been verified.
			if _, err := io.Copy(io.Discard, r); err != nil {
				return ""
			}
			if err := writeRecords(into, sc.records); err != nil {
				return ""
			}
			return into
		}()
	}()
	return func() string { return <-done }, nil
}

// verify reads a blob and compares its digest.
func (l *layout) verify(ctx context.Context, desc v1.Descriptor) error {
	f, err := os.Open(l.blobPath(desc.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := v1.SHA256(contextReader{ctx, f})
	if err == nil && got != desc.Digest {
		err = fmt.Errorf("blob %s is damaged: its content has the digest %s", desc.Digest, got)
	}
	return err
}
