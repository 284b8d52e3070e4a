package image

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// server is a registry in this process, with a handler before it.
type server struct {
	*httptest.Server
	host string
	// before may answer a request instead of the registry.
	before atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	blobs  atomic.Int64 // GET requests for blobs
}

func startRegistry(t testing.TB) *server {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's credentials
	s := &server{}
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			s.blobs.Add(1)
		}
		if f := s.before.Load(); f != nil && (*f)(w, r) {
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	s.host = strings.TrimPrefix(s.URL, "http://")
	return s
}

func (s *server) intercept(f func(http.ResponseWriter, *http.Request) bool) { s.before.Store(&f) }

// push puts an image into the registry, past the handler.
func (s *server) push(t testing.TB, ref string, img v1.Image) string {
	t.Helper()
	before := s.before.Swap(nil)
	defer s.before.Store(before)
	tag, err := ggcr.ParseReference(s.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func (s *server) pushIndex(t testing.TB, ref string, index v1.ImageIndex) string {
	t.Helper()
	tag, err := ggcr.ParseReference(s.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	d, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// quick is the configuration of tests: what nobody answers is not waited for long, but
// for longer than a busy machine takes to answer.
func quick(t testing.TB) Config {
	return Config{Root: filepath.Join(t.TempDir(), "images"), BaseDir: t.TempDir(), Registries: Registries{Stall: time.Minute}}
}

func wasmImage(t testing.TB, text string) v1.Image {
	return foreign{
		layers:   [][]byte{compress(t, tarOf(t, record{name: "app.wasm", body: string(wasm(text))})), compress(t, tarOf(t, record{name: "etc/motd", body: text}))},
		config:   v1.Config{Entrypoint: []string{"/app.wasm"}},
		platform: &v1.Platform{OS: "wasip1", Architecture: "wasm"}, mediaType: types.OCILayer,
	}.image(t)
}

func TestPull(t *testing.T) {
	srv := startRegistry(t)
	digest := srv.push(t, "team/app:v1", wasmImage(t, "one"))
	s := open(t, quick(t))
	var pulls int
	ensure := func(policy corev1.PullPolicy) (Image, bool) {
		t.Helper()
		img, pulled, err := s.Ensure(t.Context(), Request{Ref: srv.host + "/team/app:v1", Policy: policy, OnPull: func() { pulls++ }})
		if err != nil {
			t.Fatal(err)
		}
		return img, pulled
	}
	img, pulled := ensure(corev1.PullIfNotPresent)
	if !pulled || pulls != 1 || img.ID != srv.host+"/team/app@"+digest || img.Module != digestOf(wasm("one")) || img.Ref != srv.host+"/team/app:v1" {
		t.Errorf("IMG-06, IMG-12: %+v, pulled %v %d", img, pulled, pulls)
	}
	if _, err := os.Stat(filepath.Join(s.cfg.Root, layersDir)); err != nil {
		t.Errorf("nothing was unpacked on the way: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	if err := s.Unpack(t.Context(), img, dir); err != nil || listing(t, dir) != "drwxr-xr-x etc\n-rw-r--r-- etc/motd one" {
		t.Errorf("unpacked %q, %v", listing(t, dir), err)
	}
	t.Run("IMG-01 IfNotPresent and Never use what is there", func(t *testing.T) {
		before := srv.blobs.Load()
		for _, policy := range []corev1.PullPolicy{"", corev1.PullIfNotPresent, corev1.PullNever} {
			if again, pulled := ensure(policy); pulled || again.ID != img.ID {
				t.Errorf("%q: pulled %v, %+v", policy, pulled, again)
			}
		}
		if srv.blobs.Load() != before {
			t.Error("something was downloaded")
		}
	})
	t.Run("IMG-01 Always asks, and downloads nothing that is there", func(t *testing.T) {
		before := srv.blobs.Load()
		if again, pulled := ensure(corev1.PullAlways); !pulled || again.ID != img.ID || srv.blobs.Load() != before {
			t.Errorf("pulled %v, %d blobs, %+v", pulled, srv.blobs.Load()-before, again)
		}
	})
	t.Run("IMG-01 Always notices a tag that moved", func(t *testing.T) {
		digest := srv.push(t, "team/app:v1", wasmImage(t, "two"))
		if again, _ := ensure(corev1.PullAlways); !strings.HasSuffix(again.ID, digest) || again.Module != digestOf(wasm("two")) {
			t.Errorf("%+v", again)
		}
	})
	t.Run("by digest", func(t *testing.T) {
		img, err := s.Pull(t.Context(), srv.host+"/team/app@"+digest, PullOptions{})
		if err != nil || img.Module != digestOf(wasm("one")) {
			t.Errorf("%+v, %v", img, err)
		}
	})
	t.Run("IMG-07 what the registry does not have", func(t *testing.T) {
		_, err := s.Pull(t.Context(), srv.host+"/team/app:v9", PullOptions{})
		wantError(t, err, ReasonErrImagePull, "has no image")
		_, err = s.Pull(t.Context(), srv.host+"/nobody/app", PullOptions{})
		wantError(t, err, ReasonErrImagePull, "check the name and the tag")
	})
	t.Run("IMG-07 nobody listens", func(t *testing.T) {
		_, err := s.Pull(t.Context(), "127.0.0.1:1/app", PullOptions{})
		wantError(t, err, ReasonErrImagePull, "127.0.0.1:1")
	})
	t.Run("plain http to a stranger", func(t *testing.T) {
		r := retrying{registries: &Registries{}}
		req, _ := http.NewRequest(http.MethodGet, "http://10.1.2.3/v2/", nil)
		if _, err := r.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "--insecure-registries") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("offline", func(t *testing.T) {
		cfg := quick(t)
		cfg.Registries.Offline = true
		_, _, err := open(t, cfg).Ensure(t.Context(), Request{Ref: srv.host + "/team/app:v1"})
		wantError(t, err, ReasonErrImagePull, "registries are not to be asked")
	})
	checkStore(t, s.cfg.Root)
}

// TestPullForms: what each of the three forms of WebAssembly images, and what
// only looks like one, comes to.
func TestPullForms(t *testing.T) {
	srv := startRegistry(t)
	s := open(t, quick(t))
	linux := func(arch string, cfg v1.Config, annotations map[string]string) v1.Image {
		img := foreign{
			layers: [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm(arch))}, record{name: "bin/sh", body: "\x7fELF"})},
			config: cfg, platform: &v1.Platform{OS: "linux", Architecture: arch}, mediaType: types.OCIUncompressedLayer,
		}.image(t)
		if annotations != nil {
			img = mutate.Annotations(img, annotations).(v1.Image)
		}
		return img
	}
	native := v1.Config{Cmd: []string{"/bin/sh"}}
	srv.push(t, "compat:annotated", linux("amd64", native, map[string]string{annotationVariant: "compat"}))
	srv.push(t, "compat:entry", linux("amd64", v1.Config{Entrypoint: []string{"/app.wasm"}}, nil))
	srv.push(t, "native:one", linux("amd64", native, nil))
	srv.pushIndex(t, "native:index", platforms(t, linux("amd64", native, nil), linux("arm64", native, nil)))
	srv.pushIndex(t, "multi:index", platforms(t, linux("amd64", native, nil), wasmImage(t, "multi"), linux("arm64", native, nil)))
	for ref, module := range map[string]string{
		"compat:annotated": digestOf(wasm("amd64")),
		"compat:entry":     digestOf(wasm("amd64")),
		"multi:index":      digestOf(wasm("multi")),
	} {
		s := s
		if ref == "multi:index" { // an index with images that are not here is a store's good right
			s = open(t, quick(t))
		}
		img, err := s.Pull(t.Context(), srv.host+"/"+ref, PullOptions{})
		if err != nil || img.Module != module {
			t.Errorf("%s: %+v, %v", ref, img, err)
		}
	}
	before := srv.blobs.Load()
	_, err := s.Pull(t.Context(), srv.host+"/native:one", PullOptions{})
	wantError(t, err, ReasonErrImagePull, "is for linux/amd64: it holds native programs, and this node runs WebAssembly modules (WASI preview 1)")
	_, err = s.Pull(t.Context(), srv.host+"/native:index", PullOptions{})
	wantError(t, err, ReasonErrImagePull, "it holds native programs")
	if n := srv.blobs.Load() - before; n > 2 {
		t.Errorf("%d blobs were downloaded of images that cannot run", n)
	}
	t.Run("an image that claims another's module", func(t *testing.T) {
		img := foreign{
			layers: [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm("mine"))})}, mediaType: types.OCIUncompressedLayer,
			platform: &v1.Platform{OS: "wasip1", Architecture: "wasm"},
		}.image(t)
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		cf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: cf.OS, Architecture: cf.Architecture})
		if err != nil {
			t.Fatal(err)
		}
		img, err = mutate.Append(base, mutate.Addendum{Layer: layers[0], MediaType: types.OCIUncompressedLayer, Annotations: map[string]string{
			annotationEntry: "/app.wasm", annotationModule: digestOf(wasm("multi")),
		}})
		if err != nil {
			t.Fatal(err)
		}
		srv.push(t, "liar:v1", img)
		_, err = s.Pull(t.Context(), srv.host+"/liar:v1", PullOptions{})
		wantError(t, err, ReasonErrImagePull, "damaged or was replaced")
		if _, ok, err := s.Present(srv.host + "/liar:v1"); ok || err != nil {
			t.Errorf("present: %v, %v", ok, err)
		}
	})
	t.Run("a component", func(t *testing.T) {
		srv.push(t, "component:v1", foreign{
			layers:   [][]byte{append([]byte("\x00asm\x0d\x00\x01\x00"), "x"...)},
			platform: &v1.Platform{OS: "wasip2", Architecture: "wasm"}, mediaType: wasmLayer,
		}.image(t))
		_, err := s.Pull(t.Context(), srv.host+"/component:v1", PullOptions{})
		wantError(t, err, ReasonErrImagePull, "component")
	})
	checkStore(t, s.cfg.Root)
}

