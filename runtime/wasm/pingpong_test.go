package wasm_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// stackHost has one function, made as wasip1 makes its own: without reflection.
func stackHost(ctx context.Context, r wazero.Runtime) error {
	_, err := r.NewHostModuleBuilder("test").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			stack[0] = ctx.Value(callKey{}).(func(context.Context) uint64)(ctx)
		}), []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).
		Export("stack").Instantiate(ctx)
	return err
}

// BenchmarkPingPong is how long it takes two guests to wake each other once
// each, through host calls that sleep: a round trip of a message, less what is
// done with its bytes.
func BenchmarkPingPong(b *testing.B) {
	for _, spinners := range []int{0, 2} {
		for _, how := range []string{"channel", "park"} {
			b.Run(fmt.Sprintf("%s/spinners=%d", how, spinners), func(b *testing.B) { pingPong(b, how == "park", spinners) })
		}
	}
}

func pingPong(b *testing.B, park bool, spinners int) {
	e := newEngine(b, wasm.Config{Hosts: []wasm.HostModule{stackHost}})
	m := compile(b, e, "loop")
	for range spinners {
		s, err := e.Start(b.Context(), compile(b, e, "spin"), wasm.InstanceConfig{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { s.Kill(); <-s.Done() }()
	}
	type mailbox struct {
		c       chan struct{}
		full    atomic.Bool
		sleeper atomic.Value // wasm.Parking
	}
	wait := func(ctx context.Context, in *mailbox) {
		if !park {
			g := ctx.(wasm.Blocking)
			g.Leave()
			<-in.c
			g.Enter()
			return
		}
		p := ctx.(wasm.Parking)
		in.sleeper.CompareAndSwap(nil, p)
		for !in.full.CompareAndSwap(true, false) {
			p.Park()
		}
	}
	send := func(out *mailbox) {
		if !park {
			out.c <- struct{}{}
			return
		}
		out.full.Store(true)
		if s, ok := out.sleeper.Load().(wasm.Parking); ok {
			s.Unpark()
		}
	}
	side := func(in, out *mailbox, rounds int, begins bool) *wasm.Instance {
		return startWith(b, e, m, func(ctx context.Context) uint64 {
			if rounds--; rounds < 0 {
				return 0
			}
			if begins {
				send(out)
			}
			wait(ctx, in)
			if !begins {
				send(out)
			}
			return 1
		})
	}
	ping, pong := &mailbox{c: make(chan struct{}, 1)}, &mailbox{c: make(chan struct{}, 1)}
	b.ReportAllocs()
	b.ResetTimer()
	first, second := side(ping, pong, b.N, true), side(pong, ping, b.N, false)
	<-first.Done()
	<-second.Done()
}

func startWith(b *testing.B, e *wasm.Engine, m *wasm.Module, call func(context.Context) uint64) *wasm.Instance {
	i, err := e.Start(b.Context(), m, wasm.InstanceConfig{Context: func(ctx context.Context) context.Context {
		return context.WithValue(ctx, callKey{}, call)
	}})
	if err != nil {
		b.Fatal(err)
	}
	return i
}

// BenchmarkChannels is the same between goroutines, for comparison.
func BenchmarkChannels(b *testing.B) {
	ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		for range b.N {
			<-ping
			pong <- struct{}{}
		}
	}()
	for range b.N {
		ping <- struct{}{}
		<-pong
	}
}
