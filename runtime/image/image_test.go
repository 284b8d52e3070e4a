package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReferencesAreNormalisedIMG03(t *testing.T) {
	for ref, want := range map[string]name{
		"busybox":              {full: "docker.io/library/busybox:latest", repository: "docker.io/library/busybox"},
		"xxx":                  {full: "docker.io/library/xxx:latest", repository: "docker.io/library/xxx"},
		"luksa/kubia:v2":       {full: "docker.io/luksa/kubia:v2", repository: "docker.io/luksa/kubia"},
		"docker.io/busybox":    {full: "docker.io/library/busybox:latest", repository: "docker.io/library/busybox"},
		"registry/app:v3.0":    {full: "docker.io/registry/app:v3.0", repository: "docker.io/registry/app"},
		"localhost/app":        {full: "localhost/app:latest", repository: "localhost/app"},
		"localhost:5000/a/b:c": {full: "localhost:5000/a/b:c", repository: "localhost:5000/a/b"},
		"reg.example/app@" + someDigest: {
			full: "reg.example/app@" + someDigest, repository: "reg.example/app", digest: someDigest},
		"app:v1@" + someDigest: {
			full: "docker.io/library/app@" + someDigest, repository: "docker.io/library/app", digest: someDigest},
	} {
		got, err := parseReference(ref)
		if err != nil || got != want {
			t.Errorf("IMG-03 %q: got %+v, %v, want %+v", ref, got, err, want)
		}
	}
}

func TestUnparsableReferences(t *testing.T) {
	s, _ := store(t)
	for ref, message := range map[string]string{
		"a b":                     `Failed to apply default image tag "a b": couldn't parse image name "a b": invalid reference format`,
		"":                        `Failed to apply default image tag "": couldn't parse image name "": invalid reference format`,
		"app:":                    "invalid reference format",
		"docker.io/UPPER:1":       "must be lowercase",
		strings.Repeat("a", 1e6):  "…",
		someDigest[7:]:            "couldn't parse image name",
		"file://elsewhere/x.wasm": "a file of this machine",
		"file:":                   "no path",
		"file:///x.wasm?y":        "nothing else",
		"./x\x00.wasm":            "NUL",
	} {
		_, err := s.Resolve(t.Context(), ref, corev1.PullIfNotPresent)
		t.Run("IMG-02 "+clip(ref), func(t *testing.T) { wantError(t, err, ReasonInvalidImageName, message) })
		if len(err.Error()) > 4096 {
			t.Errorf("the message for a hostile reference has %d bytes", len(err.Error()))
		}
	}
}

func TestPullPolicies(t *testing.T) {
	s, _ := store(t)
	build(t, s, BuildSpec{Refs: []string{"here"}, ModuleReader: bytes.NewReader(wasm("a"))})
	for _, policy := range []corev1.PullPolicy{"", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever} {
		if _, err := s.Resolve(t.Context(), "here:latest", policy); err != nil {
			t.Errorf("IMG-01 present, policy %q: %v", policy, err)
		}
	}
	t.Run("IMG-05", func(t *testing.T) {
		_, err := s.Resolve(t.Context(), "gone", corev1.PullNever)
		wantError(t, err, ReasonErrImageNeverPull, `Container image "gone" is not present with pull policy of Never`)
		_, err = s.Resolve(t.Context(), "./gone.wasm", corev1.PullNever)
		wantError(t, err, ReasonErrImageNeverPull, `Container image "./gone.wasm" is not present with pull policy of Never`)
	})
	t.Run("IMG-07", func(t *testing.T) {
		for _, policy := range []corev1.PullPolicy{"", corev1.PullAlways, corev1.PullIfNotPresent} {
			_, err := s.Resolve(t.Context(), "xxx", policy)
			wantError(t, err, ReasonErrImagePull, `image "xxx" is not in the local store: bring it with 'wasmpod image pull xxx', or make it with 'wasmpod image build -t xxx FILE.wasm'`)
		}
		_, err := s.Resolve(t.Context(), "./gone.wasm", "")
		wantError(t, err, ReasonErrImagePull, "there is no file or directory "+filepath.Join(s.cfg.BaseDir, "gone.wasm"))
		write(t, filepath.Join(s.cfg.BaseDir, "app.wasm"), wasm("x"))
		_, err = s.Resolve(t.Context(), "app.wasm", "")
		wantError(t, err, ReasonErrImagePull, `write "./app.wasm"`)
	})
	t.Run("IMG-01 a reference that moved is noticed", func(t *testing.T) {
		before, _ := s.Resolve(t.Context(), "here", "")
		build(t, s, BuildSpec{Refs: []string{"here"}, ModuleReader: bytes.NewReader(wasm("b"))})
		after, err := s.Resolve(t.Context(), "here", "")
		if err != nil || after.Module != digestOf(wasm("b")) || after.ID == before.ID {
			t.Errorf("got %+v, %v", after, err)
		}
		// The digest goes on naming the old one, as long as it is there.
		if b, err := s.Module(t.Context(), before.Module); err != nil || !bytes.Equal(b, wasm("a")) {
			t.Errorf("old module: %v", err)
		}
	})
}

