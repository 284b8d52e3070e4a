package safepoint

// helper functions are defined by the rewriter after the module's own.
type helper int

const (
	helperCharge helper = iota // (units, flags)
	helperFill                 // (destination, value, size)
	helperCopy                 // (destination, source, size)
)

func (m *module) helpers() int {
	if m.memories > 0 {
		return 3
	}
	return 1
}

func (m *module) helper(h helper) uint32 {
	return uint32(m.funcCount() + m.added + int(h))
}

// Types are added after the module's own, so that no type index changes.
func (m *module) addedTypes() [][]byte {
	types := [][]byte{
		{0x60, 1, typeI32, 1, typeI32},                            // safepoint
		{0x60, 2, typeI32, typeI32, 0},                            // charge
		{0x60, 3, typeI32, typeI32, typeI32, 0},                   // fill, copy
		{0x60, 4, typeI32, typeI32, typeI64, typeI32, 1, typeI32}, // wait32
		{0x60, 4, typeI32, typeI64, typeI64, typeI32, 1, typeI32}, // wait64
	}
	if !m.shared {
		types = types[:3]
	}
	return types
}

// counter is the index of the global that holds the budget; it comes after the
// module's own, so that no global index changes.
func (m *module) counter() uint32 { return uint32(m.globalCount()) }

// vector starts a section's payload with a count that is n more than the
// original's, and returns the reader behind the original count.
func (m *module) vector(id byte, n int) (*copier, *reader) {
	s := m.sections[id]
	r := &reader{buf: m.src, pos: s.from, end: s.to}
	count := uint32(0)
	if s.present {
		count = r.u32()
	}
	c := &copier{src: m.src, last: r.pos, out: make([]byte, 0, s.to-s.from+64)}
	c.out = appendU32(c.out, count+uint32(n))
	return c, r
}

func (m *module) encode() ([]byte, error) {
	out := make([]byte, 0, len(m.src)+len(m.src)/4+1024)
	out = append(out, "\x00asm\x01\x00\x00\x00"...)

	types := m.addedTypes()
	firstType := uint32(len(m.params))
	c, r := m.vector(secType, len(types))
	c.upTo(r.end)
	for _, t := range types {
		c.out = append(c.out, t...)
	}
	out = appendSection(out, secType, c.out)

	c, r = m.vector(secImport, m.added)
	for _, i := range m.renamed {
		c.upTo(i.from)
		c.out = appendName(c.out, i.name)
		c.last = i.to
	}
	c.upTo(r.end)
	for i, name := range []string{HostSafepoint, HostWait32, HostWait64}[:m.added] {
		t := firstType
		if i > 0 {
			t += 2 + uint32(i)
		}
		c.out = appendName(c.out, HostModule)
		c.out = appendName(c.out, name)
		c.out = append(c.out, 0)
		c.out = appendU32(c.out, t)
	}
	out = appendSection(out, secImport, c.out)

	c, r = m.vector(secFunction, m.helpers())
	c.upTo(r.end)
	for _, t := range []uint32{1, 2, 2}[:m.helpers()] {
		c.out = appendU32(c.out, firstType+t)
	}
	out = appendSection(out, secFunction, c.out)

	// The code says which tables and elements are needed.
	code, err := m.encodeCode()
	if err != nil {
		return nil, err
	}
	if m.sections[secTable].present || len(m.references) > 0 {
		out = appendSection(out, secTable, m.encodeTables())
	}
	out = m.keep(out, secMemory)
	out = m.keep(out, secTag)

	c, r = m.vector(secGlobal, 1)
	for range m.globals {
		m.globalType(r)
		m.constExpr(r, c)
	}
	if r.err != nil {
		return nil, r.err
	}
	c.upTo(r.end)
	c.out = append(c.out, typeI32, 1, opI32Const)
	c.out = appendS32(c.out, Budget)
	c.out = append(c.out, opEnd)
	out = appendSection(out, secGlobal, c.out)

	for _, id := range []byte{secExport, secStart} {
		s := m.sections[id]
		if !s.present {
			continue
		}
		r := &reader{buf: m.src, pos: s.from, end: s.to}
		c := &copier{src: m.src, last: s.from, out: make([]byte, 0, s.to-s.from+s.to/64)}
		switch id {
		case secExport:
			m.exports(r, c)
		case secStart:
			m.funcIndex(r, c)
		}
		if r.err != nil {
			return nil, r.err
		}
		c.upTo(s.to)
		out = appendSection(out, id, c.out)
	}
	if m.sections[secElement].present || len(m.references) > 0 {
		elements, err := m.encodeElements()
		if err != nil {
			return nil, err
		}
		out = appendSection(out, secElement, elements)
	}
	out = m.keep(out, secDataCount)
	out = appendSection(out, secCode, code)
	out = m.keep(out, secData)

	named := false
	for _, custom := range m.customs {
		data := custom.data
		switch {
		case custom.name == "name" && named:
			continue
		case custom.name == "name":
			data, named = m.encodeNames(data), true
		case hasCodeOffsets(custom.name), len(data) == 0:
			// wazero refuses an empty custom section at the end of a module.
			continue
		}
		out = appendSection(out, secCustom, append(appendName(nil, custom.name), data...))
	}
	return out, nil
}

