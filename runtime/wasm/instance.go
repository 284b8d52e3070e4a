package wasm

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"
)

// Reasons of an Exit (STATE-03).
const (
	ReasonCompleted  = "Completed"
	ReasonError      = "Error"
	ReasonOOMKilled  = "OOMKilled"
	ReasonStartError = "StartError"
)

// Exit codes that are not the guest's own (STATE-11).
const (
	codeStartError = 128
	// codeTrap is 128 + SIGABRT, as other runtimes have it: a trap is how
	// abort(3), an assertion and a bad memory access end a WebAssembly program.
	codeTrap = 134
	codeKill = 137
)

// Exit is how an instance ended.
type Exit struct {
	Code    int32  // 0 to 255
	Reason  string // Completed, Error, OOMKilled or StartError
	Message string // for a trap: what and in which function; else mostly empty
}

// InstanceConfig configures one instance.
type InstanceConfig struct {
	Name string // for messages
	// MemoryLimit bounds linear memory, tables, globals and stack together, in bytes;
	// zero is unlimited. A guest that would exceed it ends OOMKilled with exit
	// code 137 (OOM-06).
	MemoryLimit int64
	// Account, if not nil, is charged instead, and has the limit: for instances
	// that share one, as the programs of a container.
	Account *Account
	// CPUShares is the guest's weight against others when more want to run than
	// can: 2 to 262144 (RES-04); zero is 1024, the shares of one core.
	CPUShares int64
	// CPU, if not nil, is what the guest's processor time is charged to, and what
	// holds the guest back at a safepoint when it is spent (RES-05).
	CPU CPUAccount
	// Context returns the context of the guest's host calls, made from the one
	// it is given: the place to put the state of host functions.
	Context func(context.Context) context.Context
}

// Stats of an instance.
type Stats struct {
	MemoryBytes int64 // linear memory, tables, globals and stack now
	MemoryPeak  int64 // the most linear memory that it has had
	// Fuel is the work that the guest was charged, in units of about 64 bytes of
	// code executed, up to its last safepoint and in the end all of it. It is
	// the same whenever and wherever a module does the same.
	Fuel       uint64
	Safepoints uint64 // how often its budget has run out
	// CPUTime is how long it has executed, up to its last slice, which ends when
	// it sleeps or another guest's turn comes.
	CPUTime time.Duration
	// CPUWait is how long it has waited for a place to execute.
	CPUWait time.Duration
}

// Instance is one running copy of a module. Its methods are safe for
// concurrent use and never block.
type Instance struct {
	name    string
	module  *Module
	ctx     *guestContext // of its calls
	cancel  context.CancelFunc
	unwatch func() bool // the context that it was started with
	memory  *allocator
	turn    *turn
	meter   meter
	done    chan struct{}
	exit    Exit // set before done is closed

	stop    atomic.Pointer[Exit]  // how it is to end, once that was asked for
	pending atomic.Uint64         // signals for the handler: bit n-1 is signal n
	wake    atomic.Pointer[event] // replaced whenever signals have been taken
	crossed atomic.Uint64

	// Only the guest's goroutine uses the following.
	mod      api.Module
	entry    api.Function
	handling bool // the signal handler runs
	outside  outside
	aside    life
}

// event is a channel that is closed at most once.
type event struct {
	once sync.Once
	c    chan struct{}
}

func newEvent() *event   { return &event{c: make(chan struct{})} }
func (e *event) signal() { e.once.Do(func() { close(e.c) }) }

// Start runs the module's _start function in a goroutine of its own. The error
// says why that cannot be; whatever goes wrong later is in [Instance.Exit].
// When ctx ends the instance is killed.
func (e *Engine) Start(ctx context.Context, m *Module, c InstanceConfig) (*Instance, error) {
	if m.info.startError != nil {
		return nil, m.info.startError
	}
	if c.MemoryLimit < 0 {
		return nil, fmt.Errorf("memory limit of %d bytes is negative", c.MemoryLimit)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i := &Instance{name: c.Name, module: m, turn: e.scheduler.newTurn(c.CPUShares), meter: newMeter(), done: make(chan struct{})}
	i.wake.Store(newEvent())
	if c.Account == nil {
		c.Account = NewAccount(c.MemoryLimit)
	}
	i.memory = &allocator{account: c.Account, exceeded: i.outOfMemory}

	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i.cancel = cancel
	i.turn.charged(c.CPU, base.Done())

	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		cancel()
		return nil, errClosed
	}
	if m.refs == 0 {
		e.mu.Unlock()
		cancel()
		return nil, fmt.Errorf("module %s has been released", m.digest)
	}
	e.instances[i] = struct{}{}
	m.refs++
	e.mu.Unlock()

	guest := base
	if c.Context != nil {
		guest = c.Context(base)
	}
	i.ctx = &guestContext{Context: guest, instance: i}
	i.unwatch = context.AfterFunc(ctx, i.Kill)
	i.turn.aside.live = i.live
	go i.live()
	return i, nil
}

