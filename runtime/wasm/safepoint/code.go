package safepoint

// Opcodes that the rewriter reads or writes.
const (
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opReturn       = 0x0f
	opCall         = 0x10
	opReturnCall   = 0x12
	opSelect       = 0x1b
	opTryTable     = 0x1f
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opMemorySize   = 0x3f
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32LtS       = 0x48
	opI32LtU       = 0x49
	opI32GtS       = 0x4a
	opI32LeU       = 0x4d
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32ShrU      = 0x76
	opI64Add       = 0x7c
	opI64Or        = 0x84
	opI64Shl       = 0x86
	opI64ExtendU   = 0xad
	opRefFunc      = 0xd2
	opBulk         = 0xfc
	opSIMD         = 0xfd
	opAtomic       = 0xfe
	bulkMemoryInit = 8
	bulkMemoryCopy = 10
	bulkMemoryFill = 11

	voidBlock = 0x40
	typeI32   = 0x7f
	typeI64   = 0x7e

	typeFuncref = 0x70
)

// An edit changes a function's body at one place.
type edit struct {
	kind     editKind
	split    bool   // of a loop: it becomes two, see appendLoop
	from, to int    // bytes of the source that it replaces; from==to inserts
	value    uint32 // by kind
	loop     int    // of a label or end: the index of the edit of the loop it leaves
}

type editKind byte

const (
	editIndex  editKind = iota // write the function index value
	editLoop                   // head of a loop; value is its weight
	editLabel                  // write the label value, which leaves a loop that may be split
	editEnd                    // end of a loop that may be split
	editCount                  // add value to the loop's count
	editCharge                 // charge the size on top of the stack; value is the shift
	editCall                   // call the function value instead
	editWait                   // value: memory.atomic.wait's index of host function; the offset is in wait
	editRef                    // value: the element of the added table that is to be read instead
)

// body is one function as the walk over its code found it.
type body struct {
	params      int
	localsFrom  int // of the declarations, their count included
	groups      int // of locals
	groupsFrom  int // of the declarations, after their count
	codeFrom    int
	end         int
	locals      int // with parameters
	edits       []edit
	waits       []uint32 // offsets of the editWait edits, in order
	loops       bool
	calls       bool
	getsGlobal  bool
	setsGlobal  bool
	charges     bool
	extraWeight int // bytes to be added for calls
	longest     int // bytes of code on the longest path from the entry to a return
}

type control struct {
	op     byte
	at     int  // offset of its body
	start  int  // cost of the longest path to its start
	best   int  // that of the longest path to its label
	extra  int  // extraWeight before it
	catch  int  // of a try_table: where its labels begin in walker.catches
	edit   int  // of a loop
	inner  bool // a loop without loops in it
	outer  int  // of a loop: the one around it, or -1
	params bool // a loop that takes operands
}

// walker is reused from function to function.
type walker struct {
	m        *module
	controls []control
	loop     int   // index in controls of the innermost loop, or -1
	catches  []int // indices in controls of what the catch clauses around here branch to
	skew     int   // see cost
	body     body
}

// dead is the cost of code that cannot be reached: less than any, whatever is added.
const dead = -1 << 40

// cost is that of the longest path from the function's entry to an offset, in
// bytes of code, with each loop run once. As control flow is structured, one
// pass finds it: code in sequence adds up, paths that meet have the greater.
// A branch of an interpreter's loop costs what its instruction takes, not what
// all of them would take.
func (w *walker) cost(at int) int { return at + w.body.extraWeight + w.skew }

// settle has what the loop's pass cost so far counted at an offset, before a
// branch or where paths meet, if that is much: else a path that joins a longer one would be
// charged for that over and over, as in the loop of an interpreter, whose
// longest path leads through the code of many instructions.
func (w *walker) settle(at int) {
	if w.loop < 0 {
		return
	}
	start := w.controls[w.loop].start
	if pending := w.cost(at) - start; w.cost(at) >= 0 && pending > settleBytes {
		w.body.edits = append(w.body.edits, edit{kind: editCount, from: at, to: at, value: weight(pending)})
		w.resume(at, start)
	}
}

// resume sets the cost from an offset on.
func (w *walker) resume(at, cost int) { w.skew = cost - at - w.body.extraWeight }

// unreachable notes that what follows is never reached. The function may end
// where the path does, even at a jump back: a call may have thrown before it.
func (w *walker) unreachable(at int) {
	w.controls[0].best = max(w.controls[0].best, w.cost(at))
	w.resume(at, dead)
}

