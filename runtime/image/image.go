// Package image is the image service of a node: it turns a container's image
// reference into a digest, the image's configuration, the verified bytes of
// its entry module, and the files of a container's root.
//
// A reference names a local WebAssembly file or directory (by path or file:
// URL), or an image, which Ensure and Pull bring from its registry into the
// local store. The store is an OCI image layout: any OCI tool can read it. Content is addressed by digest and verified whenever
// it is read, so that a store on a failing flash card yields an error and
// never a wrong program.
package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// Reasons of Error, as the kubelet writes them into a container's waiting
// state (IMG-02, IMG-05, IMG-07, IMG-09).
const (
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImageInspectError = "ImageInspectError"

	ReasonSignatureValidationFailed = "SignatureValidationFailed"
)

// Annotations of the store, and of the images that Build makes. An image of
// any origin may have annotationEntry as an annotation or a label: the path of
// its entry module.
const (
	annotationRefName = "org.opencontainers.image.ref.name"
	annotationEntry   = "org.wasmpod.image.entry"
	annotationModule  = "org.wasmpod.image.module" // of a layer: digest of the module that is all it holds
)

// The platform of the images that Build makes.
const (
	defaultPlatformOS   = "wasip1"
	defaultPlatformArch = "wasm"
)

// Bounds against hostile or damaged content; those that an operator may want
// to change are in Config.
const (
	defaultMaxModuleBytes = 512 << 20
	defaultMaxImageBytes  = 4 << 30
	defaultMaxImageFiles  = 250_000
	maxManifestBytes      = 4 << 20
	maxIndexBytes         = 64 << 20
	maxIndexNesting       = 3
	maxLayers             = 512
	maxGuestPathLen       = 4096
	maxGuestNameLen       = 255
	maxSymlinksFollowed   = 40
	rememberedImages      = 1024
)

// defaultGuestSearchPath is the PATH of an image that sets none.
const defaultGuestSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Config is where the service finds images. The zero value knows local paths
// only.
type Config struct {
	// Root is the directory of the store, an OCI image layout. It is created
	// by the first image that is written to it. Empty: there is no store.
	Root string
	// ExtraRoots are more stores, searched in order after Root and never
	// written: for images that are shipped beside the binary.
	ExtraRoots []string
	// BaseDir is what relative paths in references are relative to. Empty:
	// the working directory of the process.
	BaseDir string
	// NoLocalPaths refuses references to files and directories of the host:
	// for nodes whose pods are written by strangers.
	NoLocalPaths bool

	// Bounds on what an image may hold; zero stands for the default.
	MaxModuleBytes int64 // of one module; default 512 MiB
	MaxImageBytes  int64 // of all files of an image, unpacked; default 4 GiB
	MaxImageFiles  int   // entries of all layers, and directories they imply; default 250,000

	Registries Registries
	// Signatures say which images are pulled only if they are signed.
	Signatures []SignaturePolicy
	// Imports is what modules may import; the zero value: everything.
	Imports ImportPolicy
	// Settle syncs what is unpacked, in the background, so that it need not be
	// unpacked again after the next boot: for processes that last.
	Settle bool
}

// Image is one resolved image. It is a plain value and stays valid for as
// long as the content is in its place.
type Image struct {
	// Ref is the resolved name, for status.image (IMG-12): the normalised
	// reference, or the absolute path of a local image.
	Ref string
	// ID is the digested reference, for status.imageID (IMG-12). A local file
	// or directory has no manifest: there the digest is the entry module's.
	ID string
	// Config is what the image asks for (ENV-14). The entrypoint of an image
	// that states none is its entry module.
	Config container.ImageConfig
	// Module is the digest of the entry module, "sha256:…".
	Module string
	// Size is in bytes, as stored.
	Size int64
}

// Error is why an image is not available. Reason is one of the Reason
// constants; Message is the complete text for the container's waiting state
// and for the event that goes with the reason.
type Error struct {
	Reason  string
	Message string
	Err     error // the cause, where there is one
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

func inspectError(ref string, err error) *Error {
	return &Error{
		Reason:  ReasonImageInspectError,
		Message: fmt.Sprintf("Failed to inspect image %q: %v", ref, err),
		Err:     err,
	}
}

// Service is the image service. It is safe for concurrent use, and several
// processes may use, and write to, the same store at the same time.
type Service struct {
	cfg    Config
	limits limits
	stores []*layout // Root first, if there is one

	mu        sync.Mutex
	inspected map[string]*inspection // by store directory and manifest digest
	modules   map[string]content     // by module digest: where it was last seen
	digests   map[string]fileDigest  // by path of a local module
	imports   map[string][]string    // by module digest

	unpacking sync.Mutex // held by who unpacks a layer

	disk func(dir string) (free, capacity int64, err error) // diskOf

	transportsOnce       sync.Once
	verified, unverified *http.Transport
	slotsOnce            sync.Once
	slots                chan struct{} // of downloads
	turns                *turns
}

// limits are the bounds on the content of one image.
type limits struct {
	moduleBytes int64
	imageBytes  int64
	files       int
}

// Open returns a service. It touches no file yet: a store that is not there
// is an empty one.
func Open(cfg Config) (*Service, error) {
	if cfg.BaseDir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("image service: %w", err)
		}
		cfg.BaseDir = wd
	}
	base, err := filepath.Abs(cfg.BaseDir)
	if err != nil {
		return nil, fmt.Errorf("image service: base directory %q: %w", cfg.BaseDir, err)
	}
	cfg.BaseDir = base
	s := &Service{
		limits: limits{
			moduleBytes: cfg.MaxModuleBytes,
			imageBytes:  cfg.MaxImageBytes,
			files:       cfg.MaxImageFiles,
		},
		inspected: map[string]*inspection{},
		modules:   map[string]content{},
		digests:   map[string]fileDigest{},
		imports:   map[string][]string{},
		disk:      diskOf,
	}
	if s.limits.moduleBytes <= 0 {
		s.limits.moduleBytes = defaultMaxModuleBytes
	}
	if s.limits.imageBytes <= 0 {
		s.limits.imageBytes = defaultMaxImageBytes
	}
	if s.limits.files <= 0 {
		s.limits.files = defaultMaxImageFiles
	}
	var roots []string
	if cfg.Root != "" {
		roots = append(roots, cfg.Root)
	}
	roots = append(roots, cfg.ExtraRoots...)
	for i, root := range roots {
		abs, err := filepath.Abs(root)
		if err != nil {
			return nil, fmt.Errorf("image store %q: %w", root, err)
		}
		if fi, err := os.Stat(abs); err == nil && !fi.IsDir() {
			return nil, fmt.Errorf("image store %q is not a directory", root)
		}
		s.stores = append(s.stores, &layout{dir: abs})
		if i == 0 && cfg.Root != "" {
			cfg.Root = abs
		}
	}
	cfg.Registries.setDefaults()
	s.turns = newTurns(&cfg.Registries)
	s.cfg = cfg
	return s, nil
}