func platforms(t testing.TB, images ...v1.Image) v1.ImageIndex {
	index := v1.ImageIndex(empty.Index)
	for _, img := range images {
		cf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: cf.OS, Architecture: cf.Architecture},
		}})
	}
	return index
}

// pullSecret is an imagePullSecret for a registry.
func pullSecret(t testing.TB, name, registry, user, password string) *corev1.Secret {
	raw, err := json.Marshal(map[string]any{"auths": map[string]any{
		registry: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: raw},
	}
}

func TestPullCredentials(t *testing.T) {
	srv := startRegistry(t)
	srv.push(t, "private/app:v1", wasmImage(t, "secret"))
	ref := srv.host + "/private/app:v1"
	good := pullSecret(t, "good", srv.host, "ann", "pass")
	changed := pullSecret(t, "good", srv.host, "ann", "other")
	wrong := pullSecret(t, "wrong", srv.host+"/private", "ann", "no")
	tests := map[string]func(){
		"basic": func() {
			srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if user, password, _ := r.BasicAuth(); user == "ann" && password == "pass" {
					return false
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
		},
		"token, which expires all the time": func() {
			var mu sync.Mutex
			uses := map[string]int{}
			srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					if user, password, _ := r.BasicAuth(); user != "ann" || password != "pass" {
						w.WriteHeader(http.StatusUnauthorized)
						return true
					}
					mu.Lock()
					defer mu.Unlock()
					token := fmt.Sprintf("t%d", len(uses))
					uses["Bearer "+token] = 2
					fmt.Fprintf(w, `{"token":%q,"expires_in":1}`, token)
					return true
				}
				mu.Lock()
				defer mu.Unlock()
				if token := r.Header.Get("Authorization"); uses[token] > 0 {
					uses[token]--
					return false
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, srv.URL))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
		},
	}
	for name, protect := range tests {
		t.Run(name, func(t *testing.T) {
			protect()
			s := open(t, quick(t))
			_, _, err := s.Ensure(t.Context(), Request{Ref: ref})
			wantError(t, err, ReasonErrImagePull, "imagePullSecrets")
			// The longer match is tried first, and fails.
			img, pulled, err := s.Ensure(t.Context(), Request{Ref: ref, Secrets: []*corev1.Secret{wrong, good}})
			if err != nil || !pulled {
				t.Fatalf("%+v, %v", img, err)
			}
			t.Run("IMG-04 a pod without the secret has to pull", func(t *testing.T) {
				_, _, err := s.Ensure(t.Context(), Request{Ref: ref})
				wantError(t, err, ReasonErrImagePull, "denies access")
				_, _, err = s.Ensure(t.Context(), Request{Ref: ref, Policy: corev1.PullNever})
				wantError(t, err, ReasonErrImageNeverPull, "is not present with pull policy of Never")
				_, _, err = s.Ensure(t.Context(), Request{Ref: ref, Secrets: []*corev1.Secret{wrong}})
				wantError(t, err, ReasonErrImagePull, "denies access")
			})
			t.Run("IMG-04 the secret that it was pulled with, whatever is in it now", func(t *testing.T) {
				for _, secret := range []*corev1.Secret{good, changed, pullSecret(t, "another", srv.host, "ann", "pass")} {
					if _, pulled, err := s.Ensure(t.Context(), Request{Ref: ref, Secrets: []*corev1.Secret{secret}}); pulled || err != nil {
						t.Errorf("%s: pulled %v, %v", secret.Name, pulled, err)
					}
				}
			})
			t.Run("what the operator pulls is everybody's", func(t *testing.T) {
				if _, err := s.Pull(t.Context(), ref, PullOptions{Secrets: []*corev1.Secret{good}, Operator: true}); err != nil {
					t.Fatal(err)
				}
				if _, pulled, err := s.Ensure(t.Context(), Request{Ref: ref}); pulled || err != nil {
					t.Errorf("pulled %v, %v", pulled, err)
				}
			})
			t.Run("docker's configuration", func(t *testing.T) {
				dir := t.TempDir()
				write(t, filepath.Join(dir, "config.json"), good.Data[corev1.DockerConfigJsonKey])
				t.Setenv("DOCKER_CONFIG", dir)
				s := open(t, quick(t))
				if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
					t.Error(err)
				}
				cfg := quick(t)
				cfg.Registries.NoHostCredentials = true
				_, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{})
				wantError(t, err, ReasonErrImagePull, "denies access")
			})
			t.Run("a secret that is none", func(t *testing.T) {
				bad := good.DeepCopy()
				bad.Data[corev1.DockerConfigJsonKey] = []byte("{")
				_, _, err := s.Ensure(t.Context(), Request{Ref: ref, Policy: corev1.PullAlways, Secrets: []*corev1.Secret{bad}})
				wantError(t, err, ReasonErrImagePull, "imagePullSecret default/good")
			})
		})
	}
}

func TestRegistryMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, repository string
		want                bool
	}{
		{"docker.io", "docker.io/library/x", true},
		{"https://index.docker.io/v1/", "docker.io/library/x", true},
		{"registry.io", "registry.io:5000/x", false},
		{"registry.io:5000", "registry.io:5000/x", true},
		{"*.registry.io", "eu.registry.io/x", true},
		{"*.registry.io", "registry.io/x", false},
		{"*.registry.io", "a.b.registry.io/x", false},
		{"registry.io/team", "registry.io/team/x", true},
		{"registry.io/team", "registry.io/teams/x", false},
		{"[", "registry.io/x", false},
		{"", "registry.io/x", false},
	} {
		if got := registryMatches(c.pattern, c.repository); got != c.want {
			t.Errorf("%q for %q: %v", c.pattern, c.repository, got)
		}
	}
}
