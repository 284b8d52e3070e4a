//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmpod/wasmpod/cgroup"
	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// The guests, assembled by hand so that the program needs no tools.
var (
	// (loop (br 0))
	spin = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x00\x06memory\x02\x00\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b")
	// (import "bench" "call") (loop (call 0) (br 0))
	calls = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0e\x01\x05bench\x04call\x00\x00\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x01\x06memory\x02\x00\x0a\x0b\x01\x09\x00\x03\x40\x10\x00\x0c\x00\x0b\x0b")
)

// (import "bench" "call") (call 0) (loop (br 0))
var callThenSpin = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0e\x01\x05bench\x04call\x00\x00\x03\x02\x01\x00" +
	"\x05\x03\x01\x00\x01\x07\x13\x02\x06_start\x00\x01\x06memory\x02\x00\x0a\x0b\x01\x09\x00\x10\x00\x03\x40\x0c\x00\x0b\x0b")

type callKey struct{}

// host registers the function that guests call: what their context holds.
func host(ctx context.Context, r wazero.Runtime) error {
	_, err := r.NewHostModuleBuilder("bench").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, _ []uint64) { ctx.Value(callKey{}).(func(context.Context))(ctx) }), nil, nil).
		Export("call").Instantiate(ctx)
	return err
}

// account is a container's for the engine, as package inproc makes it.
type account struct {
	*bpf.Account

	mu    sync.Mutex
	late  []time.Duration
	ran   time.Duration // of threads, by the kernel's count, between Begin and End
	moved int           // times that Go has moved the guest since
	apart time.Duration // of ran: on threads that it was moved off, since its last safepoint there

	limited bool
	spent   chan struct{} // has room: told when the budget is
}

// clockOffset is as in package inproc.
var clockOffset = func() int64 {
	offset := int64(0)
	for i := range 10 { // the best of some, should this goroutine be interrupted
		engine := wasm.Now()
		if d := bpf.Now() - engine; i == 0 || d < offset {
			offset = d
		}
	}
	return offset
}()

func (a *account) Stint() wasm.CPUStint {
	s := a.Account.Stint(clockOffset)
	if !a.limited {
		return s
	}
	return &stint{Stint: s, account: a}
}

// stint keeps its own books, by the kernel's count of what the thread has run, which is
// asked for at each beginning, safepoint and end: at the beginning and the end before
// the account is told, which is as long after the time that it is told in both.
type stint struct {
	*bpf.Stint
	account *account
	tid     int
	from    time.Duration
	until   time.Duration // what the thread had run when it began to serve another; zero if it does not
}

// serving says who was last seen on a thread.
var (
	servingMu sync.Mutex
	serving   = make(map[int]*stint)
)

func (s *stint) Begin(now int64) {
	s.arrive(onWhat())
	s.Stint.Begin(now)
}

// arrive notes that the thread serves this one from now on. Whoever served it has been
// moved off it, and has not come to a safepoint on another yet.
func (s *stint) arrive(tid int, ran time.Duration) {
	servingMu.Lock()
	defer servingMu.Unlock()
	if last := serving[tid]; last != nil && last != s && last.tid == tid && last.until == 0 {
		last.until = ran
	}
	s.tid, s.from, s.until = tid, ran, 0
	serving[tid] = s
}

// leave is the opposite of arrive.
func (s *stint) leave() {
	servingMu.Lock()
	defer servingMu.Unlock()
	if serving[s.tid] == s {
		delete(serving, s.tid)
	}
	s.tid = 0
}

// onWhat is the calling thread and its time. Go may move the caller to another one at
// any call.
func onWhat() (tid int, ran time.Duration) {
	for {
		tid, ran = unix.Gettid(), threadTime()
		if unix.Gettid() == tid {
			return tid, ran
		}
	}
}

func (s *stint) End(now int64) {
	s.count()
	s.leave()
	s.Stint.End(now)
}

func (s *stint) count() {
	a := s.account
	a.mu.Lock()
	defer a.mu.Unlock()
	tid, now := onWhat()
	if tid == s.tid {
		a.ran += now - s.from
		s.from = now
		return
	}
	a.moved++
	was := s.tid
	servingMu.Lock()
	until := s.until
	servingMu.Unlock()
	if until == 0 {
		until = threadTimeOf(was)
	}
	if d := until - s.from; d > 0 { // not, if the thread is gone
		a.ran += d
		a.apart += d
	}
	s.leave()
	s.arrive(tid, now)
}

// threadTimeOf is threadTime, of another thread of this process.
func threadTimeOf(tid int) time.Duration {
	var ts unix.Timespec
	const perThread, sched = 4, 2 // as the kernel makes a clock of a thread's number
	if err := unix.ClockGettime(int32(^tid<<3|perThread|sched), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (s *stint) HandOver(next any, now int64) (spent bool) {
	s.count()
	s.leave()
	n := next.(*stint)
	n.arrive(onWhat())
	return s.Stint.HandOver(n.Stint, now)
}

func (s *stint) Check(now int64) bool {
	s.count()
	if !s.Stint.Check(now) {
		return false
	}
	a := s.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late = append(a.late, a.Over())
	select {
	case a.spent <- struct{}{}:
	default:
	}
	return true
}

// served is what threads ran while they served the guest, up to its last End.
func (a *account) served() (ran, apart time.Duration, moved int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ran, a.apart, a.moved
}

// node is an engine with an accounting.
type node struct {
	engine  *wasm.Engine
	modules []*wasm.Module
	cpu     *bpf.Accounting
}

func openNode(ctx context.Context, m bpf.Mechanism) (*node, error) {
	return openNodeWith(ctx, m, wasm.Config{})
}

func openNodeWith(ctx context.Context, m bpf.Mechanism, cfg wasm.Config) (*node, error) {
	cfg.Hosts = []wasm.HostModule{host}
	e, err := wasm.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &node{engine: e, cpu: bpf.Open(bpf.Config{Mechanism: m, NoTick: true})}, nil
}

func (n *node) close(ctx context.Context) error {
	err := n.engine.Close(ctx)
	for _, m := range n.modules {
		m.Release()
	}
	return errors.Join(err, n.cpu.Close())
}

// start starts a guest. milli 0 is no limit, -1 no account either.
func (n *node) start(ctx context.Context, code []byte, milli int64, call func(context.Context)) (*wasm.Instance, *account, error) {
	m, err := n.engine.Compile(ctx, fmt.Sprintf("%x", sha256.Sum256(code)), func() ([]byte, error) { return code, nil })
	if err != nil {
		return nil, nil, err
	}
	n.modules = append(n.modules, m)
	c := wasm.InstanceConfig{Context: func(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, call) }}
	var a *account
	if milli >= 0 {
		b := cgroup.NewBandwidth(milli)
		opened, err := n.cpu.NewAccount(b)
		if err != nil {
			return nil, nil, err
		}
		a = &account{Account: opened, limited: milli > 0, spent: make(chan struct{}, 1)}
		c.CPU = a
	}
	i, err := n.engine.Start(ctx, m, c)
	return i, a, err
}