// function reads one body, which r holds exactly.
func (w *walker) function(r *reader, params int) *body {
	b := &w.body
	*b = body{params: params, edits: b.edits[:0], waits: b.waits[:0], end: r.end}
	if r.left() > maxBodyBytes {
		r.fail("function of %d bytes exceeds the limit of %d", r.left(), maxBodyBytes)
		return b
	}
	b.localsFrom = r.pos
	b.groups = r.count("groups of locals", maxBodyBytes)
	b.groupsFrom = r.pos
	locals := uint64(0)
	for range b.groups {
		locals += uint64(r.u32())
		w.m.valueType(r)
		if r.err != nil {
			return b
		}
		if locals > maxLocals {
			r.fail("%d locals exceed the limit of %d", locals, maxLocals)
			return b
		}
	}
	b.locals = params + int(locals)
	b.codeFrom = r.pos
	w.controls = append(w.controls[:0], control{op: opBlock, at: r.pos, best: dead})
	w.loop, w.catches = -1, w.catches[:0]
	w.resume(r.pos, 0)
	for len(w.controls) > 0 {
		w.instruction(r)
		if r.err != nil {
			return b
		}
	}
	if r.pos != r.end {
		r.fail("function goes on after its end")
	}
	return b
}

func (w *walker) push(r *reader, op byte) {
	if len(w.controls) >= maxDepth {
		r.fail("blocks nest deeper than %d", maxDepth)
	}
	w.controls = append(w.controls, control{op: op, at: r.pos, start: w.cost(r.pos), best: dead, extra: w.body.extraWeight, catch: len(w.catches)})
}

// label reads the label of a branch, and returns the index of its control.
func (w *walker) label(r *reader) int {
	from := r.pos
	l := r.u32()
	if r.err == nil && l >= uint32(len(w.controls)) {
		r.fail("unknown label %d", l)
	}
	if r.err != nil {
		return 0
	}
	target := len(w.controls) - 1 - int(l)
	if w.loop >= 0 && target < w.loop && w.controls[w.loop].inner {
		w.body.edits = append(w.body.edits, edit{kind: editLabel, from: from, to: r.pos, value: l, loop: w.controls[w.loop].edit})
	}
	c := &w.controls[target]
	c.best = max(c.best, w.cost(r.pos))
	return target
}

func (w *walker) index(r *reader, n int, what string) {
	if i := r.u32(); r.err == nil && i >= uint32(n) {
		r.fail("unknown %s %d", what, i)
	}
}

// blockType returns how many operands a block of the type takes.
func (w *walker) blockType(r *reader) int {
	if t := r.signed(33); r.err == nil {
		switch {
		case t == -64 || t >= -0x17 && t < 0: // empty, or one value type
		case t == -0x1d || t == -0x1c: // (ref null ht), (ref ht)
			heapType(r)
		case t >= 0 && t < int64(len(w.m.params)):
			return w.m.params[t]
		default:
			r.fail("unknown block type %d", t)
		}
	}
	return 0
}

