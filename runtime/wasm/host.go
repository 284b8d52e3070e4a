package wasm

import (
	"context"
	"errors"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// instantiateHost registers what rewritten modules import.
func instantiateHost(ctx context.Context, r wazero.Runtime) error {
	const i32, i64 = api.ValueTypeI32, api.ValueTypeI64
	_, err := r.NewHostModuleBuilder(safepoint.HostModule).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(hostSafepoint), []api.ValueType{i32}, []api.ValueType{i32}).
		Export(safepoint.HostSafepoint).
		NewFunctionBuilder().WithGoModuleFunction(hostWait(4), []api.ValueType{i32, i32, i64, i32}, []api.ValueType{i32}).
		Export(safepoint.HostWait32).
		NewFunctionBuilder().WithGoModuleFunction(hostWait(8), []api.ValueType{i32, i64, i64, i32}, []api.ValueType{i32}).
		Export(safepoint.HostWait64).
		Instantiate(ctx)
	return err
}

func hostSafepoint(ctx context.Context, mod api.Module, stack []uint64) {
	g := guestOf(ctx)
	if g == nil {
		stack[0] = safepoint.Budget
		return
	}
	i := g.instance
	if i.aside.returning {
		i.back()
	}
	i.crossed.Add(1)
	i.meter.read(mod)
	i.checkMemory(mod)
	i.safepoint(g, stack[0]&safepoint.FlagSignals != 0)
	if !i.turn.safepoint() {
		i.killed()
	}
	i.meter.read(mod) // a signal handler may have run
	i.meter.left = int64(i.turn.budget)
	stack[0] = uint64(i.turn.budget)
}

var errWaitBounds = errors.New("out of bounds or unaligned memory.atomic.wait")

// hostWait is memory.atomic.wait of a shared memory. wasmpod starts no threads,
// so nobody can notify the waiter: if the value is the expected one, it sleeps.
func hostWait(size uint32) api.GoModuleFunc {
	const notEqual, timedOut = 1, 2
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		address, expected, timeout := uint64(uint32(stack[0]))+uint64(uint32(stack[3])), stack[1], int64(stack[2])
		if address > 1<<32-uint64(size) || address%uint64(size) != 0 {
			panic(errWaitBounds)
		}
		var value uint64
		var ok bool
		if size == 4 {
			var v uint32
			v, ok = mod.Memory().ReadUint32Le(uint32(address))
			value, expected = uint64(v), uint64(uint32(expected))
		} else {
			value, ok = mod.Memory().ReadUint64Le(uint32(address))
		}
		if !ok {
			panic(errWaitBounds)
		}
		if value != expected {
			stack[0] = notEqual
			return
		}
		sleep(ctx, timeout)
		stack[0] = timedOut
	}
}

// sleep returns after timeout nanoseconds, for ever if negative, or when the
// guest is to end; a signal's handler runs and does not end it.
func sleep(ctx context.Context, timeout int64) {
	var expired <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(time.Duration(timeout))
		defer t.Stop()
		expired = t.C
	}
	g := guestOf(ctx)
	if g == nil {
		<-expired
		return
	}
	g.Leave()
	defer g.Enter()
	for {
		select {
		case <-expired:
			return
		case <-g.Interrupted():
			g.Enter()
			g.Safepoint()
			g.Leave()
		case <-ctx.Done():
			return
		}
	}
}
