//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// grow has memory of one page and asks for one more again and again, and writes to
// each: (loop (i32.store (i32.shl (memory.grow (i32.const 1)) (i32.const 16)) (i32.const 1)) (br 0))
var grow = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00" +
	"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x00\x06memory\x02\x00" +
	"\x0a\x15\x01\x13\x00\x03\x40\x41\x01\x40\x00\x41\x10\x74\x41\x01\x36\x02\x00\x0c\x00\x0b\x0b")

// memory measures at which page a guest dies that has a limit, and what is left of
// a thousand that have died so.
func memory(time.Duration) error {
	const page = 64 << 10
	ctx := context.Background()
	n, err := openNode(ctx, bpf.ThreadClock)
	if err != nil {
		return err
	}
	defer n.close(ctx)
	m, err := n.engine.Compile(ctx, "grow", func() ([]byte, error) { return grow, nil })
	if err != nil {
		return err
	}
	defer m.Release()
	die := func(limit int64) (wasm.Exit, wasm.Stats, error) {
		i, err := n.engine.Start(ctx, m, wasm.InstanceConfig{MemoryLimit: limit})
		if err != nil {
			return wasm.Exit{}, wasm.Stats{}, err
		}
		<-i.Done()
		return i.Exit(), i.Stats(), nil
	}
	for _, limit := range []int64{page, 10 * page, 10*page + 1, 1000*page - 1, 64 << 20} {
		exit, stats, err := die(limit)
		if err != nil {
			return err
		}
		verdict := "exactly"
		if exit.Reason != wasm.ReasonOOMKilled || stats.MemoryPeak != limit/page*page {
			verdict = "NOT"
		}
		fmt.Printf("memory           limit %d bytes: %s at the first page over it: had %d pages, exit %d %s\n", limit, verdict, stats.MemoryPeak/page, exit.Code, exit.Reason)
	}
	const kills, limit = 1000, 16 << 20
	var before int64
	for i := range kills + 100 {
		if i == 100 { // what is made once is made
			before = resident()
		}
		if exit, _, err := die(limit); err != nil || exit.Reason != wasm.ReasonOOMKilled {
			return fmt.Errorf("kill %d: %+v, %v", i, exit, err)
		}
	}
	fmt.Printf("memory           resident before %d OOM kills of guests with %d MiB: %.1f MiB, and after: %+.1f MiB\n", kills, limit>>20, float64(before)/(1<<20), float64(resident()-before)/(1<<20))
	return nil
}

// resident is the process's, in bytes, less what Go keeps for later.
func resident() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