// Present looks ref up without regard to pull policies. An image that is not
// there is no error; a reference that cannot be parsed (IMG-02) or an image
// that cannot be read (IMG-09) is an *Error.
func (s *Service) Present(ref string) (Image, bool, error) {
	img, c, err := s.lookup(context.Background(), ref)
	return img, c != nil, err
}

// Resolve finds the image that ref names among those that are present; Ensure
// also pulls. It looks again on every call, so that a reference that was moved
// to another image is noticed at the next container start. The policy (IMG-01;
// empty stands for IfNotPresent) decides what the error says. The error is an
// *Error unless ctx ended.
func (s *Service) Resolve(ctx context.Context, ref string, policy corev1.PullPolicy) (Image, error) {
	img, c, err := s.lookup(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	if c != nil {
		return img, nil
	}
	if policy == corev1.PullNever {
		return Image{}, &Error{
			Reason:  ReasonErrImageNeverPull,
			Message: fmt.Sprintf("Container image %q is not present with pull policy of Never", ref),
		}
	}
	return Image{}, &Error{Reason: ReasonErrImagePull, Message: s.absent(ref)}
}

// absent says where an image was looked for and what to do about it.
func (s *Service) absent(ref string) string {
	if path, ok, _ := s.localPath(ref); ok {
		msg := fmt.Sprintf("image %q: there is no file or directory %s", ref, path)
		if !filepath.IsAbs(strings.TrimPrefix(ref, "file:")) {
			msg += fmt.Sprintf(" (relative paths are relative to %s)", s.cfg.BaseDir)
		}
		return msg
	}
	where := "the local store"
	if len(s.stores) == 0 {
		where = "the local store (none is configured)"
	}
	msg := fmt.Sprintf("image %q is not in %s: bring it with 'wasmpod image pull %s', or make it with 'wasmpod image build -t %s FILE.wasm'", ref, where, ref, ref)
	if s.cfg.Registries.Offline {
		msg = fmt.Sprintf("image %q is not in %s, and registries are not to be asked: make it with 'wasmpod image build -t %s FILE.wasm', or load it with 'wasmpod image load'", ref, where, ref)
	}
	if !s.cfg.NoLocalPaths && !strings.ContainsAny(ref, "@:") {
		if _, err := os.Stat(filepath.Join(s.cfg.BaseDir, filepath.FromSlash(ref))); err == nil {
			msg += fmt.Sprintf("; there is a local file of that name: to use it, write %q", "./"+ref)
		}
	}
	return msg
}

// lookup finds an image and its content; no content: it is not there.
func (s *Service) lookup(ctx context.Context, ref string) (Image, content, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, nil, err
	}
	if path, ok, err := s.localPath(ref); err != nil {
		return Image{}, nil, err
	} else if ok {
		return s.inspectLocal(ctx, ref, path)
	}
	n, err := parseReference(ref)
	if err != nil {
		return Image{}, nil, err
	}
	for _, l := range s.stores {
		ins, err := s.inspectNamed(ctx, l, n)
		if ctx.Err() != nil {
			return Image{}, nil, ctx.Err()
		}
		if err != nil {
			return Image{}, nil, inspectError(ref, err)
		}
		if ins == nil {
			continue
		}
		img := ins.image
		img.Ref = n.full
		img.ID = n.repository + "@" + ins.digest
		return img, ins, nil
	}
	return Image{}, nil, nil
}

// content is where the bytes of one image lie.
type content interface {
	// module returns the entry module's bytes, unverified.
	module(ctx context.Context, lim limits) ([]byte, error)
	// unpack writes every file but the entry module below the unpacker.
	unpack(ctx context.Context, u *unpacker) error
}

// remember keeps the place of a module for Module. The map is bounded: what
// falls out is found again by searching.
func (s *Service) remember(digest string, c content) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound(s.modules)
	s.modules[digest] = c
}

// bound makes room in a map that must not grow without limit.
func bound[V any](m map[string]V) {
	for k := range m {
		if len(m) < rememberedImages {
			return
		}
		delete(m, k)
	}
}

// isAbsent tells an object that is not there from one that cannot be read.
func isAbsent(err error) bool { return errors.Is(err, os.ErrNotExist) }
