package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// wasm returns a valid, empty module that differs from others by its text.
func wasm(text string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	section := append([]byte{4}, "test"...)
	section = append(section, text...)
	b = append(b, 0)
	for n := len(section); ; n >>= 7 {
		if n < 0x80 {
			b = append(b, byte(n))
			break
		}
		b = append(b, byte(n)|0x80)
	}
	return append(b, section...)
}

func open(t testing.TB, cfg Config) *Service {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store returns a service with a new store.
func store(t testing.TB) (*Service, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "images")
	return open(t, Config{Root: root, BaseDir: t.TempDir()}), root
}

func build(t testing.TB, s *Service, spec BuildSpec) Image {
	t.Helper()
	img, err := s.Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError checks the reason and a part of the message of an *Error.
func wantError(t *testing.T, err error, reason, message string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error = %v (%T), want an *Error with reason %s", err, err, reason)
	}
	if e.Reason != reason || !strings.Contains(e.Message, message) {
		t.Errorf("error = %s: %s\nwant    %s: …%s…", e.Reason, e.Message, reason, message)
	}
}

// record is one record of a hand-made layer.
type record struct {
	name, body, link string
	kind             byte // default: a file, or a directory if the name ends in /
	mode             int64
}

func tarOf(t testing.TB, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, r := range records {
		hdr := &tar.Header{Name: r.name, Typeflag: r.kind, Linkname: r.link, Mode: r.mode, Size: int64(len(r.body)), ModTime: epoch}
		if r.kind == 0 {
			hdr.Typeflag = tar.TypeReg
			if strings.HasSuffix(r.name, "/") {
				hdr.Typeflag = tar.TypeDir
			}
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o644
			if hdr.Typeflag == tar.TypeDir {
				hdr.Mode = 0o755
			}
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(r.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// foreign is an image as other tools make them.
type foreign struct {
	layers    [][]byte
	mediaType types.MediaType // of the layers; default: uncompressed tar
	config    v1.Config
	platform  *v1.Platform
}

func (f foreign) image(t testing.TB) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	mediaType := f.mediaType
	if mediaType == "" {
		mediaType = types.OCIUncompressedLayer
	}
	for _, b := range f.layers {
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(b, mediaType)); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.Config = f.config
	if f.platform != nil {
		cf.OS, cf.Architecture = f.platform.OS, f.platform.Architecture
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// add writes foreign images into a layout with go-containerregistry.
func add(t testing.TB, root, ref string, f foreign) v1.Image {
	t.Helper()
	p, err := ocilayout.FromPath(root)
	if err != nil {
		if p, err = ocilayout.Write(root, empty.Index); err != nil {
			t.Fatal(err)
		}
	}
	img := f.image(t)
	options := []ocilayout.Option{ocilayout.WithAnnotations(map[string]string{annotationRefName: ref})}
	if f.platform != nil {
		options = append(options, ocilayout.WithPlatform(*f.platform))
	}
	if err := p.ReplaceImage(img, match.Name(ref), options...); err != nil {
		t.Fatal(err)
	}
	return img
}

// addRaw writes an image whose one layer is arbitrary bytes, without any tool
// that would check them.
func addRaw(t testing.TB, root, ref string, raw []byte, mediaType types.MediaType) {
	t.Helper()
	blob := func(b []byte) v1.Descriptor {
		h, n, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, "blobs", "sha256", h.Hex), b)
		return v1.Descriptor{Digest: h, Size: n}
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	l := blob(raw)
	l.MediaType = mediaType
	m := v1.Manifest{SchemaVersion: 2, Config: blob([]byte("{}")), Layers: []v1.Descriptor{l}}
	d := blob(encode(m))
	d.MediaType = types.OCIManifestSchema1
	d.Annotations = map[string]string{annotationRefName: ref}
	write(t, filepath.Join(root, "index.json"), encode(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{d}}))
}

// listing describes a directory: one line per file.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := fi.Mode().String() + " " + rel
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = "link " + rel + " -> " + target
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func appendToIndex(t testing.TB, index v1.ImageIndex, child mutate.Appendable) v1.ImageIndex {
	t.Helper()
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: child})
}
