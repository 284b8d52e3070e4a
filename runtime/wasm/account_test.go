package wasm_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// OOM-06: a guest that grows page by page has every page of its limit, and dies
// with the first beyond it.
func TestOOMAtExactlyTheFirstPage(t *testing.T) {
	const page = 64 << 10
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "pages")
	for _, limit := range []int64{page, 2 * page, 7*page - 1, 7 * page, 7*page + 1, 1 << 20, 64 << 20} {
		t.Run(fmt.Sprintf("OOM-06 limit of %d bytes", limit), func(t *testing.T) {
			had := int64(0)
			account := wasm.NewAccount(limit)
			i, err := e.Start(t.Context(), m, wasm.InstanceConfig{Account: account, Context: func(ctx context.Context) context.Context {
				return context.WithValue(ctx, callKey{}, callFunc(func(_ context.Context, _ api.Module, pages int32) int32 {
					if had = int64(pages); account.Used() != had*page {
						t.Errorf("%d bytes charged for %d pages", account.Used(), had)
					}
					return 0
				}))
			}})
			if err != nil {
				t.Fatal(err)
			}
			wantExit(t, i, wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: fmt.Sprintf("memory limit of %d bytes exceeded", limit)})
			if want := limit / page; had != want {
				t.Errorf("it had %d pages, want %d", had, want)
			}
			if account.Used() != 0 || account.Peak() != limit/page*page {
				t.Errorf("%d bytes still charged, peak %d", account.Used(), account.Peak())
			}
		})
	}
}

// EXEC-07: what runs in one container shares its limit, and who exceeds it dies.
func TestSharedAccount(t *testing.T) {
	const page = 64 << 10
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "pages")
	account := wasm.NewAccount(10 * page)
	holding, release := make(chan struct{}), make(chan struct{})
	run := func(call callFunc) *wasm.Instance {
		i, err := e.Start(t.Context(), m, wasm.InstanceConfig{Account: account, Context: func(ctx context.Context) context.Context {
			return context.WithValue(ctx, callKey{}, call)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := run(func(ctx context.Context, _ api.Module, pages int32) int32 {
		if pages == 4 {
			ctx.(wasm.Blocking).Leave()
			close(holding)
			<-release
			ctx.(wasm.Blocking).Enter()
		}
		return 0
	})
	<-holding
	if !account.Charge(page) { // of the host's, for the same container
		t.Fatal("five of ten pages are refused")
	}
	had := int32(0)
	oom := wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 655360 bytes exceeded"}
	wantExit(t, run(func(_ context.Context, _ api.Module, pages int32) int32 { had = pages; return 0 }), oom)
	if had != 5 {
		t.Errorf("the second had %d pages beside 4 and 1 of others, want 5", had)
	}
	if account.Charge(6 * page) {
		t.Error("more than the limit is charged")
	}
	account.Release(page)
	close(release)
	wantExit(t, first, oom)
	if account.Used() != 0 {
		t.Errorf("%d bytes still charged", account.Used())
	}
}

// Memory that a module has besides linear memory counts.
func TestTablesAndGlobalsAreCharged(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	globals := []byte("\x00asm\x01\x00\x00\x00" + "\x01" + vec("\x01\x60\x00\x00") + "\x03" + vec("\x01\x00") +
		"\x06" + vec("\xa0\x8d\x06"+strings.Repeat("\x7e\x01\x42\x00\x0b", 100_000)) +
		"\x07" + vec("\x01\x06_start\x00\x00") + "\x0a" + vec("\x01\x02\x00\x0b"))
	table := []byte("\x00asm\x01\x00\x00\x00" + "\x01" + vec("\x01\x60\x00\x00") + "\x03" + vec("\x01\x00") +
		"\x04" + vec("\x01\x70\x00\xa0\x8d\x06") + // 100,000 elements
		"\x07" + vec("\x01\x06_start\x00\x00") + "\x0a" + vec("\x01\x02\x00\x0b"))
	for name, module := range map[string][]byte{"OOM-06 globals": globals, "OOM-06 table": table} {
		t.Run(name, func(t *testing.T) {
			m, err := e.Compile(t.Context(), "sha256:"+name, func() ([]byte, error) { return module, nil })
			if err != nil {
				t.Fatal(err)
			}
			defer m.Release()
			wantExit(t, start(t, e, m, 700_000, nil), wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 700000 bytes exceeded"})
			wantExit(t, start(t, e, m, 20<<20, nil), wasm.Exit{Reason: wasm.ReasonCompleted})
		})
	}
}

// A thousand guests that have filled their limits and died leave nothing.
func TestThousandOOMKillsLeaveNothing(t *testing.T) {
	skipEmulated(t)
	const limit = 4 << 20
	kills := 1000
	if testing.Short() || raceEnabled {
		kills = 50
	}
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "pages")
	round := func(n int) {
		for range n {
			i := start(t, e, m, limit, func(context.Context, api.Module, int32) int32 { return 0 })
			if <-i.Done(); i.Exit().Reason != wasm.ReasonOOMKilled {
				t.Fatalf("exit %+v", i.Exit())
			}
		}
		debug.FreeOSMemory()
	}
	round(50)
	before := residentBytes(t)
	round(kills)
	after := residentBytes(t)
	t.Logf("RSS %.1f MiB before %d OOM kills at 4 MiB, %.1f MiB after", float64(before)/(1<<20), kills, float64(after)/(1<<20))
	if after > before+8<<20 {
		t.Errorf("%d bytes more are resident after %d OOM kills", after-before, kills)
	}
}

// OOM-06: a host function ends a guest for which it was refused memory.
func TestOutOfMemoryOfTheHost(t *testing.T) {
	e := newEngine(t, wasm.Config{})
	account := wasm.NewAccount(1 << 20)
	i, err := e.Start(t.Context(), compile(t, e, "pages"), wasm.InstanceConfig{Account: account, Context: func(ctx context.Context) context.Context {
		return context.WithValue(ctx, callKey{}, callFunc(func(ctx context.Context, _ api.Module, _ int32) int32 {
			for account.Charge(100) {
				defer account.Release(100)
			}
			ctx.(wasm.Exhaustible).OutOfMemory()
			return 0
		}))
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantExit(t, i, wasm.Exit{Code: 137, Reason: wasm.ReasonOOMKilled, Message: "memory limit of 1048576 bytes exceeded"})
	if account.Used() != 0 {
		t.Errorf("%d bytes are still charged", account.Used())
	}
}

// OOM-05: what containers of a pod have together is bounded by its own limit, and
// the message names the limit that was in the way.
func TestAccountOfAPod(t *testing.T) {
	pod := wasm.NewAccount(100)
	a, b := pod.Child(0), pod.Child(60)
	switch {
	case !a.Charge(50), !b.Charge(50):
		t.Fatal("OOM-05 no more than the limit was charged")
	case a.Charge(1) || a.Refused() != 100:
		t.Errorf("OOM-05 %d of 100 bytes, refused by %d", pod.Used(), a.Refused())
	case pod.Used() != 100, a.Used() != 50, a.Peak() != 50, pod.Peak() != 100:
		t.Errorf("a refused charge has left %d, %d and peaks of %d, %d", pod.Used(), a.Used(), pod.Peak(), a.Peak())
	}
	a.Release(50)
	if !b.Charge(10) || b.Charge(1) || b.Refused() != 60 {
		t.Errorf("the container's own limit: %d bytes, refused by %d", b.Used(), b.Refused())
	}
	if b.Release(60); pod.Used() != 0 || a.Used() != 0 || b.Used() != 0 {
		t.Errorf("%d, %d and %d bytes are left", pod.Used(), a.Used(), b.Used())
	}
}
