package safepoint

import (
	"bytes"
	"math"
)

// Section ids of the binary format.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

// sectionRank is the order in which sections must come.
var sectionRank = [...]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secTag: 6, secGlobal: 7,
	secExport: 8, secStart: 9, secElement: 10, secDataCount: 11, secCode: 12, secData: 13,
}

var sectionName = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global",
	"export", "start", "element", "code", "data", "data count", "tag",
}

// section is a part of the module: from..to of its bytes, without the header.
type section struct {
	present  bool
	from, to int
}

type custom struct {
	name string
	data []byte // after the name
}

type table struct {
	limits, limitsEnd int // where its limits are
	min, max          uint32
}

// renamed is an imported function that gets another name.
type renamed struct {
	from, to int // the name and its length
	name     string
}

// module is what the decoder learnt; positions are offsets of src.
type module struct {
	src      []byte
	opts     Options
	sections [14]section
	customs  []custom

	params  []int // of every type
	imports []Import
	renamed []renamed

	importedFuncs, importedTables, importedGlobals int

	funcTypes []uint32 // of defined functions
	tables    []table
	memories  int
	shared    bool
	globals   int // defined ones

	exportCount int
	tags        int
	elements    int // segments of them
	datas       int
	dataCount   int // -1: no such section

	// declared are the functions that ref.func may refer to: those that occur
	// outside of code.
	declared bits
	// references are the functions that ref.func does refer to, and slots where in
	// them each is.
	references []uint32
	slots      map[uint32]uint32

	added int // imported functions that the rewriter adds
}

func (m *module) funcCount() int   { return m.importedFuncs + len(m.funcTypes) }
func (m *module) tableCount() int  { return m.importedTables + len(m.tables) }
func (m *module) globalCount() int { return m.importedGlobals + m.globals }

// shift maps a function index to what it is after the added imports.
func (m *module) shift(f uint32) uint32 {
	if f >= uint32(m.importedFuncs) {
		return f + uint32(m.added)
	}
	return f
}

func checkHeader(src []byte) error {
	switch {
	case len(src) == 0:
		return &Error{Message: "not a WebAssembly module: the file is empty"}
	case bytes.HasPrefix(src, []byte("\x7fELF")):
		return &Error{Message: "not a WebAssembly module: bad magic, an ELF executable (build for wasip1/wasm)"}
	case bytes.HasPrefix(src, []byte("(module")), bytes.HasPrefix(src, []byte("(component")):
		return &Error{Message: "not a WebAssembly module: bad magic, WebAssembly text (assemble it first, with wat2wasm for example)"}
	case len(src) < 4 || string(src[:4]) != "\x00asm":
		return &Error{Message: "not a WebAssembly module: bad magic"}
	case len(src) < 8:
		return &Error{Message: "WebAssembly module is cut short in its header"}
	}
	version, layer := uint16(src[4])|uint16(src[5])<<8, uint16(src[6])|uint16(src[7])<<8
	switch {
	case layer == 1:
		return &Error{Message: "a WebAssembly component; wasmpod runs core modules (wasip1): build for wasm32-wasip1, or take the core module out of the component"}
	case layer != 0 || version != 1:
		return &Error{Message: "not a WebAssembly module: unknown version"}
	case len(src) > maxModuleBytes:
		return &Error{Message: "WebAssembly module is larger than 1 GiB"}
	}
	return nil
}