// live is what the goroutine of a guest does: one after another, if the guest is
// put aside.
func (i *Instance) live() {
	for i.stint() && !i.turn.settle() {
	}
}

// stint is the guest's life until it ends or is put aside.
func (i *Instance) stint() (left bool) {
	// Deferred, so that even runtime.Goexit in a host function is an end.
	defer func() {
		if !left {
			i.unwatch()
			i.cancel()
			i.finish()
		}
	}()
	// Should run not return:
	i.exit = Exit{Code: codeTrap, Reason: ReasonError, Message: "a host function ended the guest's goroutine"}
	i.exit, left = i.run(i.ctx)
	return left
}

// moduleConfig is that of all instances. Without a source wazero would make and
// seed one for each, 5 KB that nobody uses.
var moduleConfig = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader)

// run is a stint, apart from what surrounds it.
func (i *Instance) run(ctx *guestContext) (exit Exit, left bool) {
	defer func() {
		// wazero recovers panics of host functions; this is for its own.
		if r := recover(); r != nil {
			exit = i.exitOf(fmt.Errorf("%v", r))
		}
	}()
	// Before take, which may fail with a slot: one that came together with the end.
	defer i.turn.checkOut()
	defer i.turn.leave()
	defer func() {
		if !left && i.mod != nil {
			i.meter.read(i.mod)
			i.mod.Close(context.WithoutCancel(ctx))
		}
	}()
	if !i.turn.take() {
		return *i.stop.Load(), false
	}
	var err error
	if i.aside.kept != nil {
		err = i.comeBack()
	} else if exit, ok := i.instantiate(ctx); !ok {
		return exit, false
	} else {
		_, err = i.entry.Call(ctx)
	}
	if i.aside.leaving {
		i.aside.leaving = false
		setStack(i.entry, nil)
		return Exit{}, true
	}
	return i.exitOf(err), false
}

// instantiate is false if the guest has ended already.
func (i *Instance) instantiate(ctx *guestContext) (Exit, bool) {
	if account, declared := i.memory.account, i.module.info.outside; declared > 0 {
		if !account.Charge(declared) {
			i.stop.CompareAndSwap(nil, oomExit(cmp.Or(account.Refused(), account.Limit())))
			return *i.stop.Load(), false
		}
		i.outside.bytes.Store(declared)
	}
	// The module's start section, if any, runs here already.
	mod, err := i.module.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, i.memory), i.module.code, moduleConfig)
	if err != nil {
		exit := i.exitOf(err)
		if exit.Code == codeTrap {
			exit.Code, exit.Reason = codeStartError, ReasonStartError
		}
		return exit, false
	}
	i.mod = mod
	dropSystem(mod)
	i.checkMemory(mod) // tables
	ctx.Safepoint()    // it may have been killed or signalled meanwhile
	i.entry = mod.ExportedFunction(entryName)
	i.prepareAside(shrinkStack(i.entry))
	i.outside.enter(i.entry)
	return Exit{}, true
}

func (i *Instance) finish() {
	i.memory.free() // where wazero had no module to close
	i.memory.account.Release(i.outside.bytes.Swap(0))
	e := i.module.engine
	e.mu.Lock()
	delete(e.instances, i)
	e.mu.Unlock()
	i.module.Release()
	close(i.done)
}

// exitOf turns what a call of the guest returned into an Exit.
func (i *Instance) exitOf(err error) Exit {
	// Even when it was not safepoint that ended it: what a guest does because
	// its host calls fail under it is no news of its own.
	if stop := i.stop.Load(); stop != nil {
		return *stop
	}
	exited := (*sys.ExitError)(nil)
	switch {
	case err == nil:
		return Exit{Reason: ReasonCompleted}
	case !errors.As(err, &exited):
		return Exit{Code: codeTrap, Reason: ReasonError, Message: i.module.info.describe(err)}
	case exited.ExitCode()&0xff == 0: // as wait(2) has it
		return Exit{Reason: ReasonCompleted}
	}
	return Exit{Code: int32(exited.ExitCode() & 0xff), Reason: ReasonError}
}

