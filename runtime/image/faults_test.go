package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestPullFaults: what a registry or the network can do to a pull.
func TestPullFaults(t *testing.T) {
	srv := startRegistry(t)
	big := foreign{
		layers:   [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm("x"))}, record{name: "big", body: strings.Repeat("0123456789abcdef", 1<<16)})},
		config:   v1.Config{Entrypoint: []string{"/app.wasm"}},
		platform: &v1.Platform{OS: "wasi", Architecture: "wasm"}, mediaType: types.OCIUncompressedLayer,
	}.image(t)
	srv.push(t, "big:v1", big)
	ref := srv.host + "/big:v1"
	layers, _ := big.Layers()
	rc, _ := layers[0].Compressed()
	blob, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	layer := digestOf(blob)
	isLayer := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer)
	}
	// serve sends a part of the layer and then breaks the connection.
	serve := func(w http.ResponseWriter, r *http.Request, most int) {
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		}
		_, _ = w.Write(blob[from:min(len(blob), from+most)])
		if from+most < len(blob) {
			panic(http.ErrAbortHandler)
		}
	}
	pulled := func(t *testing.T, s *Service) {
		t.Helper()
		img, err := s.Pull(t.Context(), ref, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Unpack(t.Context(), img, filepath.Join(t.TempDir(), "root")); err != nil {
			t.Error(err)
		}
		checkStore(t, s.cfg.Root)
	}
	t.Run("connections that break are continued", func(t *testing.T) {
		var requests atomic.Int64
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isLayer(r) {
				return false
			}
			requests.Add(1)
			serve(w, r, 200_000)
			return true
		})
		pulled(t, open(t, quick(t)))
		if n := requests.Load(); n < 5 || n > 8 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("another process continues", func(t *testing.T) {
		cfg := quick(t)
		cfg.Registries.Retries = -1
		var asked []string
		var mu sync.Mutex
		var broken atomic.Bool
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isLayer(r) {
				return false
			}
			mu.Lock()
			asked = append(asked, r.Header.Get("Range"))
			mu.Unlock()
			if broken.Load() {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			broken.Store(true)
			serve(w, r, 300_000)
			return true
		})
		_, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "")
		srv.before.Store(nil)
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isLayer(r) {
				return false
			}
			asked = append(asked, r.Header.Get("Range"))
			serve(w, r, len(blob))
			return true
		})
		pulled(t, open(t, cfg))
		if last := asked[len(asked)-1]; last != "bytes=300000-" {
			t.Errorf("asked for %q", asked)
		}
	})
	t.Run("what was left is torn", func(t *testing.T) {
		srv.before.Store(nil)
		cfg := quick(t)
		write(t, filepath.Join(cfg.Root, partialDir, strings.TrimPrefix(layer, "sha256:")), make([]byte, 100_000))
		pulled(t, open(t, cfg))
		cfg = quick(t)
		write(t, filepath.Join(cfg.Root, partialDir, strings.TrimPrefix(layer, "sha256:")), make([]byte, 10_000_000))
		pulled(t, open(t, cfg))
	})
	t.Run("a registry that stalls", func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !isLayer(r) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
			_, _ = w.Write(blob[:1000])
			w.(http.Flusher).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return true
		})
		cfg := quick(t)
		cfg.Registries.Retries = -1
		s := open(t, cfg)
		repo, err := s.cfg.Registries.repository(srv.host + "/big")
		if err != nil {
			t.Fatal(err)
		}
		// Of blobs alone: what else the registry says may take it longer.
		s.transport(repo)
		s.cfg.Registries.Stall = 50 * time.Millisecond
		_, err = s.Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "it has sent nothing for 50ms")
	})
	t.Run("a storm of 429 and 5xx", func(t *testing.T) {
		var n atomic.Int64
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			codes := []int{429, 503, 500, 0}
			code := codes[n.Add(1)%4]
			if code != 0 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(code)
			}
			return code != 0
		})
		pulled(t, open(t, quick(t)))
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})
		cfg := quick(t)
		cfg.Registries.Retries = 1
		_, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "too many requests")
	})
	for name, body := range map[string][]byte{
		"a wrong digest":  bytes.Repeat([]byte("x"), len(blob)),
		"a blob too long": append(bytes.Clone(blob), "more"...),
	} {
		t.Run(name, func(t *testing.T) {
			srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if isLayer(r) {
					_, _ = w.Write(body)
				}
				return isLayer(r)
			})
			s := open(t, quick(t))
			_, err := s.Pull(t.Context(), ref, PullOptions{})
			wantError(t, err, ReasonErrImagePull, "the registry sen")
			if _, ok, err := s.Present(ref); ok || err != nil {
				t.Errorf("present: %v, %v", ok, err)
			}
			srv.before.Store(nil)
			pulled(t, s)
		})
	}
	t.Run("a manifest without end", func(t *testing.T) {
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			for i := 0; i < 2000; i++ {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					break
				}
			}
			return true
		})
		_, err := open(t, quick(t)).Pull(t.Context(), ref, PullOptions{})
		wantError(t, err, ReasonErrImagePull, "")
		srv.before.Store(nil)
	})
	t.Run("nobody waits any more", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		srv.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(r) {
				cancel()
			}
			return false
		})
		defer srv.before.Store(nil)
		if _, err := open(t, quick(t)).Pull(ctx, ref, PullOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("mirrors", func(t *testing.T) {
		dead, empty := startRegistry(t), startRegistry(t)
		dead.Close()
		cfg := quick(t)
		cfg.Registries.Mirrors = map[string][]string{"registry.invalid": {dead.host, empty.host + "/proxy", srv.host}}
		s := open(t, cfg)
		img, err := s.Pull(t.Context(), "registry.invalid/big:v1", PullOptions{})
		if err != nil || img.Ref != "registry.invalid/big:v1" || !strings.HasPrefix(img.ID, "registry.invalid/big@") {
			t.Errorf("%+v, %v", img, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		cfg := quick(t)
		before := srv.blobs.Load()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				// Each as another process would.
				if _, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		checkStore(t, cfg.Root)
		if n := srv.blobs.Load() - before; n > 9 { // the layer once, each its configuration
			t.Errorf("%d blobs were downloaded", n)
		}
	})
	t.Run("another finishes while one has just seen that a layer is missing", func(t *testing.T) {
		cfg := quick(t)
		before := srv.blobs.Load()
		var other sync.Once
		_, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{OnProgress: func(Progress) {
			other.Do(func() {
				if _, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{}); err != nil {
					t.Error(err)
				}
			})
		}})
		if err != nil {
			t.Error(err)
		}
		checkStore(t, cfg.Root)
		if n := srv.blobs.Load() - before; n != 3 { // the layer once, each its configuration
			t.Errorf("%d blobs were downloaded", n)
		}
	})
	t.Run("a blob of the right size that is damaged, and many that notice", func(t *testing.T) {
		cfg := quick(t)
		blobFile := filepath.Join(cfg.Root, "blobs", "sha256", strings.TrimPrefix(layer, "sha256:"))
		write(t, blobFile, make([]byte, len(blob)))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := open(t, cfg).Pull(t.Context(), ref, PullOptions{Verify: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		checkStore(t, cfg.Root)
	})
	t.Run("while another process removes", func(t *testing.T) {
		cfg := quick(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s := open(t, cfg)
				for range 5 {
					if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil && !strings.Contains(err.Error(), "removed") {
						t.Error(err)
					}
					_ = s.Remove(t.Context(), ref)
				}
			})
		}
		wg.Wait()
		checkStore(t, cfg.Root)
	})
}

