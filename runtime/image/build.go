package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BuildSpec says what an image is made of. Equal specs give equal bytes, and
// so the same digest, on every machine.
type BuildSpec struct {
	Refs []string // names for the image; at least one

	// Module is the path of the entry module; ModuleReader is used instead
	// where it is not nil. The module's name in the image is ModuleName, or
	// the base name of Module, or entry.wasm; it lies at the root.
	Module       string
	ModuleReader io.Reader
	ModuleName   string

	Files []File

	// Form is one of the Form constants; empty stands for FormWASI.
	Form string
	// Platform is OS/ARCH of the image: wasip1/wasm, the default, or wasi/wasm;
	// with FormCompat one of native programs, linux/amd64 by default.
	Platform string

	// Entrypoint defaults to the entry module's path in the image.
	Entrypoint, Cmd []string
	Env             []string // KEY=value
	WorkingDir      string
	User            string
	Labels          map[string]string
	ExposedPorts    []string // 80/tcp
	StopSignal      string
}

// The forms that WebAssembly images have.
const (
	// FormWASI is an ordinary image for the platform wasip1/wasm or wasi/wasm.
	FormWASI = "wasi"
	// FormArtifact is the CNCF's wasm artifact: the module itself is the one
	// layer, and there is nothing else.
	FormArtifact = "artifact"
	// FormCompat is an image for Linux whose annotation says that its program is
	// a module: for tools that know native platforms only.
	FormCompat = "compat"
)

// File is a file, symlink, or directory with all that is in it, to be put
// into an image.
type File struct {
	Host  string // path on the host
	Guest string // absolute path in the image
	// Mode is for a file, or for every file of a directory. Zero keeps what
	// the host has as far as it is reproducible: 0755 for what is executable
	// there, 0644 for the rest. Directories have 0755.
	Mode fs.FileMode
}

// epoch is when everything in an image was made: a build's clock would change
// its digest.
var epoch = time.Unix(0, 0).UTC()

// Build writes an image to the store at Root and gives it its names, which
// are taken from the images that have them. It appears under its names
// completely or not at all.
func (s *Service) Build(ctx context.Context, spec BuildSpec) (Image, error) {
	if len(spec.Refs) == 0 {
		return Image{}, errors.New("build image: it needs a name")
	}
	var names []name
	for _, ref := range spec.Refs {
		n, err := parseTag(ref)
		if err != nil {
			return Image{}, fmt.Errorf("build image: %w", err)
		}
		names = append(names, n)
	}
	img, err := s.build(ctx, spec, names)
	if err != nil {
		return Image{}, fmt.Errorf("build image %q: %w", spec.Refs[0], err)
	}
	return img, nil
}

