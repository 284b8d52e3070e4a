package wasm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

const (
	// smallModule is up to how many bytes a module does not wait for large
	// ones to be compiled.
	smallModule = 1 << 20
	// A module has compileTime for its first MiB and as much for each further
	// one: about ten times what ordinary ones take on one processor. Below the
	// rewriter's limits one function takes some 15 s, and those that are
	// under way when the time is over are finished.
	compileTime = 15 * time.Second
	// compileWorkers compile one module. With one only, wazero could not be
	// stopped before the end.
	compileWorkers = 2
)

// compileCode compiles with the cache on disk if that works, and without if not:
// a full disk or a file torn by a power failure must not keep pods from starting.
// One small and one large module are compiled at a time; others wait, for as
// long as ctx lasts.
func (e *Engine) compileCode(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	queue := e.large
	if len(wasm) <= smallModule {
		queue = e.small
	}
	select {
	case queue <- struct{}{}:
		defer func() { <-queue }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	e.scheduler.compiling.Add(1)
	defer e.scheduler.compiling.Add(-1)

	most := e.config.CompileTime
	if most == 0 {
		most = compileTime
	}
	most *= time.Duration(1 + len(wasm)>>20)
	// What has been started is finished: others may be waiting for it.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), most, fmt.Errorf("it takes longer than %v to compile", most))
	defer cancel()
	r, code, err := e.compileWith(experimental.WithCompilationWorkers(ctx, compileWorkers), wasm)
	if err != nil && ctx.Err() != nil {
		return nil, nil, errTooSlow{context.Cause(ctx)}
	}
	return r, code, err
}

// errTooSlow is a module that was given up.
type errTooSlow struct{ error }

func (e *Engine) compileWith(ctx context.Context, wasm []byte) (wazero.Runtime, wazero.CompiledModule, error) {
	code, err := e.cached.CompileModule(ctx, wasm)
	if err == nil || e.cache == nil || ctx.Err() != nil {
		return e.cached, code, err
	}
	if strings.Contains(err.Error(), "compilationcache:") {
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
	return plain, code, err
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
