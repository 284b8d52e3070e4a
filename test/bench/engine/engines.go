package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// features are those that wasmpod enables, exceptions and threads aside.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// times are the medians of one program. The ratios are medians too, of those
// within each round: what disturbs a machine for longer than a round disturbs
// both sides.
type times struct {
	stock, safepoints, closing    time.Duration
	safepointsRatio, closingRatio float64
	budgets                       int // how often the budget has run out
}

// engine is one compiled copy of a program.
type engine struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
	crossed int
}

func newEngine(ctx context.Context, cache wazero.CompilationCache, wasm []byte, closing bool) (*engine, error) {
	e := &engine{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features).
		WithDebugInfoEnabled(false).WithCompilationCache(cache).WithCloseOnContextDone(closing))}
	if err := instantiateWASI(ctx, e.runtime, wasm); err != nil {
		return nil, err
	}
	_, err := e.runtime.NewHostModuleBuilder(safepoint.HostModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			e.crossed++
			stack[0] = safepoint.Budget
		}), []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).
		Export(safepoint.HostSafepoint).Instantiate(ctx)
	if err != nil {
		return nil, err
	}
	e.code, err = e.runtime.CompileModule(ctx, wasm)
	return e, err
}

// instantiateWASI registers wazero's own WASI, and functions that fail for what
// else a program imports: sockets, which none of them uses here.
func instantiateWASI(ctx context.Context, r wazero.Runtime, wasm []byte) error {
	const enosys = 52
	module, err := r.CompileModule(ctx, wasm)
	if err != nil {
		return err
	}
	builders := map[string]wazero.HostModuleBuilder{}
	builder := func(name string) wazero.HostModuleBuilder {
		b := builders[name]
		if b == nil {
			b = r.NewHostModuleBuilder(name)
			builders[name] = b
		}
		return b
	}
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(builder(wasi_snapshot_preview1.ModuleName))
	known, err := builder(wasi_snapshot_preview1.ModuleName).Compile(ctx)
	if err != nil {
		return err
	}
	for _, f := range module.ImportedFunctions() {
		in, name, _ := f.Import()
		if in == safepoint.HostModule || in == wasi_snapshot_preview1.ModuleName && known.ExportedFunctions()[name] != nil {
			continue
		}
		builder(in).NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			if len(stack) > 0 {
				stack[0] = enosys
			}
		}), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	for _, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// run runs the program once and returns what it wrote.
func (e *engine) run(ctx context.Context, p program) (time.Duration, string, error) {
	var stdout, stderr bytes.Buffer
	config := wazero.NewModuleConfig().WithName("").WithArgs(p.args...).WithStdin(strings.NewReader(p.stdin)).
		WithStdout(&stdout).WithStderr(&stderr).WithSysWalltime().WithSysNanotime().WithEnv("PWD", "/")
	if p.dir != "" {
		config = config.WithFSConfig(wazero.NewFSConfig().WithDirMount(p.dir, "/"))
	}
	begin := time.Now()
	m, err := e.runtime.InstantiateModule(ctx, e.code, config)
	elapsed := time.Since(begin)
	if exit := (*sys.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 0 {
		err = nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("%w %s", err, firstLine(stderr.Bytes()))
	}
	if m != nil {
		err = m.Close(ctx)
	}
	return elapsed, stdout.String(), err
}

// measure runs the program on every engine in turn, once for warming up.
func (p program) measure(ctx context.Context, runs int, contrast bool) (times, error) {
	path, err := p.guest()
	if err != nil {
		return times{}, err
	}
	plain, err := os.ReadFile(path)
	if err != nil {
		return times{}, err
	}
	rewritten, err := safepoint.Rewrite(plain, safepoint.Options{})
	if err != nil {
		return times{}, err
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, "wasmpod-bench-engine"))
	if err != nil {
		return times{}, err
	}
	defer cache.Close(ctx)

	var engines []*engine
	for i, wasm := range [][]byte{plain, rewritten, plain} {
		if i == 2 && !contrast {
			break
		}
		e, err := newEngine(ctx, cache, wasm, i == 2)
		if err != nil {
			return times{}, err
		}
		defer e.runtime.Close(ctx)
		engines = append(engines, e)
	}
	elapsed := [3][]time.Duration{}
	var want [32]byte
	for round := range runs + 1 {
		for k := range engines {
			// Neither of the first two always comes after the slow one.
			i := k
			if k < 2 && round%2 == 1 {
				i = 1 - k
			}
			e := engines[i]
			// The slow one is there for contrast; few runs suffice.
			if i == 2 && round > 5 {
				continue
			}
			e.crossed = 0
			took, out, err := e.run(ctx, p)
			if err != nil {
				return times{}, err
			}
			if sum := sha256.Sum256([]byte(out)); round == 0 && i == 0 {
				want = sum
			} else if sum != want {
				return times{}, fmt.Errorf("engines disagree about the output: %.60q", out)
			}
			if round > 0 {
				elapsed[i] = append(elapsed[i], took)
			}
		}
	}
	t := times{budgets: engines[1].crossed}
	t.safepointsRatio = ratio(elapsed[1], elapsed[0])
	if contrast {
		t.closingRatio = ratio(elapsed[2], elapsed[0])
		t.closing = median(elapsed[2])
	}
	t.stock, t.safepoints = median(elapsed[0]), median(elapsed[1])
	return t, nil
}

// ratio is the median of the ratios within the rounds.
func ratio(a, b []time.Duration) float64 {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, float64(a[i])/float64(b[i]))
	}
	return median(ratios)
}
