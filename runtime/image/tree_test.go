package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestEntryModule(t *testing.T) {
	app, other := string(wasm("app")), string(wasm("other"))
	for name, c := range map[string]struct {
		config  v1.Config
		records []record
		want    string // digest, or a part of the error
	}{
		"entrypoint": {
			v1.Config{Entrypoint: []string{"/bin/app.wasm"}},
			[]record{{name: "bin/app.wasm", body: app}, {name: "other.wasm", body: other}}, app},
		"command": {
			v1.Config{Cmd: []string{"/app.wasm", "-x"}},
			[]record{{name: "app.wasm", body: app}, {name: "other.wasm", body: other}}, app},
		"relative to the working directory": {
			v1.Config{Cmd: []string{"./app.wasm"}, WorkingDir: "/srv"},
			[]record{{name: "srv/app.wasm", body: app}, {name: "app.wasm", body: other}}, app},
		"in PATH, through symlinks, without suffix": {
			v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/x:/bin"}},
			[]record{
				{name: "lib/app", body: app}, {name: "other.wasm", body: other},
				{name: "bin", kind: tar.TypeSymlink, link: "/usr/bin"}, {name: "usr/bin/"},
				{name: "usr/bin/sh", kind: tar.TypeSymlink, link: "../../lib/app"}}, app},
		"hard link": {
			v1.Config{Cmd: []string{"/ls"}},
			[]record{{name: "app", body: app}, {name: "ls", kind: tar.TypeLink, link: "app"}, {name: "o", body: other}}, app},
		"label": {
			v1.Config{Entrypoint: []string{"/start"}, Labels: map[string]string{annotationEntry: "/app.wasm"}},
			[]record{{name: "app.wasm", body: app}, {name: "other.wasm", body: other}}, app},
		"label that names nothing": {
			v1.Config{Labels: map[string]string{annotationEntry: "/gone.wasm"}},
			[]record{{name: "app.wasm", body: app}}, `names "/gone.wasm", which is not in the image`},
		"label that names a text": {
			v1.Config{Labels: map[string]string{annotationEntry: "/text"}},
			[]record{{name: "app.wasm", body: app}, {name: "text", body: "long enough"}}, `which is not a WebAssembly module`},
		"sole .wasm": {
			v1.Config{Entrypoint: []string{"/start"}},
			[]record{{name: "a/b/c.wasm", body: app}, {name: "lib/plugin", body: other}}, app},
		"sole module": {
			v1.Config{}, []record{{name: "start", body: app}, {name: "README", body: "read me"}}, app},
		"mentioned by the command of another runtime": {
			v1.Config{Entrypoint: []string{"/runtime", "--dir", "/"}, Cmd: []string{"/app.wasm"}},
			[]record{{name: "app.wasm", body: app}, {name: "other.wasm", body: other}, {name: "runtime", body: "\x7fELFxxxxxxx"}}, app},
		"several": {
			v1.Config{}, []record{{name: "app.wasm", body: app}, {name: "other.wasm", body: other}},
			"the image holds 2 modules (/app.wasm, /other.wasm) and names none of them"},
		"none":      {v1.Config{}, []record{{name: "bin/sh", body: "\x7fELF"}}, "no WebAssembly module"},
		"empty":     {v1.Config{}, nil, "no WebAssembly module"},
		"component": {v1.Config{}, []record{{name: "a.wasm", body: "\x00asm\x0d\x00\x01\x00"}}, "a WebAssembly component"},
		"symlink loop": {
			v1.Config{Cmd: []string{"/a"}},
			[]record{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "/a"}, {name: "c/d", kind: tar.TypeSymlink, link: "."}}, "no WebAssembly module"},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "images")
			add(t, root, "docker.io/library/x:latest", foreign{layers: [][]byte{tarOf(t, c.records...)}, config: c.config})
			s := open(t, Config{Root: root})
			img, err := s.Resolve(t.Context(), "x", "")
			if !strings.HasPrefix(c.want, "\x00asm") {
				wantError(t, err, ReasonImageInspectError, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.Module(t.Context(), img.Module)
			if err != nil || string(b) != c.want {
				t.Errorf("module = %q, %v, want %q", b, err, c.want)
			}
			dir := t.TempDir()
			if err := s.Unpack(t.Context(), img, dir); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(listing(t, dir), c.want) {
				t.Errorf("the entry module was unpacked:\n%s", listing(t, dir))
			}
		})
	}
}

