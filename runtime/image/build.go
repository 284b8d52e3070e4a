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
	"path"
	"path/filepath"
	"slices"
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

	// Entrypoint defaults to the entry module's path in the image.
	Entrypoint, Cmd []string
	Env             []string // KEY=value
	WorkingDir      string
	User            string
	Labels          map[string]string
}

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
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	moduleLayer, err := b.moduleLayer(spec, moduleName)
	if err != nil {
		return Image{}, err
	}
	manifest.Layers = append(manifest.Layers, moduleLayer)
	if len(files) > 0 {
		layer, err := b.filesLayer(files)
		if err != nil {
			return Image{}, err
		}
		manifest.Layers = append(manifest.Layers, layer)
	}
	cf := v1.ConfigFile{
		Architecture: defaultPlatformArch,
		OS:           defaultPlatformOS,
		Created:      v1.Time{Time: epoch},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env,
			WorkingDir: spec.WorkingDir, User: spec.User,
			Labels: map[string]string{annotationEntry: "/" + moduleName},
		},
	}
	maps.Copy(cf.Config.Labels, spec.Labels)
	if len(cf.Config.Entrypoint) == 0 {
		cf.Config.Entrypoint = []string{"/" + moduleName}
	}
	for _, layer := range manifest.Layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, layer.Digest) // layers are not compressed
		cf.History = append(cf.History, v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "wasmpod image build"})
	}
	if manifest.Config, err = b.jsonBlob(types.OCIConfigJSON, cf); err != nil {
		return Image{}, err
	}
	manifest.Annotations = map[string]string{annotationEntry: "/" + moduleName}
	desc, err := b.jsonBlob(types.OCIManifestSchema1, manifest)
	if err != nil {
		return Image{}, err
	}
	desc.Platform = &v1.Platform{OS: defaultPlatformOS, Architecture: defaultPlatformArch}

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

// sourceFile is one record of a files layer to be.
type sourceFile struct {
	guest  string // relative to the image's root
	host   string // of a regular file
	target string // of a symlink
	kind   byte   // tar type
	mode   int64
	size   int64
}

// collectFiles lists what a files layer will hold, in the order of names.
func collectFiles(ctx context.Context, files []File, moduleName string, lim limits) ([]sourceFile, error) {
	byName := map[string]sourceFile{}
	add := func(f sourceFile) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.guest == moduleName {
			return fmt.Errorf("file %s: /%s is the entry module's place", f.host, moduleName)
		}
		if strings.HasPrefix(path.Base(f.guest), whiteoutPrefix) {
			return fmt.Errorf("file %s: names that begin with %s are markers of the image format", f.host, whiteoutPrefix)
		}
		if old, ok := byName[f.guest]; ok && (old.kind != tar.TypeDir || f.kind != tar.TypeDir) {
			return fmt.Errorf("file %s: /%s is given twice", f.host, f.guest)
		}
		if byName[f.guest] = f; len(byName) > lim.files {
			return fmt.Errorf("%w: more than %d files", errTooLarge, lim.files)
		}
		return nil
	}
	for _, file := range files {
		guest, err := cleanEntryName(file.Guest)
		if err == nil && !path.IsAbs(file.Guest) {
			err = errors.New("want an absolute path in the image")
		}
		if err != nil {
			return nil, fmt.Errorf("file %s at %q: %w", file.Host, file.Guest, err)
		}
		// A symlink that the user names stands for what it points to.
		top, err := filepath.EvalSymlinks(file.Host)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(top, func(host string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(top, host)
			if err != nil {
				return err
			}
			name, err := cleanEntryName(guest + "/" + filepath.ToSlash(rel))
			if err != nil {
				return err
			}
			f, err := newSourceFile(host, name, d, file.Mode)
			if err != nil || f.kind == 0 {
				return err
			}
			if name == "" {
				if f.kind == tar.TypeDir {
					return nil // the root itself
				}
				return fmt.Errorf("file %s: the image's root is a directory", host)
			}
			return add(f)
		})
		if err != nil {
			return nil, err
		}
	}
	// A file is no directory for others.
	for guest := range byName {
		for dir := path.Dir(guest); dir != "."; dir = path.Dir(dir) {
			if up, ok := byName[dir]; (ok && up.kind != tar.TypeDir) || dir == moduleName {
				return nil, fmt.Errorf("/%s cannot lie below /%s, which is not a directory", guest, dir)
			}
		}
	}
	list := make([]sourceFile, 0, len(byName))
	for _, guest := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[guest])
	}
	return list, nil
}

func newSourceFile(host, guest string, d fs.DirEntry, mode fs.FileMode) (sourceFile, error) {
	fi, err := d.Info()
	if err != nil {
		return sourceFile{}, err
	}
	f := sourceFile{guest: guest, host: host}
	switch {
	case fi.IsDir():
		f.kind, f.mode = tar.TypeDir, 0o755
	case fi.Mode()&fs.ModeSymlink != 0:
		f.kind, f.mode = tar.TypeSymlink, 0o777
		if f.target, err = os.Readlink(host); err != nil {
			return f, err
		}
	case fi.Mode().IsRegular():
		f.kind, f.size = tar.TypeReg, fi.Size()
		switch {
		case mode != 0:
			f.mode = int64(mode.Perm())
		case fi.Mode().Perm()&0o111 != 0:
			f.mode = 0o755
		default:
			f.mode = 0o644
		}
	default:
		return f, fmt.Errorf("file %s: neither a file nor a directory nor a symlink", host)
	}
	return f, nil
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
	f, err := b.openModule(spec)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if !fi.Mode().IsRegular() {
		return v1.Descriptor{}, fmt.Errorf("module %s is not a file", spec.Module)
	}
	if fi.Size() > b.lim.moduleBytes {
		return v1.Descriptor{}, fmt.Errorf("the module is %w: %d bytes; at most %d are supported", errTooLarge, fi.Size(), b.lim.moduleBytes)
	}
	head := make([]byte, 8)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return v1.Descriptor{}, err
	}
	if err := checkModule(head[:n]); err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: it is %w", spec.describeModule(), err)
	}
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