func (m *module) keep(out []byte, id byte) []byte {
	if s := m.sections[id]; s.present {
		return appendSection(out, id, m.src[s.from:s.to])
	}
	return out
}

// encodeTables bounds what table.grow can reach: tables lie outside of linear
// memory, so its limit does not hold for them.
//
// The table of functions that ref.func refers to comes after the module's own, so
// that no table index changes.
func (m *module) encodeTables() []byte {
	own := 0
	if len(m.references) > 0 {
		own = 1
	}
	c, r := m.vector(secTable, own)
	for _, t := range m.tables {
		share := m.opts.TableElements / uint32(len(m.tables))
		c.upTo(t.limits)
		c.out = append(c.out, 1)
		c.out = appendU32(c.out, t.min)
		c.out = appendU32(c.out, min(t.max, max(t.min, share)))
		c.last = t.limitsEnd
	}
	c.upTo(r.end)
	if n := uint32(len(m.references)); n > 0 {
		c.out = append(c.out, typeFuncref, 1)
		c.out = appendU32(appendU32(c.out, n), n)
	}
	return c.out
}

// encodeElements adds the segment that fills the added table, after the module's
// own segments, so that none of their indices changes.
func (m *module) encodeElements() ([]byte, error) {
	own := 0
	if len(m.references) > 0 {
		own = 1
	}
	c, r := m.vector(secElement, own)
	if s := m.sections[secElement]; s.present {
		r := &reader{buf: m.src, pos: s.from, end: s.to}
		if m.elementSection(r, c); r.err != nil {
			return nil, r.err
		}
	}
	c.upTo(r.end)
	if own > 0 {
		const activeWithTable, functions = 2, 0
		c.out = append(c.out, activeWithTable)
		c.out = appendU32(c.out, uint32(m.tableCount()))
		c.out = append(c.out, opI32Const, 0, opEnd, functions)
		c.out = appendU32(c.out, uint32(len(m.references)))
		for _, f := range m.references {
			c.out = appendU32(c.out, m.shift(f))
		}
	}
	return c.out, nil
}

func (m *module) encodeCode() ([]byte, error) {
	c, r := m.vector(secCode, m.helpers())
	out := c.out
	w := &walker{m: m}
	var scratch []byte
	for i := range m.funcTypes {
		f := r.sub(r.u32(), "function body")
		b := w.function(f, m.params[m.funcTypes[i]])
		if f.err != nil {
			return nil, f.err
		}
		scratch = m.appendBody(scratch[:0], b)
		out = appendU32(out, uint32(len(scratch)))
		out = append(out, scratch...)
	}
	if r.more() {
		r.fail("code section has %d bytes too many", r.left())
		return nil, r.err
	}
	for _, body := range m.helperBodies() {
		out = appendU32(out, uint32(len(body)))
		out = append(out, body...)
	}
	return out, nil
}

