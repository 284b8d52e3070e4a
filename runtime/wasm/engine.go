// Package wasm runs WebAssembly modules: it compiles each once per digest,
// rewritten with safepoints, and runs any number of instances of it, each in
// one goroutine that can be killed and given signals at any time. One that
// sleeps for long has no goroutine meanwhile, see [Aside]. What the instances of
// a container and the host keep for it is charged to its [Account].
//
// Host functions belong to others: [Config.Hosts] registers them, and they find
// the state of their guest in the context of a call, where
// [InstanceConfig.Context] has put it. A host function that blocks must
//
//   - return when that context is done: the guest is being killed;
//   - where its ABI knows EINTR, return it when [Interruptible.Interrupted] is
//     closed, which means that a signal waits for the guest's handler, and then
//     call Safepoint to have the handler run at once;
//   - not touch guest memory after it has returned, from a goroutine left
//     behind for example: the memory is unmapped when the guest ends.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// features are what guests may use. Left out are exception handling, which
// corrupts locals in wazero 1.12 (upstream issue 2504), and typed function
// references, which no wasip1 toolchain emits.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads |
	experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// Config of an Engine. The zero value compiles, keeps nothing on disk, and
// offers guests no host functions.
type Config struct {
	// CacheDir keeps compiled code over restarts. What it holds is executed,
	// so only the owner of the process may be able to write there.
	CacheDir string
	// Interpreter runs guests without compiling them: 10 to 100 times slower,
	// on every platform. It is the default where wazero has no compiler.
	Interpreter bool
	// Slots is how many guests execute at a time; others wait for their turn.
	// Zero is GOMAXPROCS as it is when the Engine is made.
	Slots int
	// CompileTime is how much processor time a module may take to be compiled,
	// for every 4 MiB of it or part of them. Zero is 10 s.
	CompileTime time.Duration
	// Hosts register host modules, once per wazero.Runtime that the Engine makes.
	Hosts []HostModule
	// ImportName, if not nil, says by which name of a host module a function is
	// known that guests import by this name and with so many parameters.
	ImportName func(module, name string, params int) string
	// Killed, if not nil, is asked about a process of the compiler that has ended by
	// a signal: whether the system has done it for want of memory, and in what words.
	// Without an answer it is supposed that its own limit was not enough.
	Killed func(pid int, started time.Time) (why string, ok bool)
	// Confine, if not nil, is given a descriptor (pidfd) of every process of the
	// compiler before that reads anything that is not ours. The descriptor is closed
	// when it returns.
	Confine func(pidfd int)
}

// runtimeConfig is what the code of a module depends on.
func runtimeConfig(c wazero.RuntimeConfig) wazero.RuntimeConfig {
	return c.WithCoreFeatures(features).WithDebugInfoEnabled(false)
}

// HostModule registers host functions with a runtime.
type HostModule = func(context.Context, wazero.Runtime) error

// Engine compiles and runs modules. It is safe for concurrent use.
type Engine struct {
	config Config
	cache  wazero.CompilationCache
	// cached uses the cache on disk; plain does not, and stands in for it
	// when the disk is full or broken. Without CacheDir they are the same.
	cached wazero.Runtime
	plain  func() (wazero.Runtime, error)

	// spool stands in for the cache where a process compiles for an Engine
	// without one.
	spool func() (*spool, error)

	scheduler *scheduler

	small, large chan struct{} // held by the modules that are being compiled
	builds       sync.WaitGroup
	compiles     compiles

	mu        sync.Mutex
	closed    bool
	modules   map[string]*Module
	instances map[*Instance]struct{}
	runtimes  []wazero.Runtime
	hosts     map[string]map[string]api.FunctionDefinition // by host module and name; wazero makes it anew for each who asks
	closers   []func() error                               // after the runtimes
}

// New returns an Engine with its host modules registered.
func New(ctx context.Context, c Config) (*Engine, error) {
	e := &Engine{small: make(chan struct{}, 1), large: make(chan struct{}, 1), config: c, modules: map[string]*Module{}, instances: map[*Instance]struct{}{}}
	if c.Slots <= 0 {
		c.Slots = runtime.GOMAXPROCS(0)
	}
	e.scheduler = newScheduler(c.Slots)
	// The runtime outlives the call that made it.
	ctx = context.WithoutCancel(ctx)
	e.plain = sync.OnceValues(func() (wazero.Runtime, error) { return e.newRuntime(ctx, nil) })
	e.spool = sync.OnceValues(func() (*spool, error) { return e.newSpool(ctx) })
	if c.CacheDir == "" || c.Interpreter {
		r, err := e.plain()
		if err != nil {
			return nil, err
		}
		e.cached = r
		return e, nil
	}
	cache, err := wazero.NewCompilationCacheWithDir(e.cacheDir())
	if err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	readFaster(cache)
	e.cache = cache
	if e.cached, err = e.newRuntime(ctx, cache); err != nil {
		return nil, errors.Join(err, cache.Close(ctx))
	}
	return e, nil
}

