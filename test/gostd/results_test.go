package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const output = `{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"why\n"}
{"Action":"fail","Test":"TestA/unix"}
{"Action":"pass","Test":"TestA/tcp"}
{"Action":"fail","Test":"TestA"}
{"Action":"pass","Test":"TestB"}
{"Action":"skip","Test":"TestC"}
{"Action":"fail","Test":"TestD"}
{"Action":"fail"}
`

func TestJudge(t *testing.T) {
	r, err := readResults([]byte(output))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "skips.txt")
	list := "# comment\nfail net TestA/unix no Unix sockets\nfail net@go1.26 TestB why\nfail net@go1.25 TestD why\nskip net TestE/x.y it hangs\n"
	if err := os.WriteFile(file, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	skips, err := readSkips(file)
	if err != nil {
		t.Fatal(err)
	}
	unknown, expected, stale := r.judge("net", "go1.26", skips)
	if !slices.Equal(unknown, []string{"TestD"}) || !slices.Equal(expected, []string{"TestA/unix"}) {
		t.Errorf("unknown %q, expected %q", unknown, expected)
	}
	if len(stale) != 1 || stale[0].test != "TestB" || stale[0].line != 3 {
		t.Errorf("stale %v", stale)
	}
	if r.passed != 2 || len(r.skipped) != 1 || !r.ended || !r.bad || r.broken(expected) || !r.broken(nil) {
		t.Errorf("%+v", r)
	}
	if p := skips[3].pattern(); p != `^TestE$/^x\.y$` {
		t.Errorf("pattern %s", p)
	}
	if err := os.WriteFile(file, []byte("fail net TestA\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readSkips(file); err == nil {
		t.Error("a line without a reason was accepted")
	}
}
