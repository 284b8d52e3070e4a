package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

const (
	// A module has compileTime of the processor for every compileTimeBytes of
	// it or part of them: ten times what ordinary ones take on a server, and
	// twice what they take on a small board.
	compileTime      = 20 * time.Second
	compileTimeBytes = 4 << 20
	// compileWorkers compile one module. With one only, wazero could not be
	// stopped before the end.
	compileWorkers = 2
)

// compileCode finds the code of a module in the cache, or compiles it: here if
// that is little work, and else in a process. One small and one large module are
// compiled at a time; others wait, but not those that are in the cache. Whatever
// happens ends soon after ctx.
func (e *Engine) compileCode(ctx context.Context, digest string, original, wasm []byte, s *shape) (wazero.Runtime, wazero.CompiledModule, error) {
	if e.config.Interpreter {
		return e.compileNow(ctx, digest, original, wasm, s)
	}
	if _, warm := e.warmFile(digest); e.cache != nil && (s.light || !warm) { // else it has been looked for
		if code, err := e.lookup(ctx, e.cached, wasm); err == nil || !errors.Is(err, errNotCached) && !isCacheError(err) {
			return e.cached, code, err
		}
	}
	queue := e.large
	if s.light {
		queue = e.small
	}
	select {
	case queue <- struct{}{}:
		defer func() { <-queue }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return e.compileNow(ctx, digest, original, wasm, s)
}

// compileNow compiles what is in no cache, and counts that.
func (e *Engine) compileNow(ctx context.Context, digest string, original, wasm []byte, s *shape) (r wazero.Runtime, code wazero.CompiledModule, err error) {
	began := time.Now()
	defer func() {
		e.compiles.time.Add(int64(time.Since(began)))
		if err == nil {
			e.compiles.compiled.Add(1)
		}
	}()
	if s.light || e.config.Interpreter {
		return e.compileHere(ctx, wasm)
	}
	r, code, err = e.compileAway(ctx, digest, original, wasm)
	if errors.Is(err, errNoProcess) {
		if !s.bounded {
			return nil, nil, errTooLarge{"it may take long to compile, and " + err.Error()}
		}
		return e.compileHere(ctx, wasm)
	}
	return r, code, err
}

// compileHere compiles with the cache on disk if that works, and without if not:
// a full disk or a file torn by a power failure must not keep pods from starting.
func (e *Engine) compileHere(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	e.scheduler.compiling.Add(1)
	defer e.scheduler.compiling.Add(-1)
	most := e.compileLimit(len(wasm))
	ctx, cancel := context.WithTimeoutCause(ctx, most, errTooLarge{fmt.Sprintf("it takes longer than %v to compile", most)})
	defer cancel()
	ctx = experimental.WithCompilationWorkers(ctx, compileWorkers)

	code, err := e.cached.CompileModule(ctx, wasm)
	if err != nil && e.cache != nil && ctx.Err() == nil {
		if isCacheError(err) {
			// wazero reports a damaged file for ever rather than replace it, and
			// does not say which it is.
			if err := clearDir(e.cacheDir()); err == nil {
				if code, err := e.cached.CompileModule(ctx, wasm); err == nil {
					return e.cached, code, nil
				}
			}
		}
		plain, perr := e.plain()
		if perr != nil {
			return nil, nil, perr
		}
		code, err = plain.CompileModule(ctx, wasm)
		return plain, code, causeOf(ctx, err)
	}
	return e.cached, code, causeOf(ctx, err)
}

// causeOf is why ctx has ended, if that may be what err comes from.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// compileLimit is the processor time for a module of n bytes.
func (e *Engine) compileLimit(n int) time.Duration {
	each := e.config.CompileTime
	if each == 0 {
		each = slowdown * compileTime
	}
	return each * time.Duration(1+n/compileTimeBytes)
}

// compileAway has a process compile the module into the cache, or, if that does
// not work, into a directory that lasts as long as the Engine.
func (e *Engine) compileAway(ctx context.Context, digest string, original, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	most := e.compileLimit(len(wasm))
	if e.cache != nil {
		code, err := e.compileWarm(ctx, digest, original, wasm, most)
		if err == nil || ctx.Err() != nil || errors.As(err, &errTooLarge{}) || errors.As(err, &errKilled{}) || errors.Is(err, errNoProcess) {
			return e.cached, code, err
		}
		if isCacheError(err) {
			_ = clearDir(e.cacheDir())
			if code, err := e.compileInto(ctx, e.cached, e.cacheDir(), wasm, most); err == nil {
				return e.cached, code, nil
			}
		}
	}
	s, err := e.spool()
	if err != nil {
		return nil, nil, errors.Join(errNoProcess, err)
	}
	code, err := e.compileInto(ctx, s.runtime, s.dir, wasm, most)
	_ = clearDir(s.dir) // what has been read is in memory
	return s.runtime, code, err
}

func (e *Engine) compileInto(ctx context.Context, r wazero.Runtime, dir string, wasm []byte, most time.Duration) (wazero.CompiledModule, error) {
	if err := e.compileElsewhere(ctx, dir, wasm, most); err != nil {
		return nil, err
	}
	return e.lookup(ctx, r, wasm)
}

var errNotCached = errors.New("the compiled module is not in the cache")

// lookup reads a module's code from the cache of a runtime. wazero has no call
// for that; but it looks there before it looks whether it is to stop.
func (e *Engine) lookup(ctx context.Context, r wazero.Runtime, wasm []byte) (wazero.CompiledModule, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	stop(errNotCached)
	return r.CompileModule(experimental.WithCompilationWorkers(ctx, compileWorkers), wasm)
}

// isCacheError recognizes a file in the cache that wazero cannot read.
func isCacheError(err error) bool { return strings.Contains(err.Error(), "compilationcache:") }

// spool is a cache for what processes compile. Nothing stays in it.
type spool struct {
	dir     string
	runtime wazero.Runtime
}

func (e *Engine) newSpool(ctx context.Context) (*spool, error) {
	dir, err := os.MkdirTemp("", "wasmpod-code-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	readFaster(cache)
	r, err := e.newRuntime(ctx, cache)
	if err != nil {
		return nil, errors.Join(err, cache.Close(ctx), remove())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, func() error { return errors.Join(cache.Close(ctx), remove()) })
	return &spool{dir: dir, runtime: r}, nil
}

// clearDir removes the files below dir, but keeps folders: wazero makes its
// own only when it opens the cache.
func clearDir(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Remove(path)
	})
}
