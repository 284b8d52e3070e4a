package wasm

import (
	"errors"
	"reflect"
	"sync/atomic"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// meter adds up what the code that the rewriter has inserted charges a guest.
// The sum depends on nothing but the module and its input: not on the machine,
// nor on when and how often the guest was interrupted.
type meter struct {
	fuel    atomic.Uint64
	counter api.Global // of the remaining budget
	left    int64      // what it was when last read or set
}

func newMeter() meter { return meter{left: safepoint.Budget} }

// read charges what the counter has lost.
func (m *meter) read(mod api.Module) {
	if m.counter == nil {
		// The rewriter adds it as the last one.
		g, ok := mod.(experimental.InternalModule)
		if !ok || g.NumGlobal() == 0 {
			return
		}
		m.counter = g.Global(g.NumGlobal() - 1)
	}
	now := int64(int32(m.counter.Get()))
	m.fuel.Add(uint64(m.left - now))
	m.left = now
}

const (
	// stackCeiling is what a guest's stack may take. wazero's own limit is
	// 100 MB, and it cannot be set. The stack doubles as it grows.
	stackCeiling = 32 << 20
	// smallStack is not counted as the guest's memory.
	smallStack = 64 << 10
	// elementBytes is what an element of a table, or of a segment of elements,
	// takes, and globalBytes what a global does, beyond those that any toolchain
	// makes.
	elementBytes = 8
	globalBytes  = 96
	fewGlobals   = 256
	// referenceBytes is what a reference to a function takes. wazero makes a new
	// one each time that ref.func is executed, and keeps them all until the
	// instance ends: nobody knows where the guest has put them. No toolchain's
	// code makes more than a few.
	referenceBytes = 32
	maxReferences  = 1 << 20
)

var (
	errStackOverflow  = errors.New("stack overflow")
	errTooManyRefFunc = errors.New("too many references to functions were made (ref.func)")
)

// outside finds the memory of a guest that is not linear memory: its stack and
// its tables. wazero has no hook for either, so that they are looked at in
// safepoints, which come before a guest can have filled much. There is no
// interface to their sizes either; what reflection does not find counts as
// nothing.
type outside struct {
	bytes  atomic.Int64
	stack  reflect.Value   // of the function that runs
	tables []reflect.Value // the references of each
	refs   reflect.Value   // to functions, made so far
	fixed  int64           // bytes of globals and segments
	found  bool
}

func field(v any, name string) reflect.Value {
	e := reflect.ValueOf(v)
	if e.Kind() != reflect.Pointer || e.Elem().Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return e.Elem().FieldByName(name)
}

// enter notes which function runs and returns the one that did before.
func (o *outside) enter(f api.Function) (before reflect.Value) {
	before = o.stack
	if o.stack = field(f, "stack"); o.stack.Kind() != reflect.Slice {
		o.stack = reflect.Value{}
	}
	return before
}

// measure returns the size of the stack, and of everything that counts.
func (o *outside) measure(mod api.Module) (stack, sum int64) {
	if !o.found {
		o.found = true
		if globals := field(mod, "Globals"); globals.Kind() == reflect.Slice {
			o.fixed = max(0, int64(globals.Len())-fewGlobals) * globalBytes
		}
		if segments := field(mod, "ElementInstances"); segments.Kind() == reflect.Slice {
			for i := range segments.Len() {
				if s := segments.Index(i); s.Kind() == reflect.Slice {
					o.fixed += int64(s.Len()) * elementBytes
				}
			}
		}
		if engine := field(mod, "Engine"); engine.Kind() == reflect.Interface && engine.Elem().Kind() == reflect.Pointer && engine.Elem().Elem().Kind() == reflect.Struct {
			if o.refs = engine.Elem().Elem().FieldByName("localFunctionInstances"); o.refs.Kind() != reflect.Slice {
				o.refs = reflect.Value{}
			}
		}
		if tables := field(mod, "Tables"); tables.Kind() == reflect.Slice {
			for i := range tables.Len() {
				if t := tables.Index(i); t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct {
					if r := t.Elem().FieldByName("References"); r.Kind() == reflect.Slice {
						o.tables = append(o.tables, r)
					}
				}
			}
		}
	}
	if o.refs.IsValid() {
		sum = int64(o.refs.Cap())*elementBytes + int64(o.refs.Len())*referenceBytes
	}
	if o.stack.IsValid() {
		stack = int64(o.stack.Len()) * int64(o.stack.Type().Elem().Size())
	}
	sum += o.fixed + max(0, stack-smallStack)
	for _, t := range o.tables {
		sum += int64(t.Len()) * elementBytes
	}
	return stack, sum
}

// checkMemory ends a guest whose memory, all in all, exceeds its limit.
func (i *Instance) checkMemory(mod api.Module) {
	stack, sum := i.outside.measure(mod)
	if before := i.outside.bytes.Load(); sum != before {
		if !i.memory.account.Charge(sum - before) {
			i.outOfMemory()
		}
		i.outside.bytes.Store(sum)
	}
	switch {
	case stack > stackCeiling:
		panic(errStackOverflow)
	case i.outside.refs.IsValid() && i.outside.refs.Len() > maxReferences:
		panic(errTooManyRefFunc)
	}
}