func TestLocalFile(t *testing.T) {
	s := open(t, Config{BaseDir: t.TempDir()})
	path := write(t, filepath.Join(s.cfg.BaseDir, "dir", "a b.wasm"), wasm("one"))
	for _, ref := range []string{"./dir/a b.wasm", path, "file:" + path, "file://" + strings.ReplaceAll(path, " ", "%20"), "file:dir/a%20b.wasm"} {
		img, err := s.Resolve(t.Context(), ref, corev1.PullAlways)
		if err != nil {
			t.Errorf("%q: %v", ref, err)
			continue
		}
		if img.Ref != path || img.ID != path+"@"+digestOf(wasm("one")) || img.Module != digestOf(wasm("one")) || img.Size != int64(len(wasm("one"))) {
			t.Errorf("%q: %+v", ref, img)
		}
		if want := []string{"/a b.wasm"}; !reflect.DeepEqual(img.Config.Entrypoint, want) {
			t.Errorf("%q: entrypoint %q", ref, img.Config.Entrypoint)
		}
		if b, err := s.Module(t.Context(), img.Module); err != nil || !bytes.Equal(b, wasm("one")) {
			t.Errorf("%q: module: %v", ref, err)
		}
		dir := filepath.Join(t.TempDir(), "root")
		if err := s.Unpack(t.Context(), img, dir); err != nil || listing(t, dir) != "" {
			t.Errorf("%q: unpack: %v", ref, err)
		}
	}
	t.Run("a file that changes is another image, and never the wrong module", func(t *testing.T) {
		img, _ := s.Resolve(t.Context(), path, "")
		write(t, path, wasm("two"))
		if _, err := s.Module(t.Context(), img.Module); err == nil {
			t.Error("the old digest still gives a module")
		} else {
			wantError(t, err, ReasonImageInspectError, "damaged or was replaced")
		}
		if now, err := s.Resolve(t.Context(), path, ""); err != nil || now.Module != digestOf(wasm("two")) {
			t.Errorf("got %+v, %v", now, err)
		}
	})
	t.Run("IMG-09 what is no module", func(t *testing.T) {
		for text, message := range map[string]string{
			"":                                 "not a WebAssembly module",
			"#!/bin/sh\n":                      "not a WebAssembly module",
			"\x00asm":                          "not a WebAssembly module",
			"\x00asm\x0d\x00\x01\x00rest":      "component",
			"\x00asm\x02\x00\x00\x00rest":      "unknown version 2",
			"\x7fELF\x02\x01\x01\x00and so on": "not a WebAssembly module",
		} {
			_, err := s.Resolve(t.Context(), write(t, filepath.Join(t.TempDir(), "x.wasm"), []byte(text)), "")
			wantError(t, err, ReasonImageInspectError, message)
		}
	})
	t.Run("bounds", func(t *testing.T) {
		small := open(t, Config{MaxModuleBytes: 10})
		_, err := small.Resolve(t.Context(), path, "")
		wantError(t, err, ReasonImageInspectError, "too large")
	})
	t.Run("NoLocalPaths", func(t *testing.T) {
		strict := open(t, Config{NoLocalPaths: true})
		for _, ref := range []string{path, "file:" + path, "./x", ".."} {
			_, err := strict.Resolve(t.Context(), ref, "")
			wantError(t, err, ReasonInvalidImageName, "not allowed")
		}
	})
}

func TestPlainDirectory(t *testing.T) {
	s := open(t, Config{BaseDir: t.TempDir()})
	dir := filepath.Join(s.cfg.BaseDir, "root")
	write(t, filepath.Join(dir, "etc", "motd"), []byte("hi"))
	if err := os.Chmod(filepath.Join(dir, "etc", "motd"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "etc", "link")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Resolve(t.Context(), "./root", "")
	wantError(t, err, ReasonImageInspectError, "no image")
	write(t, filepath.Join(dir, "app.wasm"), wasm("app"))
	img, err := s.Resolve(t.Context(), "./root", "")
	if err != nil || img.Module != digestOf(wasm("app")) || img.ID != dir+"@"+img.Module {
		t.Fatalf("got %+v, %v", img, err)
	}
	to := filepath.Join(t.TempDir(), "new")
	if err := s.Unpack(t.Context(), img, to); err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, to), "drwxr-xr-x etc\nlink etc/link -> /etc/passwd\n-rw-r----- etc/motd hi"; got != want {
		t.Errorf("unpacked:\n%s\nwant:\n%s", got, want)
	}
	write(t, filepath.Join(dir, "other.wasm"), wasm("other"))
	_, err = s.Resolve(t.Context(), "./root", "")
	wantError(t, err, ReasonImageInspectError, "2 modules at its top (app.wasm, other.wasm)")
	write(t, filepath.Join(dir, "entry.wasm"), wasm("entry"))
	if img, err = s.Resolve(t.Context(), "./root", ""); err != nil || img.Module != digestOf(wasm("entry")) {
		t.Errorf("got %+v, %v", img, err)
	}
	if err := s.Unpack(t.Context(), img, to); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("unpacking into a directory that is not empty: %v", err)
	}
	if listing(t, to) == "" {
		t.Error("and it was emptied")
	}
	small := open(t, Config{MaxImageFiles: 2})
	to = filepath.Join(t.TempDir(), "new")
	if err := small.Unpack(t.Context(), img, to); !errors.Is(err, errTooLarge) || listing(t, to) != "" {
		t.Errorf("too many files: %v", err)
	}
}

