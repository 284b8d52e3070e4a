package wasm

import (
	"reflect"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// firstStack is how many bytes of stack a guest begins with. wazero gives each
// call 10,240, most of which most guests never need, and has no setting for it.
// A stack that is too small is doubled by wazero itself, which copies it: code
// compiled by it checks the room left in every prologue and before every call
// of the host, so that a small stack takes no path that a large one would not
// take near its end.
const firstStack = 1 << 10

// stackLayout is where in wazero's call engine (internal/engine/wazevo) the
// stack of a call is kept.
type stackLayout struct {
	engine                 reflect.Type
	stack, top, bottom, sp uintptr // offsets of fields
	ok                     bool
}

var knownStackLayout atomic.Pointer[stackLayout]

// stackLayoutOf looks for the fields by name and type. Those of another version
// of wazero, or of its interpreter, which has no such stack, are not ok.
func stackLayoutOf(engine reflect.Type) *stackLayout {
	if l := knownStackLayout.Load(); l != nil && l.engine == engine {
		return l
	}
	l := &stackLayout{engine: engine}
	defer knownStackLayout.Store(l)
	if engine.Kind() != reflect.Pointer || engine.Elem().Kind() != reflect.Struct || !strings.HasSuffix(engine.Elem().PkgPath(), "/wazevo") {
		return l
	}
	s := engine.Elem()
	stack, hasStack := s.FieldByName("stack")
	top, hasTop := s.FieldByName("stackTop")
	context, hasContext := s.FieldByName("execCtx")
	if !hasStack || !hasTop || !hasContext || context.Type.Kind() != reflect.Struct {
		return l
	}
	bottom, hasBottom := context.Type.FieldByName("stackBottomPtr")
	sp, hasSP := context.Type.FieldByName("stackPointerBeforeGoCall")
	l.ok = hasBottom && hasSP && stack.Type == reflect.TypeFor[[]byte]() && top.Type == reflect.TypeFor[uintptr]() &&
		bottom.Type == reflect.TypeFor[*byte]() && sp.Type == reflect.TypeFor[*uint64]()
	l.stack, l.top, l.bottom, l.sp = stack.Offset, top.Offset, context.Offset+bottom.Offset, context.Offset+sp.Offset
	return l
}

// callStack is the stack of one function's calls.
type callStack struct {
	stack  *[]byte
	top    *uintptr
	bottom **byte
	sp     **uint64 // while the host is called
}

// stackOf is false where the stack is not kept as known.
func stackOf(f api.Function) (callStack, bool) {
	l := stackLayoutOf(reflect.TypeOf(f))
	if !l.ok {
		return callStack{}, false
	}
	p := reflect.ValueOf(f).UnsafePointer()
	return callStack{
		stack:  (*[]byte)(unsafe.Add(p, l.stack)),
		top:    (*uintptr)(unsafe.Add(p, l.top)),
		bottom: (**byte)(unsafe.Add(p, l.bottom)),
		sp:     (**uint64)(unsafe.Add(p, l.sp)),
	}, true
}

// set replaces the stack while nothing is on it.
func (s callStack) set(stack []byte) {
	*s.stack = stack
	*s.top, *s.bottom, *s.sp = 0, nil, nil
	if len(stack) > 0 {
		*s.top = alignedTop(stack)
		*s.bottom = unsafe.SliceData(stack)
	}
}

// alignedTop is where wazero lets a stack begin: stacks grow downwards.
func alignedTop(stack []byte) uintptr {
	return uintptr(unsafe.Pointer(&stack[len(stack)-1])) &^ 15
}

// shrinkStack gives a function that has not been called yet, and takes and
// returns no more than a few values, a small stack. It does nothing and is false
// where wazero keeps its stack in another way than it is known here.
//
// Nothing else points into a stack before the first call. Afterwards wazero's
// own fields and the frames in it do, and wazero adjusts them when it grows.
func shrinkStack(f api.Function) bool {
	s, ok := stackOf(f)
	if !ok || len(*s.stack) <= firstStack || *s.top != alignedTop(*s.stack) || *s.bottom != unsafe.SliceData(*s.stack) {
		return false
	}
	s.set(make([]byte, firstStack))
	return true
}

// setStack gives a function whose stack is known a new one, between calls.
func setStack(f api.Function, stack []byte) {
	s, _ := stackOf(f)
	s.set(stack)
}

// stackInUse is how much of a stack is in use by a guest that calls the host.
func stackInUse(f api.Function) uintptr {
	s, _ := stackOf(f)
	return *s.top - uintptr(unsafe.Pointer(*s.sp))
}

// snapshot copies what is in use of the stack of a function that calls the host.
func snapshot(f api.Function) experimental.Snapshot {
	s, _ := stackOf(f)
	// wazero makes the copy as long as the stack, and 16 bytes longer each time.
	whole := *s.stack
	*s.stack = whole[:min(len(whole), int(stackInUse(f)+asideSlack)&^(asideSlack-1))]
	defer func() { *s.stack = whole }()
	return f.(experimental.Snapshotter).Snapshot()
}

// dropSystem frees what wazero makes for a host of WASI, a table of files above
// all: this one has its own.
func dropSystem(mod api.Module) {
	if s := field(mod, "Sys"); s.IsValid() && s.CanSet() && s.Kind() == reflect.Pointer {
		s.SetZero()
	}
}