// cacheDir is keyed by what wazero does not know of: it keys its files by its
// own version, the CPU's features and the rewritten module.
func (e *Engine) cacheDir() string {
	return filepath.Join(e.config.CacheDir, "safepoint-"+safepoint.Version)
}

func (e *Engine) newRuntime(ctx context.Context, cache wazero.CompilationCache) (wazero.Runtime, error) {
	rc := wazero.NewRuntimeConfig()
	if e.config.Interpreter {
		rc = wazero.NewRuntimeConfigInterpreter()
	}
	rc = runtimeConfig(rc)
	if cache != nil {
		rc = rc.WithCompilationCache(cache)
	}
	r := wazero.NewRuntimeWithConfig(ctx, rc)
	for _, host := range append([]func(context.Context, wazero.Runtime) error{instantiateHost}, e.config.Hosts...) {
		if err := host(ctx, r); err != nil {
			return nil, errors.Join(fmt.Errorf("register host functions: %w", err), r.Close(ctx))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runtimes = append(e.runtimes, r)
	return r, nil
}

// hostFunction is the definition of a host's function; nil if there is none. All
// runtimes have the same.
func (e *Engine) hostFunction(module, name string) api.FunctionDefinition {
	e.mu.Lock()
	defer e.mu.Unlock()
	functions, known := e.hosts[module]
	if !known {
		host := e.cached.Module(module)
		if host == nil {
			return nil
		}
		functions = host.ExportedFunctionDefinitions()
		if e.hosts == nil {
			e.hosts = map[string]map[string]api.FunctionDefinition{}
		}
		e.hosts[module] = functions
	}
	return functions[name]
}

var errClosed = errors.New("wasm engine is closed")

// Close kills the instances that still run, waits for them to end, and frees
// everything. If ctx ends first nothing is freed, because a guest may still
// use it, and the error is that of ctx.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	var running []*Instance
	for i := range e.instances {
		running = append(running, i)
	}
	for _, m := range e.modules {
		m.cancel()
	}
	e.mu.Unlock()
	for _, i := range running {
		i.Kill()
	}
	for _, i := range running {
		select {
		case <-i.Done():
		case <-ctx.Done():
			return fmt.Errorf("close wasm engine: instance %s still runs: %w", i.name, ctx.Err())
		}
	}
	built := make(chan struct{})
	go func() {
		e.builds.Wait()
		close(built)
	}()
	select {
	case <-built:
	case <-ctx.Done():
		return fmt.Errorf("close wasm engine: a module is still compiled: %w", ctx.Err())
	}
	e.mu.Lock()
	runtimes, closers := e.runtimes, e.closers
	e.runtimes, e.closers = nil, nil
	e.mu.Unlock()
	var errs []error
	for _, r := range runtimes {
		errs = append(errs, r.Close(ctx))
	}
	if e.cache != nil {
		errs = append(errs, e.cache.Close(ctx))
	}
	for _, c := range closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Compile returns the module with this digest, compiling it if nobody has it
// already; load is then asked for its bytes. Concurrent calls for one digest
// share the work, which is given up when nobody waits for it any more; each
// returns as soon as its ctx ends. Every Module returned must be released. A
// module that cannot run gives a *CompileError; nothing of it is kept, so the
// next call tries again.
func (e *Engine) Compile(ctx context.Context, digest string, load func() ([]byte, error)) (*Module, error) {
	for {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return nil, errClosed
		}
		m, ok := e.modules[digest]
		if !ok {
			build, cancel := context.WithCancel(context.WithoutCancel(ctx))
			m = &Module{engine: e, digest: digest, ready: make(chan struct{}), cancel: cancel}
			e.modules[digest] = m
			e.builds.Add(1)
			go e.build(build, m, load)
		}
		m.refs++
		e.mu.Unlock()
		select {
		case <-m.ready:
		case <-ctx.Done():
			m.Release()
			return nil, ctx.Err()
		}
		if m.err == nil {
			return m, nil
		}
		// The other caller's failure may be its own (its load may have been
		// cancelled); what is wrong with the module shows again.
		m.Release()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if ce := (*CompileError)(nil); !ok || errors.As(m.err, &ce) {
			return nil, m.err
		}
	}
}

// build does the work of Compile for all callers.
func (e *Engine) build(ctx context.Context, m *Module, load func() ([]byte, error)) {
	defer e.builds.Done()
	err := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = &CompileError{Digest: m.digest, Message: fmt.Sprintf("the compiler failed: %v", r)}
			}
		}()
		if m.warm(ctx) {
			return nil
		}
		wasm, err := load()
		if err != nil {
			return fmt.Errorf("load module %s: %w", m.digest, err)
		}
		return m.compile(ctx, wasm)
	}()
	switch {
	case err == nil:
		e.compiles.built.Add(1)
	case ctx.Err() == nil:
		e.compiles.failed.Add(1)
	}
	m.cancel() // frees what ctx holds
	e.mu.Lock()
	if m.err = err; err != nil && e.modules[m.digest] == m {
		delete(e.modules, m.digest)
	}
	m.built = true
	unwanted := m.refs == 0
	close(m.ready)
	e.mu.Unlock()
	if unwanted {
		m.free()
	}
}