func (s *Service) build(ctx context.Context, spec BuildSpec, names []name) (Image, error) {
	moduleName, err := spec.moduleName()
	if err != nil {
		return Image{}, err
	}
	for _, kv := range spec.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return Image{}, fmt.Errorf("environment %q: want KEY=value", kv)
		}
	}
	os, arch, err := spec.platform()
	if err != nil {
		return Image{}, err
	}
	files, err := collectFiles(ctx, spec.Files, moduleName, s.limits)
	if err != nil {
		return Image{}, err
	}
	st, err := s.stage(ctx)
	if err != nil {
		return Image{}, err
	}
	defer st.close()

	b := builder{ctx: ctx, st: st, lim: s.limits, blobs: map[string]v1.Hash{}}
	var manifest *v1.Manifest
	if spec.Form == FormArtifact {
		manifest, err = b.artifact(spec, os)
	} else {
		manifest, err = b.image(spec, moduleName, files, os, arch)
	}
	if err != nil {
		return Image{}, err
	}
	desc, err := b.jsonBlob(types.OCIManifestSchema1, manifest)
	if err != nil {
		return Image{}, err
	}
	desc.Platform = &v1.Platform{OS: os, Architecture: arch}

	err = s.publish(ctx, b.blobs, func(index *v1.IndexManifest) error {
		for _, n := range names {
			setRef(index, n.full, desc)
		}
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	ins, err := s.inspect(ctx, s.stores[0], desc)
	if err != nil {
		return Image{}, err
	}
	img := ins.image
	img.Ref, img.ID = names[0].full, names[0].repository+"@"+ins.digest
	return img, nil
}

func (spec BuildSpec) platform() (os, arch string, err error) {
	platform := spec.Platform
	switch {
	case platform != "":
	case spec.Form == FormCompat:
		platform = "linux/amd64"
	default:
		platform = defaultPlatformOS + "/" + defaultPlatformArch
	}
	os, arch, ok := strings.Cut(platform, "/")
	if !ok || os == "" || arch == "" || strings.Contains(arch, "/") {
		return "", "", fmt.Errorf("platform %q: want OS/ARCH", platform)
	}
	isWASI := (os == "wasip1" || os == "wasi") && arch == "wasm"
	switch spec.Form {
	case "", FormWASI:
		if !isWASI {
			return "", "", fmt.Errorf("platform %q: an image of the form %s is for wasip1/wasm or wasi/wasm; for another platform, build the form %s", platform, FormWASI, FormCompat)
		}
	case FormCompat:
		if isWASI {
			return "", "", fmt.Errorf("platform %q: an image of the form %s is for a platform of native programs, as linux/amd64", platform, FormCompat)
		}
	case FormArtifact:
		if os != "wasip1" || arch != "wasm" {
			return "", "", fmt.Errorf("platform %q: an artifact is for wasip1/wasm", platform)
		}
		if len(spec.Files) > 0 || len(spec.Entrypoint) > 0 || len(spec.Cmd) > 0 || len(spec.Env) > 0 || spec.WorkingDir != "" || spec.User != "" || len(spec.Labels) > 0 || len(spec.ExposedPorts) > 0 || spec.StopSignal != "" {
			return "", "", fmt.Errorf("an image of the form %s is a module and nothing else: no files, command, environment, working directory, user or labels", FormArtifact)
		}
	default:
		return "", "", fmt.Errorf("form %q: want %s, %s or %s", spec.Form, FormWASI, FormArtifact, FormCompat)
	}
	return os, arch, nil
}

// image writes an image of layers and configuration.
func (b *builder) image(spec BuildSpec, moduleName string, files []sourceFile, os, arch string) (*v1.Manifest, error) {
	manifest := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	moduleLayer, err := b.moduleLayer(spec, moduleName)
	if err != nil {
		return nil, err
	}
	manifest.Layers = append(manifest.Layers, moduleLayer)
	if len(files) > 0 {
		layer, err := b.filesLayer(files)
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, layer)
	}
	cf := v1.ConfigFile{
		Architecture: arch,
		OS:           os,
		Created:      v1.Time{Time: epoch},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env,
			WorkingDir: spec.WorkingDir, User: spec.User, StopSignal: spec.StopSignal,
			Labels: map[string]string{annotationEntry: "/" + moduleName},
		},
	}
	maps.Copy(cf.Config.Labels, spec.Labels)
	for _, p := range spec.ExposedPorts {
		if cf.Config.ExposedPorts == nil {
			cf.Config.ExposedPorts = map[string]struct{}{}
		}
		cf.Config.ExposedPorts[p] = struct{}{}
	}
	if len(cf.Config.Entrypoint) == 0 {
		cf.Config.Entrypoint = []string{"/" + moduleName}
	}
	for _, layer := range manifest.Layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, layer.Digest) // layers are not compressed
		cf.History = append(cf.History, v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "wasmpod image build"})
	}
	if manifest.Config, err = b.jsonBlob(types.OCIConfigJSON, cf); err != nil {
		return nil, err
	}
	manifest.Annotations = map[string]string{annotationEntry: "/" + moduleName}
	if spec.Form == FormCompat {
		manifest.Annotations[annotationVariant] = "compat"
	}
	return manifest, nil
}

// wasmConfigType is the media type of an artifact's configuration.
const wasmConfigType types.MediaType = "application/vnd.wasm.config.v0+json"

// artifact writes a wasm artifact, as the CNCF's working group specifies it.
func (b *builder) artifact(spec BuildSpec, os string) (*v1.Manifest, error) {
	f, _, err := b.checkedModule(spec)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	layer, err := b.blob(wasmLayer, func(w io.Writer) error {
		_, err := io.Copy(w, contextReader{b.ctx, f})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.describeModule(), err)
	}
	manifest := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{layer}}
	manifest.Config, err = b.jsonBlob(wasmConfigType, struct {
		Created      time.Time `json:"created"`
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		LayerDigests []v1.Hash `json:"layerDigests"`
	}{epoch, defaultPlatformArch, os, []v1.Hash{layer.Digest}})
	return manifest, err
}

func (spec BuildSpec) moduleName() (string, error) {
	base := spec.ModuleName
	if base == "" && spec.Module != "" {
		base = filepath.Base(spec.Module)
	}
	if base == "" {
		base = entryFile
	}
	if !strings.HasSuffix(base, ".wasm") {
		base += ".wasm"
	}
	clean, err := cleanEntryName(base)
	if err == nil && (clean != base || strings.HasPrefix(base, whiteoutPrefix)) {
		err = fmt.Errorf("%q cannot be the name of a module in an image", base)
	}
	return clean, err
}

// builder writes the blobs of one image to a staging directory.
type builder struct {
	ctx   context.Context // of the one Build call that this is
	st    *staging
	lim   limits
	blobs map[string]v1.Hash // staged file -> digest
}

