package image

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestBuildForms(t *testing.T) {
	s, root := store(t)
	other := open(t, Config{Root: filepath.Join(t.TempDir(), "other"), BaseDir: t.TempDir()})
	for _, c := range []struct {
		form, platform, os, config string
		layer                      string
	}{
		{"", "", "wasip1", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"},
		{FormWASI, "wasi/wasm", "wasi", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"},
		{FormArtifact, "", "wasip1", "application/vnd.wasm.config.v0+json", "application/wasm"},
		{FormCompat, "", "linux", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"},
	} {
		t.Run(c.form+c.platform, func(t *testing.T) {
			spec := BuildSpec{Refs: []string{"x"}, Module: write(t, filepath.Join(t.TempDir(), "app.wasm"), wasm("x")), Form: c.form, Platform: c.platform}
			img := build(t, s, spec)
			if again := build(t, other, spec); again.ID != img.ID {
				t.Errorf("not the same bytes: %s, %s", again.ID, img.ID)
			}
			if img.Module != digestOf(wasm("x")) {
				t.Errorf("%+v", img)
			}
			desc, _, _ := s.stores[0].find(name{full: "docker.io/library/x:latest"})
			raw, err := s.stores[0].readBlob(desc)
			if err != nil {
				t.Fatal(err)
			}
			var m v1.Manifest
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			config, err := s.stores[0].readBlob(m.Config)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Config.MediaType) != c.config || string(m.Layers[0].MediaType) != c.layer || !strings.Contains(string(config), `"os":"`+c.os+`"`) {
				t.Errorf("manifest %s\nconfig %s", raw, config)
			}
			if compat := m.Annotations[annotationVariant] == "compat"; compat != (c.form == FormCompat) {
				t.Errorf("annotations %v", m.Annotations)
			}
		})
	}
	checkStore(t, root)
	for _, spec := range []BuildSpec{
		{Form: "other"}, {Platform: "linux/amd64"}, {Form: FormCompat, Platform: "wasip1/wasm"}, {Form: FormArtifact, Env: []string{"A=b"}},
		{Form: FormArtifact, Platform: "linux/amd64"}, {Platform: "wasip1"}, {Platform: "a/b/c"},
	} {
		spec.Refs, spec.ModuleReader = []string{"x"}, bytes.NewReader(wasm("x"))
		if _, err := s.Build(t.Context(), spec); err == nil {
			t.Errorf("%+v: no error", spec)
		}
	}
}

func TestParseContainerfile(t *testing.T) {
	got, err := ParseContainerfile(`# a server
FROM --platform=wasi/wasm scratch
WORKDIR /srv
COPY --chmod=640 site index.html ./
copy server.wasm /bin/server.wasm
ENTRYPOINT ["/bin/server.wasm", "--listen"]
CMD :8080
ENV A=1 B="two words" \
    C='x'
ENV OLD style
LABEL org.example=yes
EXPOSE 8080 53/udp
USER 1000:1000
STOPSIGNAL SIGINT
`, "/ctx")
	want := BuildSpec{
		Platform: "wasi/wasm", Module: "/ctx/server.wasm", ModuleName: "bin/server.wasm",
		Files:      []File{{"/ctx/site", "/srv/site", 0o640}, {"/ctx/index.html", "/srv/index.html", 0o640}},
		Entrypoint: []string{"/bin/server.wasm", "--listen"}, Cmd: []string{":8080"},
		Env: []string{"A=1", "B=two words", "C=x", "OLD=style"}, WorkingDir: "/srv", User: "1000:1000",
		Labels: map[string]string{"org.example": "yes"}, ExposedPorts: []string{"8080/tcp", "53/udp"}, StopSignal: "SIGINT",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for text, message := range map[string]string{
		"":                                   "no FROM scratch",
		"COPY a b":                           "line 1: the first instruction",
		"FROM alpine":                        "only one stage",
		"FROM scratch\nFROM scratch":         "only one stage",
		"FROM scratch\nRUN make":             "line 2: RUN is not supported",
		"FROM scratch\nCOPY ../x /y":         "not below the folder",
		"FROM scratch\nCOPY /etc /y":         "not below the folder",
		"FROM scratch\nCOPY x":               "source and a destination",
		"FROM scratch\nCOPY --from=a x":      "not supported",
		"FROM scratch\nENV":                  "ENV of nothing",
		"FROM scratch\nCMD \"x":              "a quote is not closed",
		"FROM scratch\nCMD [x]":              "want [",
		"FROM scratch\nCMD x \\":             "ends within",
		"FROM scratch\nCMD x":                "which module is started",
		"FROM scratch\nCOPY a.wasm b.wasm /": "which module is started",
		"FROM scratch\nMAINTAINER me":        "not supported",
	} {
		if _, err := ParseContainerfile(text, "."); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v, want …%s…", text, err, message)
		}
	}
}

func FuzzParseContainerfile(f *testing.F) {
	f.Add("FROM scratch\nCOPY a.wasm /\nCMD [\"/a.wasm\"]")
	f.Add("FROM scratch\nENV A=\"b\" \\\n C=d")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := ParseContainerfile(text, "/ctx")
		if err != nil {
			return
		}
		for _, file := range append(spec.Files, File{Host: spec.Module}) {
			if rel, err := filepath.Rel("/ctx", file.Host); err != nil || rel != "." && !filepath.IsLocal(rel) {
				t.Errorf("%q is not below the folder", file.Host)
			}
		}
	})
}

