package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// partialDir holds blobs that are being downloaded, under the digest they
// shall have. Who writes one holds a lock on it; what a dead process left is
// continued by whoever wants the blob next.
const partialDir = "partial"

// errIncomplete is a response that ended early, for whatever reason.
var errIncomplete = errors.New("the registry sent less than the blob")

// download is one blob on its way into the store.
type download struct {
	session *session
	store   *layout
	desc    v1.Descriptor
	file    *os.File // locked
	sum     hash.Hash
	written int64

	mu       sync.Mutex
	grown    chan struct{} // closed, and made anew, when there is more to read
	readable int64
	restarts int
	ended    bool
	err      error

	progress func(delta int64)
}

// openPartial opens the file of a download and waits until nobody else writes
// to it. The blob may have appeared in the store meanwhile.
func (l *layout) openPartial(ctx context.Context, h v1.Hash) (*os.File, error) {
	dir := filepath.Join(l.dir, partialDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	name := filepath.Join(dir, h.Hex)
	for wait := lockRetry; ; wait = min(2*wait, 20*lockRetry) {
		lock, busy, err := tryLock(name)
		if err != nil {
			return nil, fmt.Errorf("image store: %w", err)
		}
		if !busy {
			// Another process may have finished it, and moved this file to its place.
			mine, err := lock.f.Stat()
			if err == nil {
				var there os.FileInfo
				if there, err = os.Lstat(name); err == nil && os.SameFile(mine, there) {
					return lock.f, nil
				}
			}
			lock.release()
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// run downloads the rest of the blob, again and again as long as there is
// progress, and verifies it. It ends with the file complete and synced, or with
// an error; what has been downloaded is kept, unless it is wrong.
func (d *download) run(ctx context.Context) (err error) {
	defer func() { d.end(err) }()
	if err := d.resume(ctx); err != nil {
		return err
	}
	resumed := d.written > 0
again:
	for failures := 0; d.written < d.desc.Size; {
		before := d.written
		err := d.fetch(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, errIncomplete) {
			return err
		}
		if failures++; d.written > before {
			failures = 0
		}
		if failures > max(0, d.session.retries()) {
			return err
		}
		timer := time.NewTimer(min(firstRetryDelay<<failures, maxRetryDelay))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
	if got := hex.EncodeToString(d.sum.Sum(nil)); got != d.desc.Digest.Hex {
		if resumed { // what was there may have been torn by a power failure
			resumed = false
			if err := d.restart(); err != nil {
				return err
			}
			goto again
		}
		// Nothing of it is worth keeping: the next attempt begins anew.
		_ = d.file.Truncate(0)
		return fmt.Errorf("blob %s: the registry sent content with the digest sha256:%s", d.desc.Digest, got)
	}
	return d.file.Sync()
}

// resume takes up what an earlier attempt has left.
func (d *download) resume(ctx context.Context) error {
	d.sum = sha256.New()
	fi, err := d.file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() == 0 {
		return nil
	}
	if fi.Size() > d.desc.Size {
		return d.restart()
	}
	n, err := io.Copy(d.sum, contextReader{ctx, io.NewSectionReader(d.file, 0, fi.Size())})
	if err != nil {
		return err
	}
	d.advance(n)
	return nil
}

func (d *download) restart() error {
	d.sum = sha256.New()
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	d.mu.Lock()
	d.restarts++
	d.mu.Unlock()
	d.progress(-d.written)
	d.written = 0
	return nil
}

// advance makes what has been written readable for followers.
func (d *download) advance(n int64) {
	d.written += n
	d.progress(n)
	d.mu.Lock()
	if d.restarts == 0 {
		d.readable = d.written
	}
	close(d.grown)
	d.grown = make(chan struct{})
	d.mu.Unlock()
}

func (d *download) end(err error) {
	d.mu.Lock()
	d.ended, d.err = true, err
	close(d.grown)
	d.grown = make(chan struct{})
	d.mu.Unlock()
}

// fetch asks for the blob from where the file ends.
func (d *download) fetch(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(d.session.stall, func() {
		cancel(fmt.Errorf("%w: it has sent nothing for %v", errIncomplete, d.session.stall))
	})
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.session.blobURL(d.desc.Digest), nil)
	if err != nil {
		return err
	}
	if d.written > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.written))
	}
	resp, err := d.session.client.Do(req)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && d.written > 0:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(d.written, 10)+"-") {
			return fmt.Errorf("blob %s: the registry answers with another range than it was asked for: %q", d.desc.Digest, clip(resp.Header.Get("Content-Range")))
		}
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && d.written > 0:
		if d.written > 0 { // it does not know ranges
			if err := d.restart(); err != nil {
				return err
			}
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%w: it refuses to continue", errIncomplete)
		}
	default:
		return transport.CheckError(resp, http.StatusOK, http.StatusPartialContent)
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		// The registry alone is hurried: a disk that has much to write may hold up
		// what follows for longer.
		watchdog.Stop()
		if n > 0 {
			if d.written+int64(n) > d.desc.Size {
				_ = d.file.Truncate(0)
				return fmt.Errorf("blob %s: the registry sends more than the %d bytes it should have", d.desc.Digest, d.desc.Size)
			}
			if _, err := d.file.WriteAt(buf[:n], d.written); err != nil {
				return full(err, d.file.Name())
			}
			d.sum.Write(buf[:n])
			startWriteback(d.file, d.written, int64(n))
			d.advance(int64(n))
		}
		switch {
		case err == io.EOF && d.written == d.desc.Size:
			return nil
		case err == io.EOF:
			return fmt.Errorf("%w: %d of %d bytes", errIncomplete, d.written, d.desc.Size)
		case err != nil:
			return interrupted(ctx, err)
		}
		watchdog.Reset(d.session.stall)
	}
}