// moduleLayer writes the layer that holds the entry module alone.
func (b *builder) moduleLayer(spec BuildSpec, moduleName string) (v1.Descriptor, error) {
	f, fi, err := b.checkedModule(spec)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	sum := sha256.New()
	desc, err := b.tarBlob(func(w *tar.Writer) error {
		hdr := header(sourceFile{guest: moduleName, kind: tar.TypeReg, mode: 0o755, size: fi.Size()})
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
		return copyExactly(w, io.TeeReader(contextReader{b.ctx, f}, sum), fi.Size())
	})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: %w", spec.describeModule(), err)
	}
	desc.Annotations = map[string]string{
		annotationEntry:  "/" + moduleName,
		annotationModule: "sha256:" + hex.EncodeToString(sum.Sum(nil)),
	}
	return desc, nil
}

// checkedModule opens the module, which may well be one.
func (b *builder) checkedModule(spec BuildSpec) (_ *os.File, _ fs.FileInfo, err error) {
	f, err := b.openModule(spec)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("module %s is not a file", spec.Module)
	}
	if fi.Size() > b.lim.moduleBytes {
		return nil, nil, fmt.Errorf("the module is %w: %d bytes; at most %d are supported", errTooLarge, fi.Size(), b.lim.moduleBytes)
	}
	head := make([]byte, 8)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	if err := checkModule(head[:n]); err != nil {
		return nil, nil, fmt.Errorf("%s: it is %w", spec.describeModule(), err)
	}
	return f, fi, nil
}

func (spec BuildSpec) describeModule() string {
	if spec.ModuleReader != nil || spec.Module == "" {
		return "the module"
	}
	return "module " + spec.Module
}

// openModule returns the module as a file: a reader has to be read to the end
// before its size, which comes first in the layer, is known.
func (b *builder) openModule(spec BuildSpec) (*os.File, error) {
	if spec.ModuleReader == nil {
		if spec.Module == "" {
			return nil, errors.New("it needs a module")
		}
		return os.Open(spec.Module)
	}
	f, err := os.Create(filepath.Join(b.st.dir, "module"))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, contextReader{b.ctx, io.LimitReader(spec.ModuleReader, b.lim.moduleBytes+1)})
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the module: %w", err)
	}
	return f, nil
}

func (b *builder) filesLayer(files []sourceFile) (v1.Descriptor, error) {
	var total int64
	return b.tarBlob(func(w *tar.Writer) error {
		for _, f := range files {
			if total += f.size; total > b.lim.imageBytes {
				return fmt.Errorf("%w: more than %d bytes of files", errTooLarge, b.lim.imageBytes)
			}
			if err := b.writeFile(w, f); err != nil {
				return fmt.Errorf("file %s: %w", f.host, err)
			}
		}
		return nil
	})
}

func (b *builder) writeFile(w *tar.Writer, f sourceFile) error {
	if err := w.WriteHeader(header(f)); err != nil {
		return err
	}
	if f.kind != tar.TypeReg {
		return nil
	}
	src, err := os.Open(f.host)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyExactly(w, contextReader{b.ctx, src}, f.size)
}

// copyExactly notices a source that changes while it is read.
func copyExactly(w io.Writer, r io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	if errors.Is(err, tar.ErrWriteTooLong) || (err == nil && n != size) {
		return errors.New("it changed while it was read")
	}
	return err
}

// header has nothing in it that differs from one machine to another.
func header(f sourceFile) *tar.Header {
	hdr := &tar.Header{
		Typeflag: f.kind, Name: f.guest, Linkname: f.target,
		Mode: f.mode, Size: f.size, ModTime: epoch,
	}
	if f.kind == tar.TypeDir {
		hdr.Name += "/"
	}
	return hdr
}

// tarBlob stages an uncompressed tar layer. Not compressing is a choice: a
// module can be read from its layer at once, and the bytes do not depend on a
// compressor's version.
func (b *builder) tarBlob(write func(*tar.Writer) error) (v1.Descriptor, error) {
	return b.blob(types.OCIUncompressedLayer, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := write(tw); err != nil {
			return err
		}
		return tw.Close()
	})
}

func (b *builder) jsonBlob(mediaType types.MediaType, v any) (v1.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if len(raw) > maxManifestBytes {
		return v1.Descriptor{}, fmt.Errorf("%w: the image's description has more than %d bytes", errTooLarge, maxManifestBytes)
	}
	return b.blob(mediaType, func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
}

func (b *builder) blob(mediaType types.MediaType, write func(io.Writer) error) (v1.Descriptor, error) {
	f, err := os.CreateTemp(b.st.dir, "blob-")
	if err != nil {
		return v1.Descriptor{}, err
	}
	w := &countingHash{w: f, sum: sha256.New()}
	err = write(w)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(w.sum.Sum(nil))}
	b.blobs[f.Name()] = h
	return v1.Descriptor{MediaType: mediaType, Digest: h, Size: w.n}, nil
}

// countingHash digests and counts what is written through it.
type countingHash struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *countingHash) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}
