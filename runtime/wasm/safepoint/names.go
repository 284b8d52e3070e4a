package safepoint

import "strings"

// hasCodeOffsets tells custom sections that describe positions in the code,
// which the rewriter has moved.
func hasCodeOffsets(name string) bool {
	switch name {
	case "linking", "dylink", "dylink.0", "sourceMappingURL", "external_debug_info":
		return true
	}
	return strings.HasPrefix(name, ".debug_") || strings.HasPrefix(name, "reloc.") ||
		strings.HasPrefix(name, "metadata.code.")
}

// Subsections of the name section. What the rewriter adds comes after the module's
// own, so that only the indices of functions change, and those of labels, of which
// loops get more.
const (
	namesModule    = 0
	namesFunctions = 1
	namesLocals    = 2
	namesLabels    = 3
	namesTypes     = 4 // and tables, memories, globals, elements and data
	namesData      = 9
	namesTags      = 11
)

// wazero goes through all functions with named locals for each function, whatever
// asks for them: in a module of 0.8 MB for 8 s. Beyond this many steps, a few
// milliseconds, and this many names, which it keeps, locals have none.
const (
	maxLocalNameSteps = 1 << 22
	maxLocalNames     = 1 << 16
)

// encodeNames shifts the function indices of a name section. Names are only a
// convenience, so a malformed subsection is dropped with what follows it. Those of
// labels are dropped as well.
func (m *module) encodeNames(data []byte) []byte {
	out := make([]byte, 0, len(data)+128)
	r := &reader{buf: data, end: len(data)}
	seen := -1
	for r.more() {
		id := r.byte()
		s := r.sub(r.u32(), "names")
		if r.err != nil || int(id) <= seen {
			break
		}
		seen = int(id)
		var payload []byte
		switch id {
		case namesModule:
			from := s.pos
			if s.name("module name"); s.err == nil {
				payload = data[from:s.pos]
			}
		case namesFunctions:
			payload = m.functionNames(s)
		case namesLocals:
			var kept bool
			if payload, kept = m.localNames(s); !kept {
				continue
			}
		default:
			if (id < namesTypes || id > namesData) && id != namesTags {
				continue
			}
			payload = data[s.pos:s.end] // which wazero skips
			s.pos = s.end
		}
		if s.err != nil || s.pos != s.end {
			break
		}
		out = appendSection(out, id, payload)
	}
	return out
}

func (m *module) functionNames(r *reader) []byte {
	var entries []byte
	count := uint32(0)
	add := func(f uint32, name string) {
		entries = appendName(appendU32(entries, f), name)
		count++
	}
	imports := func() {
		for i, name := range []string{HostSafepoint, HostWait32, HostWait64}[:m.added] {
			add(uint32(m.importedFuncs+i), HostModule+"."+name)
		}
	}
	next := uint32(0) // names come in ascending order of their function
	done := false
	for range r.count("function names", maxFunctions) {
		f := r.u32()
		name := r.name("function name")
		if r.err == nil && (f < next || f >= uint32(m.funcCount()) || len(name) > maxNameBytes) {
			r.fail("function names are malformed")
		}
		if r.err != nil {
			return nil
		}
		next = f + 1
		if !done && f >= uint32(m.importedFuncs) {
			imports()
			done = true
		}
		add(m.shift(f), name)
	}
	if !done {
		imports()
	}
	for i, name := range []string{HelperPrefix + "charge", HelperPrefix + "memory.fill", HelperPrefix + "memory.copy"}[:m.helpers()] {
		add(m.helper(helper(i)), name)
	}
	return append(appendU32(nil, count), entries...)
}

// localNames shifts the functions whose locals have names, and drops them all if
// there are too many; kept is true for what is malformed, too.
func (m *module) localNames(r *reader) (out []byte, kept bool) {
	named := r.count("functions with named locals", maxFunctions)
	if named*(m.funcCount()+m.added+m.helpers()) > maxLocalNameSteps {
		return nil, false
	}
	out = appendU32(nil, uint32(named))
	next, total := uint32(0), 0
	for range named {
		f := r.u32()
		locals := r.count("local names", maxParams+maxLocals)
		if total += locals; total > maxLocalNames {
			return nil, false
		}
		if f < next || f >= uint32(m.funcCount()) {
			r.fail("local names are malformed")
		}
		next = f + 1
		from, nextLocal := r.pos, uint32(0)
		for range locals {
			l := r.u32()
			if name := r.name("local name"); l < nextLocal || l >= maxParams+maxLocals || len(name) > maxNameBytes {
				r.fail("local names are malformed")
			}
			nextLocal = l + 1
		}
		if r.err != nil {
			return nil, true
		}
		out = appendU32(appendU32(out, m.shift(f)), uint32(locals))
		out = append(out, r.buf[from:r.pos]...)
	}
	return out, true
}
