package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// controlSocket is where a process answers questions about its pods. The run
// directory is its owner's alone, and so is the socket.
const controlSocket = "control.sock"

// ServeControl answers other processes of this user, see Running, until stop is
// called.
func (r *Runtime) ServeControl() (stop func(), err error) {
	handler, err := r.MetricsHandler()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.HandleFunc("GET /snapshot", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Snapshot()) // the client has gone
	})
	dir, err := openSocketDir(r.run.path)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", dir.path())
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with Close
	}()
	return func() {
		server.Close()
		<-ended
		dir.Close()
	}, nil
}

// socketDir is a directory with a socket. The path of a socket has at most 107
// bytes, which a data directory may exceed: on Linux it is reached by its
// descriptor instead.
type socketDir struct {
	*os.File
	name string
}

func openSocketDir(dir string) (socketDir, error) {
	f, err := os.Open(dir)
	return socketDir{f, dir}, err
}

func (d socketDir) path() string {
	if short := fmt.Sprintf("/proc/self/fd/%d", d.Fd()); exists(short) {
		return filepath.Join(short, controlSocket)
	}
	return filepath.Join(d.name, controlSocket)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Running are the snapshots of all processes that run pods with this data
// directory and that this user may ask. One that does not answer is left out.
func Running(ctx context.Context, dataDir string) ([]metrics.Snapshot, error) {
	parent := filepath.Join(dataDir, "run")
	dirs, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []metrics.Snapshot
	var errs []error
	for _, d := range dirs {
		dir := filepath.Join(parent, d.Name())
		if !d.IsDir() || !exists(filepath.Join(dir, controlSocket)) {
			continue
		}
		s, err := snapshotOf(ctx, dir)
		switch {
		case err == nil:
			out = append(out, s)
		case errors.Is(err, unix.EACCES):
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
		}
	}
	slices.SortFunc(out, func(a, b metrics.Snapshot) int { return a.Node.Started.Compare(b.Node.Started) })
	if len(out) > 0 {
		return out, nil
	}
	return nil, errors.Join(errs...)
}

func snapshotOf(ctx context.Context, dir string) (s metrics.Snapshot, err error) {
	d, err := openSocketDir(dir)
	if err != nil {
		return s, err
	}
	defer d.Close()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.path())
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://wasmpod/snapshot", nil)
	if err != nil {
		return s, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return s, errors.New(response.Status)
	}
	return s, json.NewDecoder(response.Body).Decode(&s)
}