func (w *walker) instruction(r *reader) {
	b := &w.body
	at := r.pos
	op := r.byte()
	switch {
	case op == opBlock || op == opLoop || op == opIf:
		if op == opIf {
			w.settle(at)
		}
		params := w.blockType(r)
		w.push(r, op)
		if op == opLoop {
			w.enterLoop(r, at, params)
		}
	case op == opElse:
		if top := &w.controls[len(w.controls)-1]; top.op != opIf {
			r.fail("else without if")
		} else {
			top.op = opElse
			top.best = max(top.best, w.cost(at))
			w.resume(r.pos, top.start)
		}
	case op == opEnd:
		top := w.controls[len(w.controls)-1]
		w.controls = w.controls[:len(w.controls)-1]
		switch top.op {
		case opLoop:
			w.leaveLoop(top, at)
			return
		case opIf: // without else
			top.best = max(top.best, top.start)
		case opTryTable:
			// An exception may come from anywhere within.
			worst := top.start + at - top.at + b.extraWeight - top.extra
			for _, target := range w.catches[top.catch:] {
				c := &w.controls[target]
				c.best = max(c.best, worst)
			}
			w.catches = w.catches[:top.catch]
		}
		b.longest = max(top.best, w.cost(at), 0)
		if w.resume(r.pos, max(top.best, w.cost(at))); len(w.controls) > 0 {
			w.settle(r.pos)
		}
	case op == opTryTable:
		w.blockType(r)
		catches := len(w.catches)
		for range r.count("catch clauses", maxBranches) {
			kind := r.byte()
			if kind > 3 {
				r.fail("unknown catch clause %d", kind)
			}
			if kind < 2 {
				w.index(r, w.m.tags, "tag")
			}
			target := w.label(r)
			if r.err != nil {
				return
			}
			w.catches = append(w.catches, target)
		}
		w.push(r, op)
		w.controls[len(w.controls)-1].catch = catches
	case op == 0x08: // throw
		w.index(r, w.m.tags, "tag")
		w.unreachable(r.pos)
	case op == 0x06 || op == 0x07 || op == 0x09 || op == 0x18 || op == 0x19:
		r.pos--
		r.fail("legacy exception handling (opcode %#x) is not supported", op)
	case op == 0x0c || op == opBrIf || op == 0xd5 || op == 0xd6: // br, br_if, br_on_null, br_on_non_null
		w.settle(at)
		if w.label(r); op == opBr {
			w.unreachable(r.pos)
		}
	case op == 0x0e: // br_table
		w.settle(at)
		for range r.count("branches", maxBranches) {
			if w.label(r); r.err != nil {
				return
			}
		}
		w.label(r)
		w.unreachable(r.pos)
	case op == opCall || op == opReturnCall:
		w.call()
		from := r.pos
		f := r.u32()
		if r.err == nil && f >= uint32(w.m.funcCount()) {
			r.fail("unknown function %d", f)
		}
		if f >= uint32(w.m.importedFuncs) {
			b.edits = append(b.edits, edit{kind: editIndex, from: from, to: r.pos, value: w.m.shift(f)})
		}
		if op == opReturnCall {
			w.unreachable(r.pos)
		}
	case op == opRefFunc:
		f := r.u32()
		if r.err == nil && !w.m.declared.has(f) {
			r.fail("function %d is referred to, but occurs in no export, global or element segment", f)
			return
		}
		b.edits = append(b.edits, edit{kind: editRef, from: at, to: r.pos, value: w.m.reference(f)})
	case op == 0x11 || op == 0x13: // call_indirect, return_call_indirect
		w.call()
		w.index(r, len(w.m.params), "type")
		w.index(r, w.m.tableCount(), "table")
		if op == 0x13 {
			w.unreachable(r.pos)
		}
	case op == 0x14 || op == 0x15: // call_ref, return_call_ref
		r.fail("typed function references are not supported")
	case op == 0x1c: // select with types
		for range r.count("types of select", 1) {
			w.m.valueType(r)
		}
	case op >= opLocalGet && op <= opLocalTee:
		w.index(r, b.locals, "local")
	case op == opGlobalGet:
		b.getsGlobal = true
		w.index(r, w.m.globalCount(), "global")
	case op == opGlobalSet:
		b.setsGlobal = true
		w.index(r, w.m.globalCount(), "global")
	case op == 0x25 || op == 0x26: // table.get, table.set
		w.index(r, w.m.tableCount(), "table")
	case op >= 0x28 && op <= 0x3e: // loads and stores
		w.memArg(r)
	case op == opMemorySize || op == 0x40:
		w.needMemory(r)
		w.reserved(r)
	case op == opI32Const:
		r.signed(32)
	case op == opI64Const:
		r.signed(64)
	case op == 0x43:
		r.skip(4)
	case op == 0x44:
		r.skip(8)
	case op == 0xd0: // ref.null
		heapType(r)
	case op == 0x00, op == 0x0a: // unreachable, throw_ref
		w.unreachable(r.pos)
	case op == opReturn:
		w.unreachable(r.pos)
	case op == 0x01, op == 0x1a, op == opSelect, // nop, drop, select
		op >= 0x45 && op <= 0xc4, op == 0xd1, op == 0xd4: // numeric, ref.is_null, ref.as_non_null
	case op == opBulk:
		w.bulk(r, at)
	case op == opSIMD:
		w.simd(r)
	case op == opAtomic:
		w.atomic(r, at)
	default:
		r.pos = at
		r.fail("unknown instruction %#x", op)
	}
}

func (w *walker) enterLoop(r *reader, at, params int) {
	b := &w.body
	b.loops = true
	if w.loop >= 0 {
		w.controls[w.loop].inner = false
	}
	// Only loops without loops in them are split: there the time goes, and no
	// branch leaves more than one of them.
	top := &w.controls[len(w.controls)-1]
	top.edit, top.outer, top.inner, top.params = len(b.edits), w.loop, true, params > 0
	w.loop = len(w.controls) - 1
	b.edits = append(b.edits, edit{kind: editLoop, from: at, to: r.pos})
}