// appendBody writes a function with its edits applied.
func (m *module) appendBody(out []byte, b *body) []byte {
	size := b.end - b.codeFrom
	entry := b.loops || b.calls || size > freeLeafBytes
	if !entry && !b.charges {
		out = append(out, m.src[b.localsFrom:b.codeFrom]...)
		return m.appendCode(out, b, 0, 0)
	}

	flags := uint32(FlagSignals)
	if !b.calls && b.getsGlobal && !b.setsGlobal {
		flags = 0 // may keep data below the stack pointer
	}
	count, spare := uint32(b.locals), uint32(b.locals)+1
	out = appendU32(out, uint32(b.groups)+1)
	out = append(out, m.src[b.groupsFrom:b.codeFrom]...)
	out = append(out, 2, typeI32)

	if entry {
		cost := weight(b.longest)
		if b.loops {
			cost += loopSurcharge
		}
		a := asm{out}
		a.op(opGlobalGet, m.counter()).constant(int32(cost)).op(opI32Sub).op(opLocalTee, spare).op(opGlobalSet, m.counter())
		a.unlikely(func() { a.op(opLocalGet, spare).constant(0).op(opI32LtS) })
		a.constant(int32(flags)).op(opCall, uint32(m.importedFuncs)).op(opGlobalSet, m.counter()).op(opEnd)
		out = a.out
	}
	return m.appendCode(out, b, count, flags)
}

func (m *module) appendCode(out []byte, b *body, count, flags uint32) []byte {
	a := asm{out}
	last, wait := b.codeFrom, 0
	for _, e := range b.edits {
		a.out = append(a.out, m.src[last:e.from]...)
		last = e.to
		switch e.kind {
		case editIndex:
			a.out = appendU32(a.out, e.value)
		case editLoop:
			m.appendLoop(&a, &e, count, flags)
		case editLabel:
			if b.edits[e.loop].split {
				e.value++
			}
			a.out = appendU32(a.out, e.value)
		case editEnd:
			if b.edits[e.loop].split {
				a.op(opEnd)
			}
		case editCount:
			a.op(opLocalGet, count).constant(int32(e.value)).op(opI32Add).op(opLocalSet, count)
		case editCharge:
			a.op(opLocalTee, count+1).op(opLocalGet, count+1)
			a.constant(int32(e.value)).op(opI32ShrU).constant(int32(flags)).op(opCall, m.helper(helperCharge))
		case editCall:
			a.op(opCall, e.value)
		case editRef:
			a.constant(int32(e.value)).op(opTableGet, uint32(m.tableCount()))
		case editWait:
			a.constant(int32(b.waits[wait])).op(opCall, e.value)
			wait++
		}
	}
	return append(a.out, m.src[last:b.end]...)
}

// appendLoop writes the head of a loop. It must cost the compiler's loop as
// little as possible, which takes knowledge of wazero's compiler. Where paths
// meet, its register allocator goes on from the state of the path that was
// written first, so the cold path must come second ([asm.unlikely]). A loop
// variable that is live across a call is stored to the stack whenever it
// changes, so the innermost loop must hold no call at all: it is split into an
// outer loop, which calls, and an inner one, which only counts. A comparison
// becomes one instruction with its branch only if nothing else goes to where
// the branch goes.
func (m *module) appendLoop(a *asm, e *edit, count, flags uint32) {
	head := m.src[e.from:e.to]
	a.out = append(a.out, head...)
	if e.value == 0 {
		return
	}
	if !e.split {
		a.unlikely(func() {
			a.op(opLocalGet, count).constant(int32(e.value)).op(opI32Add).op(opLocalTee, count)
			a.constant(flushEvery).op(opI32GtS)
		})
		a.op(opLocalGet, count).constant(prepaid).op(opI32Add).constant(int32(flags)).op(opCall, m.helper(helperCharge))
		a.constant(-prepaid).op(opLocalSet, count)
		a.op(opEnd)
		return
	}
	a.unlikely(func() { a.op(opLocalGet, count).constant(flushEvery).op(opI32GtS) })
	a.op(opLocalGet, count).constant(prepaid).op(opI32Add).constant(int32(flags)).op(opCall, m.helper(helperCharge))
	// The pass through the loop that led here is charged, and is yet to come.
	a.constant(-prepaid-int32(e.value)).op(opLocalSet, count)
	a.op(opEnd)
	a.out = append(a.out, head...)
	a.op(opLocalGet, count).constant(int32(e.value)).op(opI32Add).op(opLocalTee, count)
	a.constant(flushEvery).op(opI32GtS).op(opIf, voidBlock).op(opBr, 2).op(opEnd)
}

// unlikely begins a block that runs if the condition holds. It is not just an
// if, so that the path around it is the first that goes to its end.
func (a *asm) unlikely(condition func()) {
	a.op(opBlock, voidBlock).op(opBlock, voidBlock)
	condition()
	a.op(opBrIf, 0).op(opBr, 1).op(opEnd)
}

// asm writes instructions.
type asm struct{ out []byte }