// interrupted makes a broken connection, or one that stalls, an errIncomplete.
func interrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if passes(err) {
		return fmt.Errorf("%w: %w", errIncomplete, err)
	}
	return err
}

// full says what to do about a full disk.
func full(err error, path string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: there is no space left where the image store is; 'wasmpod image prune' removes what is not used", err)
	}
	return err
}

func (s *session) retries() int { return s.limit }

func (s *session) blobURL(h v1.Hash) string {
	return fmt.Sprintf("%s://%s/v2/%s/blobs/%s", s.repo.Scheme(), s.repo.RegistryStr(), s.repo.RepositoryStr(), h)
}

// follow returns a reader of the blob as it arrives, from its start. Its end
// is the end of a blob that has been verified; a restart, a failure or the end
// of ctx is an error. Close it.
func (d *download) follow(ctx context.Context) (io.ReadCloser, error) {
	f, err := os.Open(d.file.Name())
	if err != nil {
		return nil, err
	}
	return &follower{d: d, ctx: ctx, f: f}, nil
}

var errRestarted = errors.New("the download began anew")

type follower struct {
	d   *download
	ctx context.Context
	f   *os.File
	at  int64
}

func (r *follower) Close() error { return r.f.Close() }

func (r *follower) Read(p []byte) (int, error) {
	for {
		r.d.mu.Lock()
		readable, restarts, ended, err, grown := r.d.readable, r.d.restarts, r.d.ended, r.d.err, r.d.grown
		r.d.mu.Unlock()
		switch {
		case restarts > 0:
			return 0, errRestarted
		case r.at < readable:
			if int64(len(p)) > readable-r.at {
				p = p[:readable-r.at]
			}
			n, err := r.f.ReadAt(p, r.at)
			r.at += int64(n)
			if err == io.EOF && n > 0 {
				err = nil
			}
			return n, err
		case ended && err != nil:
			return 0, err
		case ended:
			return 0, io.EOF
		}
		select {
		case <-grown:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}