func TestSaveAndLoad(t *testing.T) {
	s, _ := store(t)
	files := t.TempDir()
	write(t, filepath.Join(files, "motd"), []byte("hello"))
	a := build(t, s, BuildSpec{Refs: []string{"team/a:v1"}, ModuleReader: bytes.NewReader(wasm("a")), Files: []File{{Host: files, Guest: "/etc"}}})
	b := build(t, s, BuildSpec{Refs: []string{"b"}, ModuleReader: bytes.NewReader(wasm("b")), Form: FormArtifact})
	for _, format := range []string{FormatOCIArchive, FormatDockerArchive, FormatOCI} {
		t.Run(format, func(t *testing.T) {
			refs := []string{"team/a:v1", "b"}
			if format == FormatDockerArchive {
				if err := s.Save(t.Context(), &bytes.Buffer{}, format, "b"); err == nil || !strings.Contains(err.Error(), "save it as oci-archive") {
					t.Errorf("an artifact: %v", err)
				}
				refs = refs[:1]
			}
			var archive, again bytes.Buffer
			dir := filepath.Join(t.TempDir(), "layout")
			to, root := store(t)
			var list []Image
			var err error
			if format == FormatOCI {
				if err := s.SaveLayout(t.Context(), dir, refs...); err != nil {
					t.Fatal(err)
				}
				if err := s.SaveLayout(t.Context(), dir, refs...); err == nil {
					t.Error("it was overwritten")
				}
				list, err = to.Load(t.Context(), dir, nil)
			} else {
				for _, w := range []*bytes.Buffer{&archive, &again} {
					if err := s.Save(t.Context(), w, format, refs...); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(archive.Bytes(), again.Bytes()) {
					t.Error("not the same bytes")
				}
				list, err = to.Load(t.Context(), "-", bytes.NewReader(compress(t, archive.Bytes())))
			}
			if err != nil || len(list) != len(refs) || list[0].Ref != a.Ref || list[0].Module != a.Module {
				t.Fatalf("%+v, %v", list, err)
			}
			if format != FormatDockerArchive && (list[0].ID != a.ID || list[1].ID != b.ID) {
				t.Errorf("%+v", list)
			}
			root1 := filepath.Join(t.TempDir(), "root")
			if err := to.Unpack(t.Context(), list[0], root1); err != nil || !strings.Contains(listing(t, root1), "etc/motd hello") {
				t.Errorf("%s, %v", listing(t, root1), err)
			}
			checkStore(t, root)
			if format == FormatOCI {
				return
			}
			// A name of our own is for one image only.
			if _, err := to.Load(t.Context(), "-", bytes.NewReader(archive.Bytes()), "mine"); (err == nil) != (len(refs) == 1) {
				t.Errorf("load under a name: %v", err)
			}
			for _, cut := range []int{0, 100, 600, archive.Len() / 2} {
				empty, root := store(t)
				if _, err := empty.Load(t.Context(), "-", bytes.NewReader(archive.Bytes()[:cut])); err == nil {
					t.Errorf("an archive cut at %d was loaded", cut)
				}
				if _, err := os.Stat(filepath.Join(root, "index.json")); err == nil {
					checkStore(t, root)
				}
			}
			flipped := bytes.Clone(archive.Bytes())
			flipped[bytes.Index(flipped, []byte("hello"))] ^= 1
			empty, root := store(t)
			// A docker-archive names nothing by digest: what it says is what it is.
			if _, err := empty.Load(t.Context(), "-", bytes.NewReader(flipped)); err == nil && format == FormatOCIArchive {
				t.Error("a damaged archive was loaded")
			}
			if _, err := os.Stat(filepath.Join(root, "index.json")); err == nil {
				checkStore(t, root)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(tarOf(f, record{name: "index.json", body: `{"manifests":[]}`}, record{name: "oci-layout", body: `{}`}))
	f.Add(tarOf(f, record{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":["x"],"Layers":["../l.tar"]}]`},
		record{name: "c.json", body: `{}`}, record{name: "l.tar", body: string(tarOf(f, record{name: "a.wasm", body: string(wasm("x"))}))}))
	f.Add(tarOf(f, record{name: "manifest.json", body: `[{"Config":"c.json","Layers":["l.tar"]}]`}, record{name: "c.json", body: `{}`}, record{name: "l.tar", kind: '2', link: "l.tar"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Each load waits for the disk, with all that others have written; not in memory.
		top, err := os.MkdirTemp("/dev/shm", "load")
		if err != nil {
			top = t.TempDir()
		}
		defer os.RemoveAll(top)
		s := open(t, Config{Root: filepath.Join(top, "images"), MaxModuleBytes: 1 << 20, MaxImageBytes: 1 << 20, MaxImageFiles: 200})
		_, _ = s.Load(t.Context(), "-", bytes.NewReader(raw))
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) > 1 {
			t.Errorf("something was written outside the store: %v, %v", entries, err)
		}
		if _, err := open(t, Config{Root: filepath.Join(top, "images")}).List(t.Context()); err != nil && !strings.Contains(err.Error(), "Failed to inspect image") {
			t.Error(err)
		}
	})
}
