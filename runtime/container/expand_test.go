package container

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "a", "EMPTY": "", "REF": "$(A)", "A B": "spaced", "(A": "paren", "$(A": "odd"}
	lookup := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	for in, want := range map[string]string{
		"":                  "",
		"plain":             "plain",
		"$(A)":              "a",
		"x$(A)y$(A)":        "xaya",
		"$(EMPTY)|":         "|",
		"$(REF)":            "$(A)", // not expanded again
		"$(NONE)":           "$(NONE)",
		"$()":               "$()",
		"$$":                "$",
		"$$$$":              "$$",
		"$$(A)":             "$(A)",
		"$$$(A)":            "$a",
		"$$$$(A)":           "$$(A)",
		"$":                 "$",
		"a$":                "a$",
		"$A":                "$A",
		"${A}":              "${A}",
		"$(":                "$(",
		"$(A":               "$(A",
		"$(A$(A)":           "$(A$(A)", // one name: "A$(A"
		"$(A B)":            "spaced",
		"$((A)":             "paren",
		"$((A))":            "paren)",
		"$(date)":           "$(date)",
		"$((i+1))":          "$((i+1))",
		"$)":                "$)",
		"\u20ac$\u20ac$(A)": "\u20ac$\u20aca",
		"$\xff":             "$\ufffd",
		"$(\xff)":           "$(\xff)",
		"$(A\n)$(A)":        "$(A\n)a",
	} {
		if got, ok := expand(in, lookup, 1000); got != want || !ok {
			t.Errorf("ENV-04 expand(%q) = %q, want %q", in, got, want)
		}
	}
	if _, ok := expand("$(A)$(A)$(A)", lookup, 2); ok {
		t.Error("a result that is too long was accepted")
	}
	if _, ok := expand("abc", lookup, 2); ok {
		t.Error("a text that is too long was accepted")
	}
}

// expandByState is the grammar of ENV-04 once more, one character at a time, to
// compare with.
func expandByState(s string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		switch {
		case s[i] != '$' || i+1 == len(s):
			out.WriteByte(s[i])
			i++
		case s[i+1] == '$':
			out.WriteByte('$')
			i += 2
		case s[i+1] == '(' && strings.Contains(s[i+2:], ")"):
			end := i + 2
			for s[end] != ')' {
				end++
			}
			if v, ok := lookup(s[i+2 : end]); ok {
				out.WriteString(v)
			} else {
				out.WriteString(s[i : end+1])
			}
			i = end + 1
		default:
			r, size := utf8.DecodeRuneInString(s[i+1:])
			out.WriteString("$" + string(r))
			i += 1 + size
		}
	}
	return out.String()
}

func TestExpandProperties(t *testing.T) {
	token := rapid.SampledFrom([]string{"$", "$$", "$(", ")", "(", "A", "B", "$(A)", "$(B)", "$(NO)", " ", "é", "\n", "{", "}"})
	rapid.Check(t, func(t *rapid.T) {
		in := strings.Join(rapid.SliceOfN(token, 0, 20).Draw(t, "tokens"), "")
		vars := rapid.MapOf(rapid.SampledFrom([]string{"A", "B", "(A", ""}), rapid.StringN(0, 5, 20)).Draw(t, "vars")
		lookup := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
		got, ok := expand(in, lookup, 1<<20)
		if want := expandByState(in, lookup); got != want || !ok {
			t.Fatalf("ENV-04 expand(%q) = %q, want %q", in, got, want)
		}
		// A text in which every $ is doubled comes out as it was.
		if got, _ := expand(strings.ReplaceAll(in, "$", "$$"), lookup, 1<<20); got != in {
			t.Fatalf("ENV-04 escaped %q came out as %q", in, got)
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(A)", "$(A", "$((i+1))", "$\xff", "$(\x00)"} {
		f.Add(s)
	}
	lookup := func(name string) (string, bool) { return "<" + name + ">", len(name)%2 == 1 }
	f.Fuzz(func(t *testing.T, in string) {
		got, ok := expand(in, lookup, 1<<20)
		if ok && got != expandByState(in, lookup) {
			t.Errorf("ENV-04 expand(%q) = %q, want %q", in, got, expandByState(in, lookup))
		}
	})
}
