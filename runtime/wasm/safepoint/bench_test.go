package safepoint_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// BenchmarkOverhead runs each program of the suite plain and rewritten in turn,
// and reports the ratio of the fastest runs as "x". Runs take a few milliseconds,
// so that some of them are undisturbed even on a busy machine.
func BenchmarkOverhead(b *testing.B) {
	plain := buildC(b, "testdata/suite.c", "-O2")
	rewritten, err := safepoint.Rewrite(plain, safepoint.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for _, p := range []struct{ name, scale string }{
		{"crc", "4"}, {"sieve", "2"}, {"fib", "7"}, {"matmul", "2"}, {"qsort", "1"}, {"malloc", "20"}, {"vm", "3"},
	} {
		b.Run(p.name, func(b *testing.B) {
			run := func(wasm []byte) func() time.Duration {
				r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features).WithDebugInfoEnabled(false))
				b.Cleanup(func() { _ = r.Close(ctx) })
				wasi_snapshot_preview1.MustInstantiate(ctx, r)
				_, err := r.NewHostModuleBuilder(safepoint.HostModule).NewFunctionBuilder().
					WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) { stack[0] = safepoint.Budget }), []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).
					Export(safepoint.HostSafepoint).Instantiate(ctx)
				if err != nil {
					b.Fatal(err)
				}
				code, err := r.CompileModule(ctx, wasm)
				if err != nil {
					b.Fatal(err)
				}
				return func() time.Duration {
					begin := time.Now()
					var out bytes.Buffer
					_, _ = r.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStdout(&out).WithArgs("suite", p.scale, p.name))
					return time.Since(begin)
				}
			}
			original, changed := run(plain), run(rewritten)
			t1, t2 := time.Hour, time.Hour
			for b.Loop() {
				t1, t2 = min(t1, original()), min(t2, changed())
			}
			b.ReportMetric(float64(t2)/float64(t1), "x")
			b.ReportMetric(float64(t1.Microseconds()), "plain-us")
		})
	}
}

// BenchmarkRewrite measures the rewriter itself.
func BenchmarkRewrite(b *testing.B) {
	wasm := buildC(b, "testdata/suite.c", "-O2")
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, err := safepoint.Rewrite(wasm, safepoint.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