func decode(src []byte, opts Options) (*module, error) {
	if err := checkHeader(src); err != nil {
		return nil, err
	}
	m := &module{src: src, opts: opts, dataCount: -1}
	r := &reader{buf: src, pos: 8, end: len(src)}
	rank := 0
	for r.more() {
		id := r.byte()
		if int(id) >= len(sectionName) {
			r.pos--
			r.fail("unknown section %d", id)
			break
		}
		s := r.sub(r.u32(), sectionName[id]+" section")
		if r.err != nil {
			break
		}
		if id == secCustom {
			name := s.name("custom section name")
			if s.err != nil {
				return nil, s.err
			}
			m.customs = append(m.customs, custom{name: name, data: src[s.pos:s.end]})
			continue
		}
		if sectionRank[id] <= rank {
			s.fail("%s section is out of order or given twice", sectionName[id])
			return nil, s.err
		}
		rank = sectionRank[id]
		m.sections[id] = section{present: true, from: s.pos, to: s.end}
		m.section(id, s)
		if s.err == nil && s.pos != s.end {
			s.fail("%s section has %d bytes too many", sectionName[id], s.left())
		}
		if s.err != nil {
			return nil, s.err
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, m.finish()
}

// finish checks what concerns several sections.
func (m *module) finish() error {
	if n := m.codeCount(); n != len(m.funcTypes) {
		r := &reader{}
		r.fail("%d functions declared, but %d bodies given", len(m.funcTypes), n)
		return r.err
	}
	if m.dataCount >= 0 && m.dataCount != m.datas {
		r := &reader{}
		r.fail("%d data segments declared, but %d given", m.dataCount, m.datas)
		return r.err
	}
	if functions := m.funcCount(); m.exportCount > maxFunctionsExports/max(functions, 1) {
		r := &reader{}
		r.fail("%d exports of a module with %d functions are too many", m.exportCount, functions)
		return r.err
	}
	m.added = 1
	if m.shared {
		m.added = 3
	}
	return nil
}

func (m *module) codeCount() int {
	s := m.sections[secCode]
	if !s.present {
		return 0
	}
	r := &reader{buf: m.src, pos: s.from, end: s.to}
	return int(r.u32())
}

func (m *module) section(id byte, r *reader) {
	switch id {
	case secType:
		for range r.count("types", maxTypes) {
			if m.typ(r); r.err != nil {
				return
			}
		}
	case secImport:
		for range r.count("imports", maxImports) {
			if m.importEntry(r); r.err != nil {
				return
			}
		}
	case secFunction:
		n := r.count("functions", maxFunctions)
		m.funcTypes = make([]uint32, 0, n)
		for range n {
			t := r.u32()
			if r.err == nil && t >= uint32(len(m.params)) {
				r.fail("unknown type %d", t)
			}
			if r.err != nil {
				return
			}
			m.funcTypes = append(m.funcTypes, t)
		}
	case secTable:
		for range r.count("tables", maxTables) {
			m.tables = append(m.tables, m.tableType(r))
			if r.err != nil {
				return
			}
		}
		m.checkTables(r)
	case secMemory:
		for range r.count("memories", 1) {
			m.memory(r)
		}
	case secTag:
		for range r.count("tags", maxTypes) {
			m.tag(r)
		}
	case secGlobal:
		// Initializers may name functions and globals: they are checked by
		// encode, which knows their number.
		n := r.count("globals", maxGlobals)
		for range n {
			m.globalType(r)
			m.globals++
			if m.constExpr(r, nil); r.err != nil {
				return
			}
		}
	case secExport:
		m.exports(r, nil)
	case secStart:
		m.funcIndex(r, nil)
	case secElement:
		m.elementSection(r, nil)
	case secDataCount:
		m.dataCount = int(r.u32())
	case secCode:
		r.count("function bodies", maxFunctions)
		r.pos = r.end // encode walks the bodies
	case secData:
		m.dataSection(r)
	}
}

func (m *module) typ(r *reader) {
	switch form := r.byte(); {
	case r.err != nil:
	case form != 0x60:
		r.pos--
		r.fail("type form %#x is not supported: wasmpod runs modules without garbage-collected types", form)
	default:
		params := r.count("parameters", maxParams)
		for range params {
			m.valueType(r)
		}
		for range r.count("results", maxResults) {
			m.valueType(r)
		}
		m.params = append(m.params, params)
	}
}

// valueType reads a value type. Types of reference proposals are let through
// where their encoding is known; wazero says which it has enabled.
func (m *module) valueType(r *reader) {
	switch b := r.byte(); b {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f, 0x69: // i32 i64 f32 f64 v128 funcref externref exnref
	case 0x63, 0x64: // (ref null ht), (ref ht)
		heapType(r)
	default:
		r.pos--
		r.fail("unknown value type %#x", b)
	}
}

// heapType reads one of the types that every module knows. Those of a module's
// own need typed function references, which are not enabled.
func heapType(r *reader) {
	if t := r.signed(33); r.err == nil && t >= 0 {
		r.fail("typed function references are not supported")
	}
}

func (m *module) importEntry(r *reader) {
	imp := Import{Module: r.name("import module")}
	from := r.pos
	imp.Name = r.name("import name")
	to := r.pos
	switch kind := r.byte(); kind {
	case 0:
		imp.Kind = "function"
		if t := r.u32(); r.err == nil && t >= uint32(len(m.params)) {
			r.fail("import %s.%s has unknown type %d", imp.Module, imp.Name, t)
		} else if r.err == nil {
			imp.Params = m.params[t]
		}
		if rename := m.opts.ImportName; rename != nil && r.err == nil {
			if name := rename(imp.Module, imp.Name, imp.Params); name != imp.Name {
				m.renamed = append(m.renamed, renamed{from, to, name})
			}
		}
		m.importedFuncs++
	case 1:
		imp.Kind = "table"
		m.tableType(r)
		m.importedTables++
	case 2:
		imp.Kind = "memory"
		m.memory(r)
	case 3:
		imp.Kind = "global"
		m.globalType(r)
		m.importedGlobals++
	case 4:
		imp.Kind = "tag"
		m.tag(r)
	default:
		r.fail("import %s.%s has unknown kind %d", imp.Module, imp.Name, kind)
	}
	m.imports = append(m.imports, imp)
}

func (m *module) limits(r *reader, what string) (flags byte, min, max uint32) {
	flags = r.byte()
	if r.err == nil && flags > 3 {
		r.pos--
		r.fail("%s has unknown limits %#x (64-bit memories and tables are not supported)", what, flags)
		return 0, 0, 0
	}
	min, max = r.u32(), uint32(math.MaxUint32)
	if flags&1 != 0 {
		if max = r.u32(); r.err == nil && max < min {
			r.fail("%s has a maximum below its minimum", what)
		}
	}
	return flags, min, max
}

func (m *module) tableType(r *reader) table {
	var t table
	if r.more() && r.buf[r.pos] == 0x40 {
		r.fail("tables with an initializer are not supported")
	}
	m.valueType(r)
	t.limits = r.pos
	_, t.min, t.max = m.limits(r, "table")
	t.limitsEnd = r.pos
	return t
}

func (m *module) checkTables(r *reader) {
	sum := uint64(0)
	for _, t := range m.tables {
		sum += uint64(t.min)
	}
	if sum > uint64(m.opts.TableElements) {
		r.fail("tables of %d elements exceed the limit of %d", sum, m.opts.TableElements)
	}
}

func (m *module) memory(r *reader) {
	flags, min, _ := m.limits(r, "memory")
	if r.err == nil && min > 1<<16 {
		r.fail("memory of %d pages exceeds the limit of 65536", min)
	}
	m.shared = m.shared || flags&2 != 0
	if m.memories++; m.memories > 1 {
		r.fail("more than one memory is not supported")
	}
}

func (m *module) globalType(r *reader) {
	m.valueType(r)
	if mut := r.byte(); r.err == nil && mut > 1 {
		r.fail("unknown mutability %#x", mut)
	}
}

func (m *module) tag(r *reader) {
	if r.byte() != 0 {
		r.fail("unknown tag attribute")
	}
	if t := r.u32(); r.err == nil && t >= uint32(len(m.params)) {
		r.fail("tag has unknown type %d", t)
	}
	m.tags++
}

// declaredFunc is funcIndex where that also declares the function.
func (m *module) declaredFunc(r *reader, c *copier) {
	if f := m.funcIndex(r, c); c == nil && r.err == nil {
		m.declared.add(f)
	}
}

// funcIndex reads a function index and, when copying, writes the shifted one.
func (m *module) funcIndex(r *reader, c *copier) uint32 {
	from := r.pos
	f := r.u32()
	if r.err == nil && f >= uint32(m.funcCount()) {
		r.fail("unknown function %d", f)
	}
	if c != nil && r.err == nil {
		c.number(from, r.pos, m.shift(f))
	}
	return f
}

// constExpr reads a constant expression up to its end.
func (m *module) constExpr(r *reader, c *copier) {
	for r.err == nil {
		switch op := r.byte(); op {
		case 0x0b:
			return
		case 0x41:
			r.signed(32)
		case 0x42:
			r.signed(64)
		case 0x43:
			r.skip(4)
		case 0x44:
			r.skip(8)
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub, mul of i32 and i64
		case 0x23:
			// An initializer may name the globals before it.
			if g := r.u32(); r.err == nil && g >= uint32(m.globalCount()) {
				r.fail("unknown global %d", g)
			}
		case 0xd0:
			heapType(r)
		case opRefFunc:
			m.declaredFunc(r, c)
		case 0xfd:
			if r.u32() != 12 {
				r.fail("instruction is not constant")
			}
			r.skip(16)
		default:
			if r.err == nil {
				r.pos--
				r.fail("instruction %#x is not constant", op)
			}
		}
	}
}

func (m *module) exports(r *reader, c *copier) {
	m.exportCount = r.count("exports", maxExports)
	for range m.exportCount {
		name := r.name("export name")
		kind := r.byte()
		if r.err != nil {
			return
		}
		if kind == 0 {
			m.declaredFunc(r, c)
			continue
		}
		n := 0
		switch kind {
		case 1:
			n = m.tableCount()
		case 2:
			n = m.memories
		case 3:
			n = m.globalCount()
		case 4:
			n = m.tags
		default:
			r.fail("export %q has unknown kind %d", name, kind)
		}
		if i := r.u32(); r.err == nil && i >= uint32(n) {
			r.fail("export %q names something unknown", name)
		}
	}
}

// elementSection reads the eight forms of element segments.
func (m *module) elementSection(r *reader, c *copier) {
	n := r.count("element segments", maxSegments)
	room := maxElements
	for range n {
		form := r.u32()
		if r.err == nil && form > 7 {
			r.fail("unknown form of element segment %d", form)
		}
		passive, explicit, exprs := form&1 != 0, form&2 != 0, form&4 != 0
		if !passive {
			t := uint32(0)
			if explicit {
				t = r.u32()
			}
			if r.err == nil && t >= uint32(m.tableCount()) {
				r.fail("unknown table %d", t)
			}
			m.constExpr(r, c)
		}
		if passive || explicit {
			if exprs {
				m.valueType(r)
			} else if r.byte() != 0 {
				r.fail("unknown element kind")
			}
		}
		count := r.count("elements", room)
		room -= count
		for range count {
			if exprs {
				m.constExpr(r, c)
			} else {
				m.declaredFunc(r, c)
			}
			if r.err != nil {
				return
			}
		}
		if r.err != nil {
			return
		}
	}
	m.elements = n
}

func (m *module) dataSection(r *reader) {
	n := r.count("data segments", maxSegments)
	for range n {
		form := r.u32()
		switch {
		case r.err != nil:
			return
		case form > 2:
			r.fail("unknown form of data segment %d", form)
		case form == 2 && r.u32() != 0:
			r.fail("data segment names an unknown memory")
		}
		if form != 1 {
			m.constExpr(r, nil)
		}
		size := r.u32()
		if r.err == nil && int64(size) > int64(r.left()) {
			r.fail("data segment of %d bytes is cut short: only %d bytes follow", size, r.left())
		}
		if r.skip(int(size)); r.err != nil {
			return
		}
	}
	m.datas = n
}