func (a *asm) op(op byte, immediates ...uint32) *asm {
	a.out = append(a.out, op)
	for _, i := range immediates {
		a.out = appendU32(a.out, i)
	}
	return a
}

func (a *asm) constant(v int32) *asm {
	a.out = appendS32(append(a.out, opI32Const), v)
	return a
}

func (m *module) helperBodies() [][]byte {
	bodies := [][]byte{m.chargeBody(), m.chunkedBody(false), m.chunkedBody(true)}
	return bodies[:m.helpers()]
}

func (m *module) chargeBody() []byte {
	const units, flags = 0, 1
	a := &asm{[]byte{0}}
	a.op(opGlobalGet, m.counter()).op(opLocalGet, units).op(opI32Sub).op(opLocalTee, units).op(opGlobalSet, m.counter())
	a.op(opLocalGet, units).constant(0).op(opI32LtS)
	a.op(opIf, voidBlock).op(opLocalGet, flags).op(opCall, uint32(m.importedFuncs)).op(opGlobalSet, m.counter()).op(opEnd)
	return a.op(opEnd).out
}

// chunkedBody does the work of memory.fill(to, value, size), or of
// memory.copy(to, source, size), in chunks with a charge before each. What is
// out of bounds is left to the instruction, which traps before it writes.
func (m *module) chunkedBody(isCopy bool) []byte {
	const to, from, size, chunk = 0, 1, 2, 3
	a := &asm{[]byte{1, 1, typeI32}} // one local: chunk
	whole := func() *asm {
		a.op(opLocalGet, to).op(opLocalGet, from).op(opLocalGet, size)
		return a.bulk(isCopy)
	}
	a.op(opLocalGet, size).constant(smallBulkBytes).op(opI32LeU)
	a.op(opIf, voidBlock)
	whole().op(opReturn)
	a.op(opEnd)

	pastEnd := func(p uint32) {
		a.op(opLocalGet, p).op(opI64ExtendU).op(opLocalGet, size).op(opI64ExtendU).op(opI64Add)
		a.op(opMemorySize, 0).op(opI64ExtendU).op(opI64Const, 16).op(opI64Shl).op(opI64GtU)
	}
	pastEnd(to)
	a.op(opIf, voidBlock)
	whole().op(opReturn)
	a.op(opEnd)
	if isCopy {
		pastEnd(from)
		a.op(opIf, voidBlock)
		whole().op(opReturn)
		a.op(opEnd)
	}

	a.op(opLoop, voidBlock)
	// chunk = min(size, chunkBytes)
	a.op(opLocalGet, size).constant(chunkBytes).op(opLocalGet, size).constant(chunkBytes).op(opI32LtU).op(opSelect).op(opLocalTee, chunk)
	// No signal handler here: the caller may be a leaf function.
	a.constant(memoryShift).op(opI32ShrU).constant(1).op(opI32Add).constant(0).op(opCall, m.helper(helperCharge))
	a.op(opLocalGet, size).op(opLocalGet, chunk).op(opI32Sub).op(opLocalSet, size)
	advance := func(p uint32) {
		a.op(opLocalGet, p).op(opLocalGet, chunk).op(opI32Add).op(opLocalSet, p)
	}
	if isCopy {
		// Ranges may overlap: go up when copying downwards, down otherwise.
		a.op(opLocalGet, to).op(opLocalGet, from).op(opI32LeU)
		a.op(opIf, voidBlock)
		a.op(opLocalGet, to).op(opLocalGet, from).op(opLocalGet, chunk).bulk(true)
		advance(to)
		advance(from)
		a.op(opElse)
		a.op(opLocalGet, to).op(opLocalGet, size).op(opI32Add)
		a.op(opLocalGet, from).op(opLocalGet, size).op(opI32Add)
		a.op(opLocalGet, chunk).bulk(true)
		a.op(opEnd)
	} else {
		a.op(opLocalGet, to).op(opLocalGet, from).op(opLocalGet, chunk).bulk(false)
		advance(to)
	}
	a.op(opLocalGet, size).op(opBrIf, 0)
	a.op(opEnd)
	return a.op(opEnd).out
}

func (a *asm) bulk(isCopy bool) *asm {
	if isCopy {
		return a.op(opBulk, bulkMemoryCopy, 0, 0)
	}
	return a.op(opBulk, bulkMemoryFill, 0)
}
