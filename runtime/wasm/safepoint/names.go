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

// Subsections of the name section that traps are described with. Others go: names
// of locals are of no use to anybody here, and wazero goes through all of them
// for each function.
const (
	namesModule    = 0
	namesFunctions = 1
)

// encodeNames shifts the function indices of a name section. Names are only a
// convenience, so a malformed subsection is dropped with what follows it.
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
		default:
			continue
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
