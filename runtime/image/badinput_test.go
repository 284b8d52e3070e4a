package image

import (
	"archive/tar"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// answers is a registry that gives one answer again and again.
type answers struct {
	code  int
	after string
	at    []time.Time
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	a.at = append(a.at, time.Now())
	return &http.Response{StatusCode: a.code, Header: http.Header{"Retry-After": {a.after}}, Body: http.NoBody}, nil
}

// TestStorm: what a registry says of when to come again is heeded, but nobody
// waits for ever.
func TestStorm(t *testing.T) {
	for _, c := range []struct {
		code      int
		after     string
		tries     int
		min, most time.Duration // between two
	}{
		{http.StatusTooManyRequests, "7", 6, 7 * time.Second, 7 * time.Second},
		{http.StatusServiceUnavailable, "3600", 6, maxRetryDelay, maxRetryDelay},
		{http.StatusServiceUnavailable, "-1", 6, firstRetryDelay / 2, maxRetryDelay},
		{http.StatusBadGateway, "99999999999999999999", 6, firstRetryDelay / 2, maxRetryDelay},
		{http.StatusGatewayTimeout, "soon", 6, firstRetryDelay / 2, maxRetryDelay},
		{http.StatusServiceUnavailable, "Sat, 01 Jan 2000 00:00:10 GMT", 6, firstRetryDelay / 2, 11 * time.Second},
		{http.StatusNotFound, "1", 1, 0, 0},
		{http.StatusNotImplemented, "", 1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01 00:00 UTC
			registry := &answers{code: c.code, after: c.after}
			r := retrying{inner: registry, retries: 5, registries: &Registries{}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://registry.test/v2/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := r.RoundTrip(req)
			if err != nil || resp.StatusCode != c.code {
				t.Errorf("%v, %v", resp, err)
			}
			if len(registry.at) != c.tries {
				t.Errorf("%d %q: %d tries", c.code, c.after, len(registry.at))
			}
			for i := 1; i < len(registry.at); i++ {
				if d := registry.at[i].Sub(registry.at[i-1]); d < c.min || d > c.most {
					t.Errorf("%d %q: %v until try %d", c.code, c.after, d, i)
				}
			}
			if strings.Contains(c.after, "GMT") && registry.at[1].Before(time.Date(2000, 1, 1, 0, 0, 10, 0, time.UTC)) {
				t.Errorf("came again at %v", registry.at[1])
			}
		})
	}
}

// TestHostileLayers: layers that a registry may send, from the pull to the files.
func TestHostileLayers(t *testing.T) {
	srv := startRegistry(t)
	module := record{name: "e.wasm", body: string(wasm("e"))}
	links := []record{
		module,
		{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"},
		{name: "self", kind: tar.TypeSymlink, link: "self"},
		{name: "d/up", kind: tar.TypeSymlink, link: "../d"},
	}
	for i, c := range []struct {
		name    string
		records []record
		entry   string
		files   int
		want    string // of the error; empty: it runs
	}{
		{"circular symlinks that nothing uses", links, "/e.wasm", 0, ""},
		{"a file below circular symlinks", append(links, record{name: "a/x", body: "x"}), "/e.wasm", 0, "symlink"},
		{"a file below a symlink to itself", append(links, record{name: "self/x", body: "x"}), "/e.wasm", 0, "symlink"},
		{"an entry module behind circular symlinks", links, "/a", 0, ""}, // then its only module
		{"a hard link to a circular symlink", append(links, record{name: "h", kind: tar.TypeLink, link: "a"}), "/e.wasm", 0, ""},
		{"a hard link to itself", append(links, record{name: "h", kind: tar.TypeLink, link: "h"}), "/e.wasm", 0, "h"},
		{"a little that unpacks to much", []record{module, {name: "zero", body: strings.Repeat("\x00", 4<<20)}}, "/e.wasm", 0, "too large"},
		{"more entries than are allowed", manyLinks(module, 301), "/e.wasm", 300, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := fmt.Sprintf("hostile%d:v1", i)
			srv.push(t, ref, foreign{
				layers: [][]byte{compress(t, tarOf(t, c.records...))}, mediaType: types.OCILayer,
				config: v1.Config{Entrypoint: []string{c.entry}}, platform: &v1.Platform{OS: "wasip1", Architecture: "wasm"},
			}.image(t))
			cfg := quick(t)
			cfg.MaxImageBytes, cfg.MaxImageFiles = 1<<20, c.files
			s := open(t, cfg)
			img, err := s.Pull(t.Context(), srv.host+"/"+ref, PullOptions{})
			dir := t.TempDir()
			if err == nil {
				err = s.Unpack(t.Context(), img, dir)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error = %v, want …%s…", err, c.want)
			case c.want != "" && listing(t, dir) != "":
				t.Errorf("left behind:\n%s", listing(t, dir))
			}
		})
	}
	t.Run("100,000 entries", func(t *testing.T) {
		if testing.Short() {
			t.Skip("100,000 files are made")
		}
		srv.push(t, "many:v1", foreign{
			layers: [][]byte{compress(t, tarOf(t, manyLinks(module, 100_000)...))}, mediaType: types.OCILayer,
			config: v1.Config{Entrypoint: []string{"/e.wasm"}}, platform: &v1.Platform{OS: "wasip1", Architecture: "wasm"},
		}.image(t))
		s := open(t, quick(t))
		img, err := s.Pull(t.Context(), srv.host+"/many:v1", PullOptions{})
		if err != nil || img.Module != digestOf(wasm("e")) {
			t.Errorf("%+v, %v", img, err)
		}
		checkStore(t, s.cfg.Root)
	})
}

func manyLinks(first record, n int) []record {
	list := []record{first}
	for i := range n {
		list = append(list, record{name: fmt.Sprintf("d%d/%d", i%100, i), kind: tar.TypeSymlink, link: "x"})
	}
	return list
}