func TestLayoutDirectory(t *testing.T) {
	s := open(t, Config{BaseDir: t.TempDir()})
	dir := filepath.Join(s.cfg.BaseDir, "layout")
	native := foreign{layers: [][]byte{tarOf(t, record{name: "bin/app", body: "\x7fELF"})}, platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}
	add(t, dir, "amd64", native)
	_, err := s.Resolve(t.Context(), "./layout", "")
	wantError(t, err, ReasonImageInspectError, "no WebAssembly module: it was built for another kind of node")

	native.layers = append(native.layers, tarOf(t, record{name: "arm"}))
	native.platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	add(t, dir, "arm64", native)
	_, err = s.Resolve(t.Context(), "./layout", "")
	wantError(t, err, ReasonImageInspectError, "none of the 2 images is for wasip1/wasm (there is: linux/amd64, linux/arm64)")

	wasi := foreign{
		layers:   [][]byte{compress(t, tarOf(t, record{name: "app.wasm", body: string(wasm("x"))}))},
		config:   v1.Config{Cmd: []string{"/app.wasm"}, Env: []string{"A=b"}, WorkingDir: "/srv", User: "7"},
		platform: &v1.Platform{OS: "wasi", Architecture: "wasm"}, mediaType: types.OCILayer,
	}
	img := add(t, dir, "wasi", wasi)
	got, err := s.Resolve(t.Context(), "./layout", "")
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	if got.ID != dir+"@"+digest.String() || got.Module != digestOf(wasm("x")) {
		t.Errorf("got %+v", got)
	}
	if c := got.Config; !reflect.DeepEqual(c.Cmd, []string{"/app.wasm"}) || c.Entrypoint != nil || c.WorkingDir != "/srv" || c.User != "7" || len(c.Env) != 1 {
		t.Errorf("config %+v", c)
	}
	if b, err := s.Module(t.Context(), got.Module); err != nil || !bytes.Equal(b, wasm("x")) {
		t.Errorf("module: %v", err)
	}
}

func TestNestedIndexAndExtraRoots(t *testing.T) {
	root, extra := t.TempDir(), filepath.Join(t.TempDir(), "extra")
	inner := add(t, filepath.Join(t.TempDir(), "inner"), "x", foreign{layers: [][]byte{tarOf(t, record{name: "a.wasm", body: string(wasm("nested"))})}})
	p, err := ocilayout.Write(extra, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	index := appendToIndex(t, empty.Index, inner)
	for range 2 { // an index in an index
		index = appendToIndex(t, empty.Index, index)
	}
	if err := p.AppendIndex(index, ocilayout.WithAnnotations(map[string]string{annotationRefName: "docker.io/library/nested:latest"})); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Root: root, ExtraRoots: []string{extra}})
	img, err := s.Resolve(t.Context(), "nested", "")
	if err != nil || img.Module != digestOf(wasm("nested")) {
		t.Fatalf("got %+v, %v", img, err)
	}
	// A new process knows the digest only.
	if b, err := open(t, Config{Root: root, ExtraRoots: []string{extra}}).Module(t.Context(), img.Module); err != nil || !bytes.Equal(b, wasm("nested")) {
		t.Errorf("module: %v", err)
	}
	if again, err := s.Resolve(t.Context(), img.ID, corev1.PullNever); err != nil || again.ID != img.ID {
		t.Errorf("by digest: %+v, %v", again, err)
	}
	build(t, s, BuildSpec{Refs: []string{"nested"}, ModuleReader: bytes.NewReader(wasm("mine"))})
	if img, err = s.Resolve(t.Context(), "nested", ""); err != nil || img.Module != digestOf(wasm("mine")) {
		t.Errorf("Root does not come first: %+v, %v", img, err)
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != img.ID {
		t.Errorf("list %+v, %v", list, err)
	}
	if _, ok, err := s.Present("other"); ok || err != nil {
		t.Errorf("present: %v, %v", ok, err)
	}
}

func TestCancelledContext(t *testing.T) {
	s, _ := store(t)
	img := build(t, s, BuildSpec{Refs: []string{"a"}, ModuleReader: bytes.NewReader(wasm("a"))})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Resolve(ctx, "a", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve: %v", err)
	}
	if _, err := s.Module(ctx, img.Module); !errors.Is(err, context.Canceled) {
		t.Errorf("Module: %v", err)
	}
	if _, err := s.Build(ctx, BuildSpec{Refs: []string{"b"}, ModuleReader: bytes.NewReader(wasm("b"))}); !errors.Is(err, context.Canceled) {
		t.Errorf("Build: %v", err)
	}
}