func TestWasmArtifact(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	addRaw(t, root, "docker.io/library/x:latest", wasm("raw"), wasmLayer)
	s := open(t, Config{Root: root})
	img, err := s.Resolve(t.Context(), "x", "")
	if err != nil || img.Module != digestOf(wasm("raw")) || len(img.Config.Entrypoint) != 1 {
		t.Fatalf("got %+v, %v", img, err)
	}
	if b, err := s.Module(t.Context(), img.Module); err != nil || !bytes.Equal(b, wasm("raw")) {
		t.Error(err)
	}
	if err := s.Unpack(t.Context(), img, t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestUnpackLayers(t *testing.T) {
	entry := record{name: "entry.wasm", body: string(wasm("e"))}
	for name, c := range map[string]struct {
		layers [][]record
		want   string // listing, without the entry; or "error: …"
	}{
		"files of all kinds": {
			[][]record{{
				{name: "./etc/", mode: 0o750}, {name: "./etc/motd", body: "hi", mode: 0o4755},
				{name: "etc/link", kind: tar.TypeSymlink, link: "../../../outside"},
				{name: "etc/abs", kind: tar.TypeSymlink, link: "/etc/motd"},
				{name: "etc/hard", kind: tar.TypeLink, link: "/etc/motd"},
				{name: "secret", body: "x", mode: 0o200},
				{name: "dev/null", kind: tar.TypeChar}, {name: "pipe", kind: tar.TypeFifo},
				{name: "tmp/", mode: 0o1777},
			}},
			`drwxr-x--- etc
link etc/abs -> /etc/motd
-rwxr-xr-x etc/hard hi
link etc/link -> ../../../outside
-rwxr-xr-x etc/motd hi
-rw------- secret x
dtrwxrwxrwx tmp`},
		"names cannot leave the root": {
			[][]record{{{name: "../../up", body: "1"}, {name: "/abs", body: "2"}, {name: "a/../../b", body: "3"}, {name: "./../c/", mode: 0o700}}},
			"-rw-r--r-- abs 2\n-rw-r--r-- b 3\ndrwx------ c\n-rw-r--r-- up 1"},
		"symlinks do not lead out": {
			[][]record{{
				{name: "out", kind: tar.TypeSymlink, link: "../../../../tmp"}, {name: "out/file", body: "1"},
				{name: "abs", kind: tar.TypeSymlink, link: "/etc"}, {name: "abs/passwd", body: "2"}}},
			"link abs -> /etc\ndrwxr-xr-x etc\n-rw-r--r-- etc/passwd 2\nlink out -> ../../../../tmp\ndrwxr-xr-x tmp\n-rw-r--r-- tmp/file 1"},
		"a hard link to a symlink is a symlink": {
			[][]record{{{name: "s", kind: tar.TypeSymlink, link: "/etc/shadow"}, {name: "h", kind: tar.TypeLink, link: "s"}}},
			"link h -> /etc/shadow\nlink s -> /etc/shadow"},
		"hard link to nothing": {
			[][]record{{{name: "h", kind: tar.TypeLink, link: "../../etc/passwd"}}},
			`error: the hard link "h" has no target "../../etc/passwd"`},
		"a hard link outlives its target": {
			[][]record{{{name: "a", body: "x"}, {name: "b", kind: tar.TypeLink, link: "a"}}, {{name: ".wh.a"}}},
			"-rw-r--r-- b x"},
		"later layers replace": {
			[][]record{
				{{name: "a", body: "old"}, {name: "d/x", body: "x"}, {name: "f", body: "file"}, {name: "l", kind: tar.TypeSymlink, link: "d"}},
				{{name: "a", body: "new"}, {name: "d", body: "now a file"}, {name: "f/g", body: "now in a directory"}, {name: "l/"}}},
			"-rw-r--r-- a new\n-rw-r--r-- d now a file\ndrwxr-xr-x f\n-rw-r--r-- f/g now in a directory\ndrwxr-xr-x l"},
		"the last record of a name counts": {
			[][]record{{{name: "a", body: "1"}, {name: "a", body: "2"}}}, "-rw-r--r-- a 2"},
		"whiteouts": {
			[][]record{
				{{name: "a", body: "a"}, {name: "d/x", body: "x"}, {name: "d/y", body: "y"}, {name: "e/x", body: "x"}},
				{{name: ".wh.a"}, {name: "d/.wh.x"}, {name: ".wh.e"}, {name: ".wh.never"}, {name: "no/.wh.such"}}},
			"drwxr-xr-x d\n-rw-r--r-- d/y y"},
		"whiteouts hide lower layers only, in any order": {
			[][]record{
				{{name: "d/low", body: "1"}, {name: "e/low", body: "1"}, {name: "f", body: "1"}},
				{{name: "d/up", body: "2"}, {name: "d/.wh..wh..opq"}, {name: "e/up", body: "2"}, {name: ".wh.e"}, {name: "f", body: "2"}, {name: ".wh.f"}}},
			"drwxr-xr-x d\n-rw-r--r-- d/up 2\ndrwxr-xr-x e\n-rw-r--r-- e/up 2\n-rw-r--r-- f 2"},
		"opaque at any depth": {
			[][]record{
				{{name: "a/b/c/low", body: "1"}},
				{{name: "a/b/c/up", body: "2"}, {name: "a/.wh..wh..opq"}}},
			"drwxr-xr-x a\ndrwxr-xr-x a/b\ndrwxr-xr-x a/b/c\n-rw-r--r-- a/b/c/up 2"},
		"no name":           {[][]record{{{name: "/..", kind: tar.TypeSymlink, link: "x"}}}, "error: would replace the root directory"},
		"name too long":     {[][]record{{{name: strings.Repeat("x", 256), body: "1"}}}, "error: longer than 255 bytes"},
		"path too long":     {[][]record{{{name: strings.Repeat("x/", 2100) + "y", body: "1"}}}, "error: longer than 4096 bytes"},
		"endless symlink":   {[][]record{{{name: "a", kind: tar.TypeSymlink, link: "a/a"}, {name: "a/b", body: "1"}}}, "error: too many symlinks"},
		"not text":          {[][]record{{{name: "\xff\xfe", body: "1"}}}, "error: not valid UTF-8"},
		"symlink to itself": {[][]record{{{name: "a", kind: tar.TypeSymlink, link: "."}, {name: "a/a/b", body: "1"}}}, "link a -> .\n-rw-r--r-- b 1"},
	} {
		for _, compressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, compressed %v", name, compressed), func(t *testing.T) {
				f := foreign{layers: [][]byte{tarOf(t, entry)}}
				for _, records := range c.layers {
					f.layers = append(f.layers, tarOf(t, records...))
				}
				if compressed {
					f.mediaType = types.OCILayer
					for i, l := range f.layers {
						f.layers[i] = compress(t, l)
					}
				}
				root := filepath.Join(t.TempDir(), "images")
				add(t, root, "docker.io/library/x:latest", f)
				s := open(t, Config{Root: root})
				img, err := s.Resolve(t.Context(), "x", "")
				top := t.TempDir()
				dir := filepath.Join(top, "a", "b", "root")
				if err == nil {
					err = s.Unpack(t.Context(), img, dir)
				}
				if message, ok := strings.CutPrefix(c.want, "error: "); ok {
					if err == nil || !strings.Contains(err.Error(), message) {
						t.Errorf("error = %v, want …%s…", err, message)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := listing(t, dir); got != c.want {
					t.Errorf("unpacked:\n%s\nwant:\n%s", got, c.want)
				}
				if n := strings.Count(listing(t, top), "\n") - strings.Count(listing(t, dir), "\n"); n != 3 {
					t.Errorf("something was written outside:\n%s", listing(t, top))
				}
			})
		}
	}
}

// bomb is a layer that unpacks to far more than it has bytes.
func bomb(t testing.TB, records ...record) foreign {
	return foreign{
		layers:    [][]byte{compress(t, tarOf(t, append([]record{{name: "e.wasm", body: string(wasm("e"))}}, records...)...))},
		mediaType: types.OCILayer,
	}
}

func TestBombs(t *testing.T) {
	many := make([]record, 200)
	for i := range many {
		many[i] = record{name: fmt.Sprint(i), body: "x"}
	}
	deep := []record{{name: strings.Repeat("d/", 200) + "f"}}
	chain := []record{{name: "l0", kind: tar.TypeSymlink, link: strings.Repeat("./", 2000)}}
	for i := range 90 {
		chain = append(chain, record{name: fmt.Sprintf("l0/%d", i), body: ""})
	}
	for name, f := range map[string]foreign{
		"one large file":      bomb(t, record{name: "zero", body: strings.Repeat("\x00", 2<<20)}),
		"overwritten files":   bomb(t, record{name: "a", body: strings.Repeat("\x00", 1<<20)}, record{name: "a", body: strings.Repeat("\x00", 1<<20)}),
		"many files":          bomb(t, many...),
		"implied directories": bomb(t, deep...),
		"entangled symlinks":  bomb(t, chain...),
		"endless tar trailer": {layers: [][]byte{compress(t, append(tarOf(t, record{name: "e.wasm", body: string(wasm("e"))}), make([]byte, 4<<20)...))}, mediaType: types.OCILayer},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "images")
			add(t, root, "docker.io/library/x:latest", f)
			s := open(t, Config{Root: root, MaxImageBytes: 1 << 20, MaxImageFiles: 100})
			img, err := s.Resolve(t.Context(), "x", "")
			dir := t.TempDir()
			if err == nil {
				err = s.Unpack(t.Context(), img, dir)
			}
			if name == "endless tar trailer" {
				// What follows the end of the archive is neither read into
				// memory nor written.
				if err != nil || listing(t, dir) != "" {
					t.Errorf("%v:\n%s", err, listing(t, dir))
				}
				return
			}
			if !errors.Is(err, errTooLarge) {
				t.Errorf("error = %v, want %v", err, errTooLarge)
			}
			if listing(t, dir) != "" {
				t.Errorf("left behind:\n%s", listing(t, dir))
			}
		})
	}
}