// A disk that is slow, or who looks on, is not taken for a registry that stalls.
func TestPullToSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
		go server.Serve(l)
		defer server.Close()
		cfg := quick(t)
		cfg.Registries.Retries, cfg.Registries.Offline = -1, false
		s := open(t, cfg)
		repo, err := s.cfg.Registries.repository("localhost:5000/app")
		if err != nil {
			t.Fatal(err)
		}
		trip := s.transport(repo).(*http.Transport)
		trip.DialContext = l.dial
		defer trip.CloseIdleConnections()
		img := foreign{ // of more than is read at a time
			layers:   [][]byte{tarOf(t, record{name: "app.wasm", body: string(wasm(strings.Repeat("x", 1<<20)))})},
			config:   v1.Config{Entrypoint: []string{"/app.wasm"}},
			platform: &v1.Platform{OS: "wasip1", Architecture: "wasm"},
		}.image(t)
		if err := remote.Write(repo.Tag("v1"), img, remote.WithTransport(trip)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Pull(t.Context(), "localhost:5000/app:v1", PullOptions{OnProgress: func(p Progress) {
			if p.Done > 0 {
				time.Sleep(10 * cfg.Registries.Stall) // of the bubble's time
			}
		}})
		if err != nil {
			t.Error(err)
		}
	})
}

// pipeListener is a listener without sockets, for bubbles.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	return nil, net.ErrClosed
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }
