package wasm_test

import (
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// residentBytes is the process's resident memory.
func residentBytes(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("there is no /proc/self/statm here")
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// What 1,000 guests at a time have filled is given back when they end.
func TestMemoryIsGivenBack(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes 1 GiB of memory")
	}
	e := newEngine(t, wasm.Config{})
	m := compile(t, e, "fill")
	round := func() int64 {
		filled := make(chan struct{})
		release := make(chan struct{})
		var guests []*wasm.Instance
		for range 1000 {
			guests = append(guests, start(t, e, m, 2<<20, func(ctx context.Context, _ api.Module, _ int32) int32 {
				ctx.(wasm.Blocking).Leave()
				filled <- struct{}{}
				<-release
				ctx.(wasm.Blocking).Enter()
				return 0
			}))
		}
		for range guests {
			<-filled
		}
		during := residentBytes(t)
		close(release)
		for _, g := range guests {
			wantExit(t, g, wasm.Exit{Reason: wasm.ReasonCompleted})
		}
		return during
	}
	round() // so that goroutines' stacks and the like are there
	debug.FreeOSMemory()
	before := residentBytes(t)
	during := round()
	debug.FreeOSMemory()
	after := residentBytes(t)
	if during-before < 500<<20 {
		t.Errorf("1,000 guests have filled 1 MiB each, resident are %d MiB more", (during-before)>>20)
	}
	if after-before > 16<<20 {
		t.Errorf("%d MiB resident before, %d after", before>>20, after>>20)
	}
}