func (w *walker) leaveLoop(top control, at int) {
	b := &w.body
	w.loop = top.outer
	if top.best < 0 {
		return // nothing goes back to it
	}
	e := &b.edits[top.edit]
	e.value = weight(top.best - top.start)
	e.split = top.inner && !top.params
	if e.split {
		b.edits = append(b.edits, edit{kind: editEnd, from: at, to: at, loop: top.edit})
	}
}

func (w *walker) call() {
	w.body.calls = true
	w.body.extraWeight += callBytes
}

func (w *walker) needMemory(r *reader) {
	if w.m.memories == 0 {
		r.fail("instruction needs a memory, and the module has none")
	}
}

func (w *walker) memArg(r *reader) (offset uint32) {
	w.needMemory(r)
	r.u32() // alignment
	return r.u32()
}

func (w *walker) reserved(r *reader) {
	if r.byte() != 0 {
		r.fail("unknown memory")
	}
}

func (w *walker) bulk(r *reader, at int) {
	charge := func(shift uint32) {
		w.body.charges = true
		w.body.edits = append(w.body.edits, edit{kind: editCharge, from: at, to: at, value: shift})
	}
	switch op := r.u32(); {
	case op <= 7: // saturating truncation
	case op == bulkMemoryInit:
		w.needMemory(r)
		w.index(r, w.m.segments(), "data segment")
		w.reserved(r)
		charge(memoryShift)
	case op == 9: // data.drop
		w.index(r, w.m.segments(), "data segment")
	case op == bulkMemoryCopy:
		w.needMemory(r)
		w.reserved(r)
		w.reserved(r)
		w.body.extraWeight += callBytes
		w.body.edits = append(w.body.edits, edit{kind: editCall, from: at, to: r.pos, value: w.m.helper(helperCopy)})
	case op == bulkMemoryFill:
		w.needMemory(r)
		w.reserved(r)
		w.body.extraWeight += callBytes
		w.body.edits = append(w.body.edits, edit{kind: editCall, from: at, to: r.pos, value: w.m.helper(helperFill)})
	case op == 12: // table.init
		w.index(r, w.m.elements, "element segment")
		w.index(r, w.m.tableCount(), "table")
		charge(tableShift)
	case op == 13: // elem.drop
		w.index(r, w.m.elements, "element segment")
	case op == 14: // table.copy
		w.index(r, w.m.tableCount(), "table")
		w.index(r, w.m.tableCount(), "table")
		charge(tableShift)
	case op == 15, op == 17: // table.grow, table.fill
		w.index(r, w.m.tableCount(), "table")
		charge(tableShift)
	case op == 16: // table.size
		w.index(r, w.m.tableCount(), "table")
	default:
		r.fail("unknown instruction 0xfc %#x", op)
	}
}

// segments is the number of data segments that code may name.
func (m *module) segments() int {
	if m.dataCount < 0 {
		return 0 // such code needs a data count section
	}
	return m.dataCount
}

func (w *walker) simd(r *reader) {
	switch op := r.u32(); {
	case op <= 11, op == 0x5c, op == 0x5d: // loads and store
		w.memArg(r)
	case op == 12, op == 13: // v128.const, i8x16.shuffle
		r.skip(16)
	case op >= 0x15 && op <= 0x22: // lanes
		r.byte()
	case op >= 0x54 && op <= 0x5b: // loads and stores of lanes
		w.memArg(r)
		r.byte()
	case op <= 0xff:
	default:
		// Relaxed SIMD begins at 0x100; all of its instructions are without
		// immediates, and wazero has none of them.
		r.fail("relaxed SIMD instruction 0xfd %#x is not supported", op)
	}
}

func (w *walker) atomic(r *reader, at int) {
	switch op := r.u32(); {
	case op == 3: // atomic.fence
		w.reserved(r)
	case op <= 2, op >= 0x10 && op <= 0x4e:
		offset := w.memArg(r)
		if (op == 1 || op == 2) && w.m.shared {
			w.body.edits = append(w.body.edits, edit{kind: editWait, from: at, to: r.pos, value: uint32(w.m.importedFuncs) + op})
			w.body.waits = append(w.body.waits, offset)
			w.call()
		}
	default:
		r.fail("unknown instruction 0xfe %#x", op)
	}
}

// weight is what so many bytes of code cost.
func weight(bytes int) uint32 { return uint32(1 + bytes>>unitShift) }
