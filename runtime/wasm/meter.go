package wasm

import (
	"errors"
	"reflect"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
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
	// segmentBytes is what a segment of data or elements takes besides, beyond as
	// many as that.
	segmentBytes = 24
	// referenceBytes is what a reference to a function takes. wazero makes one for
	// each element of a segment when it instantiates a module, and keeps them all.
	referenceBytes = 32
)

var errStackOverflow = errors.New("stack overflow")

// outside finds the memory of a guest that is not linear memory: its stack and
// its tables. wazero has no hook for either, so that they are looked at in
// safepoints, which come before a guest can have filled much. There is no
// interface to their sizes either; what reflection does not find counts as
// nothing.
type outside struct {
	bytes  atomic.Int64
	stack  reflect.Value   // of the function that runs
	tables []reflect.Value // the references of each
	fixed  int64           // bytes of globals, segments and references to functions
	found  bool
}

// declaredOutside is what an instance takes of that as soon as it is made: it is
// charged before, as a small module may declare much.
func declaredOutside(code wazero.CompiledModule) (bytes int64) {
	module := field(code, "module")
	if module.Kind() != reflect.Pointer || module.Elem().Kind() != reflect.Struct {
		return 0
	}
	section := func(name string) (v reflect.Value, n int) {
		if v = module.Elem().FieldByName(name); v.Kind() != reflect.Slice {
			return v, 0
		}
		return v, v.Len()
	}
	_, globals := section("GlobalSection")
	bytes = max(0, int64(globals)-fewGlobals) * globalBytes
	_, datas := section("DataSection")
	segments, n := section("ElementSection")
	bytes += max(0, int64(datas+n)-fewGlobals) * segmentBytes
	for i := range n {
		if s := segments.Index(i); s.Kind() == reflect.Struct {
			if elements := s.FieldByName("Init"); elements.Kind() == reflect.Slice {
				bytes += int64(elements.Len()) * (elementBytes + referenceBytes)
			}
		}
	}
	tables, n := section("TableSection")
	for i := range n {
		if t := tables.Index(i); t.Kind() == reflect.Struct {
			if least := t.FieldByName("Min"); least.CanUint() {
				bytes += int64(least.Uint()) * elementBytes
			}
		}
	}
	return bytes
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
		segments := 0
		for _, name := range []string{"DataInstances", "ElementInstances"} {
			if list := field(mod, name); list.Kind() == reflect.Slice {
				segments += list.Len()
			}
		}
		o.fixed += max(0, int64(segments)-fewGlobals) * segmentBytes
		if segments := field(mod, "ElementInstances"); segments.Kind() == reflect.Slice {
			for i := range segments.Len() {
				if s := segments.Index(i); s.Kind() == reflect.Slice {
					o.fixed += int64(s.Len()) * elementBytes
				}
			}
		}
		if engine := field(mod, "Engine"); engine.Kind() == reflect.Interface && engine.Elem().Kind() == reflect.Pointer && engine.Elem().Elem().Kind() == reflect.Struct {
			if refs := engine.Elem().Elem().FieldByName("localFunctionInstances"); refs.Kind() == reflect.Slice {
				o.fixed += int64(refs.Cap())*elementBytes + int64(refs.Len())*referenceBytes
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
	if stack > stackCeiling {
		panic(errStackOverflow)
	}
}
