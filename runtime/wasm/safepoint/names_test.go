package safepoint_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmpod/wasmpod/runtime/wasm/safepoint"
)

// names is what a name section says.
type names struct {
	module string
	funcs  map[uint32]string
	locals map[uint32]map[uint32]string
	other  map[byte]string
}

func uvarint(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) }

func str(s string) string { return uvarint(len(s)) + s }

// nameMap is a map of indices to names in the binary format.
func nameMap(first int, list ...string) string {
	out := uvarint(len(list))
	for i, name := range list {
		out += uvarint(first+i) + str(name)
	}
	return out
}

// namesOf decodes the name section of a module that is well formed.
func namesOf(t *testing.T, wasm []byte) names {
	t.Helper()
	n := names{funcs: map[uint32]string{}, locals: map[uint32]map[uint32]string{}, other: map[byte]string{}}
	b := wasm
	number := func() uint32 {
		v, k := binary.Uvarint(b)
		b = b[k:]
		return uint32(v)
	}
	text := func() string {
		k := number()
		s := string(b[:k])
		b = b[k:]
		return s
	}
	found := 0
	for b = b[8:]; len(b) > 0; {
		id := b[0]
		b = b[1:]
		section := text()
		if id != 0 {
			continue
		}
		rest := b
		if b = []byte(section); text() != "name" {
			b = rest
			continue
		}
		found++
		for len(b) > 0 {
			id := b[0]
			b = b[1:]
			sub := text()
			after := b
			switch b = []byte(sub); id {
			case 0:
				n.module = text()
			case 1:
				for range number() {
					f := number()
					n.funcs[f] = text()
				}
			case 2:
				for range number() {
					f := number()
					n.locals[f] = map[uint32]string{}
					for range number() {
						l := number()
						n.locals[f][l] = text()
					}
				}
			default:
				n.other[id] = sub
				b = nil
			}
			if len(b) > 0 {
				t.Errorf("%d bytes too many in subsection %d", len(b), id)
			}
			b = after
		}
		b = rest
	}
	if found != 1 {
		t.Errorf("%d name sections", found)
	}
	return n
}

// namedModule imports a function, and has defined ones with a parameter, two locals
// and a loop each.
func namedModule(defined int, subsections ...string) []byte {
	body := "\x01\x02\x7f\x03\x40\x20\x01\x0d\x00\x0b\x0b"
	return []byte(header + sec(1, "\x01\x60\x01\x7f\x00") + sec(2, "\x01"+str("host")+str("f")+"\x00\x00") +
		sec(3, uvarint(defined)+strings.Repeat("\x00", defined)) + sec(7, "\x01"+str("first")+"\x00\x01") +
		sec(10, uvarint(defined)+strings.Repeat(str(body), defined)) +
		sec(0, str("name")+strings.Join(subsections, "")))
}

// Names stay with what they name: functions move, and locals with them; nothing else
// does, but labels.
func TestNames(t *testing.T) {
	locals := "\x03" + "\x00" + nameMap(0, "p0") + "\x01" + nameMap(0, "param", "a", "") + "\x03" + nameMap(2, "ж")
	module := namedModule(3,
		sec(0, str("unit")), sec(1, nameMap(0, "host.f", "one", "two", "three")), sec(2, locals),
		sec(3, "\x01\x01"+nameMap(0, "label")), sec(4, nameMap(0, "type")), sec(7, nameMap(0, "global")), sec(9, "any bytes"),
		sec(10, "\x00"), sec(11, nameMap(0, "tag")))
	rewritten, err := safepoint.Rewrite(module, safepoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, after := namesOf(t, module), namesOf(t, rewritten)
	// Imports come first, with one more of them.
	moved := func(f uint32) uint32 { return f + min(f, 1) }
	for f, name := range before.funcs {
		if after.funcs[moved(f)] != name {
			t.Errorf("function %d is %q, was %q", f, after.funcs[moved(f)], name)
		}
		if !maps.Equal(before.locals[f], after.locals[moved(f)]) {
			t.Errorf("locals of %s are %v, were %v", name, after.locals[moved(f)], before.locals[f])
		}
	}
	if len(before.locals) != 3 || len(after.locals) != 3 || before.module != after.module {
		t.Errorf("%+v, %+v", before, after)
	}
	delete(before.other, 3)
	delete(before.other, 10)
	if len(after.other) != 4 || !reflect.DeepEqual(before.other, after.other) {
		t.Errorf("others are %q, were %q", after.other, before.other)
	}

	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	code, err := r.CompileModule(ctx, rewritten)
	if err != nil {
		t.Fatal(err)
	}
	if f := code.ExportedFunctions()["first"]; f.Name() != "one" || fmt.Sprint(f.ParamNames()) != "[param]" {
		t.Errorf("%s%v", f.Name(), f.ParamNames())
	}
	// As often as one likes.
	again, err := safepoint.Rewrite(rewritten, safepoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := namesOf(t, again); !maps.Equal(got.locals[3], before.locals[1]) {
		t.Errorf("%v", got.locals)
	}
}

// What is malformed goes with what follows, and so do names of locals of which there
// are too many; other names stay.
func TestNamesThatGo(t *testing.T) {
	functions := sec(1, nameMap(1, "one"))
	after := sec(4, nameMap(0, "type"))
	many := func(functions, locals int) string {
		out := uvarint(functions)
		for f := range functions {
			out += uvarint(f+1) + uvarint(locals)
			for l := range locals {
				out += uvarint(l) + "\x00"
			}
		}
		return sec(2, out)
	}
	for _, test := range []struct {
		name            string
		defined         int
		section         string
		locals, follows bool
	}{
		{"none", 3, sec(2, "\x00"), false, true},
		{"good", 3, many(3, 3), true, true},
		{"not ascending", 3, sec(2, "\x02\x02"+nameMap(0, "a")+"\x01"+nameMap(0, "a")), false, false},
		{"locals not ascending", 3, sec(2, "\x01\x01\x02\x01\x00\x01\x00"), false, false},
		{"unknown function", 3, sec(2, "\x01\x04"+nameMap(0, "a")), false, false},
		{"not UTF-8", 3, sec(2, "\x01\x01"+nameMap(0, "\xff")), false, false},
		{"cut short", 3, sec(2, "\x01\x01\x01\x00\x05a"), false, false},
		{"too many bytes", 3, sec(2, "\x01\x01"+nameMap(0, "a")+"\x00"), false, false},
		{"count", 3, sec(2, "\xff\xff\xff\xff\x0f"), false, false},
		{"names", 3, many(2, 40_000), false, true},
		{"many functions", 2000, many(2000, 1), true, true},
		{"too many functions", 3000, many(3000, 1), false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			rewritten, err := safepoint.Rewrite(namedModule(test.defined, functions, test.section, after), safepoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			n := namesOf(t, rewritten)
			if n.funcs[2] != "one" || (len(n.locals) > 0) != test.locals || (n.other[4] != "") != test.follows {
				t.Errorf("%d functions with named locals, %q", len(n.locals), n.other)
			}
		})
	}
}