// Done is closed when the guest has ended and its memory is free.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Exit is how the instance ended; it is the zero value until Done is closed.
func (i *Instance) Exit() Exit {
	select {
	case <-i.done:
		return i.exit
	default:
		return Exit{}
	}
}

// Stats returns current figures.
func (i *Instance) Stats() Stats {
	return Stats{
		MemoryBytes: i.memory.size.Load() + i.outside.bytes.Load(),
		MemoryPeak:  i.memory.peak.Load(),
		Fuel:        i.meter.fuel.Load(),
		Safepoints:  i.crossed.Load(),
		CPUTime:     i.turn.usage(),
		CPUWait:     time.Duration(i.turn.waited.Load()),
	}
}

// Kill ends the guest with exit code 137, at its next safepoint or when the
// host call that it is in returns, which it should do as its context is done.
// An instance that is ending for another reason already keeps that.
func (i *Instance) Kill() {
	i.end(Exit{Code: codeKill, Reason: ReasonError})
}

// Signal delivers a signal of Linux's numbering. A module that exports
// __wasm_signal(i32) has it called on its own goroutine, at the next safepoint
// or when a blocking host call is interrupted. Without it the default action
// applies: SIGTERM (15) and most others end the guest with exit code 128 + sig
// (DEL-08, STATE-11), and SIGCHLD, SIGURG, SIGWINCH and job control do nothing.
// SIGKILL (9) is Kill. Numbers outside of 1 to 64 are ignored.
func (i *Instance) Signal(sig int) {
	const sigkill, sigchld, sigttou, sigurg, sigwinch = 9, 17, 22, 23, 28
	switch {
	case sig < 1 || sig > 64:
	case sig == sigkill:
		i.Kill()
	case i.module.info.handler:
		i.pending.Or(1 << (sig - 1))
		i.wake.Load().signal()
		i.turn.unpark()
	case sig >= sigchld && sig <= sigttou, sig == sigurg, sig == sigwinch:
	default:
		i.end(Exit{Code: 128 + int32(sig), Reason: ReasonError})
	}
}

// end makes the guest end so, unless it is ending already.
func (i *Instance) end(exit Exit) {
	if i.stop.CompareAndSwap(nil, &exit) {
		i.cancel()
		i.turn.end()
	}
}

func oomExit(limit int64) *Exit {
	return &Exit{Code: codeKill, Reason: ReasonOOMKilled, Message: fmt.Sprintf("memory limit of %d bytes exceeded", limit)}
}

// outOfMemory is called on the guest's goroutine, within memory.grow.
func (i *Instance) outOfMemory() {
	i.stop.CompareAndSwap(nil, oomExit(cmp.Or(i.memory.account.Refused(), i.memory.account.Limit())))
	i.unwind()
}

// unwind leaves the guest's code for good.
func (i *Instance) unwind() {
	panic(sys.NewExitError(uint32(i.stop.Load().Code)))
}

// safepoint is crossed on the guest's goroutine. It does not return if the
// guest is to end.
func (i *Instance) safepoint(ctx context.Context, signals bool) {
	if i.stop.Load() != nil {
		i.unwind()
	}
	if signals && !i.handling && i.mod != nil && i.pending.Load() != 0 {
		i.handle(ctx)
	}
}

// handle calls the guest's signal handler for each pending signal, lowest
// number first as Linux does. Signals that arrive meanwhile wait for its end.
func (i *Instance) handle(ctx context.Context) {
	i.handling = true
	defer func() { i.handling = false }()
	for {
		// A new event first: a signal that comes after the exchange below
		// finds it, and one before is taken by the exchange.
		i.wake.Store(newEvent())
		set := i.pending.Swap(0)
		if set == 0 {
			return
		}
		for ; set != 0; set &= set - 1 {
			sig := uint64(bits.TrailingZeros64(set) + 1)
			// A new function each time: one that runs cannot be called again.
			handler := i.mod.ExportedFunction(handlerName)
			shrinkStack(handler)
			before := i.outside.enter(handler)
			_, err := handler.Call(ctx, sig)
			i.outside.stack = before
			if err != nil {
				panic(err) // its exit or trap is that of the guest
			}
			if i.stop.Load() != nil {
				i.unwind()
			}
		}
	}
}