func TestUnsupportedLayers(t *testing.T) {
	for name, raw := range map[string][]byte{
		"unexpected EOF":        append(bytes.Clone(zstdMagic), make([]byte, 64)...),
		"invalid tar header":    bytes.Repeat([]byte("rubbish "), 128),
		"gzip":                  {0x1f, 0x8b, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0},
		"no WebAssembly module": {},
	} {
		root := filepath.Join(t.TempDir(), "images")
		addRaw(t, root, "docker.io/library/x:latest", raw, types.OCILayer)
		_, err := open(t, Config{Root: root}).Resolve(t.Context(), "x", "")
		wantError(t, err, ReasonImageInspectError, name)
	}
}

// FuzzUnpack: whatever a layer holds, nothing is written outside the
// directory, nothing panics, and the bounds hold.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, record{name: "e.wasm", body: string(wasm("e"))}, record{name: "a/b", body: "x"}, record{name: "a/.wh.b"}))
	f.Add(tarOf(f, record{name: "e.wasm", body: string(wasm("e"))}, record{name: "l", kind: tar.TypeSymlink, link: "../.."}, record{name: "l/x", body: "x"}))
	f.Add(tarOf(f, record{name: "e.wasm", body: string(wasm("e"))}, record{name: "h", kind: tar.TypeLink, link: "e.wasm"}, record{name: "d/"}, record{name: "d", body: "x"}))
	f.Add(compress(f, tarOf(f, record{name: "e.wasm", body: string(wasm("e"))}, record{name: ".wh..wh..opq"})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		top := t.TempDir()
		root := filepath.Join(top, "images")
		addRaw(t, root, "docker.io/library/x:latest", raw, types.OCILayer)
		s := open(t, Config{Root: root, MaxModuleBytes: 1 << 20, MaxImageBytes: 1 << 20, MaxImageFiles: 200})
		img, err := s.Resolve(t.Context(), "x", "")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Reason != ReasonImageInspectError {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if b, err := s.Module(t.Context(), img.Module); err != nil || digestOf(b) != img.Module {
			t.Fatalf("module: %v", err)
		}
		dir := filepath.Join(top, "in", "root")
		err = s.Unpack(t.Context(), img, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if got := listing(t, filepath.Join(top, "in")); got != "" {
			t.Fatalf("outside (%v):\n%s", err, got)
		}
		if entries, _ := os.ReadDir(top); len(entries) != 2 {
			t.Fatalf("outside: %v", entries)
		}
	})
}

// FuzzReference: a reference is refused or has one normal form.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c", "localhost:5000/x@" + someDigest, "", "x:", "[::1]:80/x", "A/b", "a@b@c"} {
		f.Add(s)
	}
	s := open(f, Config{BaseDir: f.TempDir()})
	f.Fuzz(func(t *testing.T, ref string) {
		path, local, err := s.localPath(ref)
		if local {
			if (err == nil) != (filepath.IsAbs(path) && !strings.ContainsRune(path, 0)) {
				t.Fatalf("%q: %q, %v", ref, path, err)
			}
			return
		}
		n, err := parseReference(ref)
		if err != nil {
			wantError(t, err, ReasonInvalidImageName, "couldn't parse image name")
			return
		}
		again, err := parseReference(n.full)
		if err != nil || again != n {
			t.Fatalf("%q: %+v is parsed as %+v, %v", ref, n, again, err)
		}
	})
}
