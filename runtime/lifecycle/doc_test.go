package lifecycle

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestDocDiagram draws the stage diagram of doc.md from the scenarios.
func TestDocDiagram(t *testing.T) {
	want := "```mermaid\nstateDiagram-v2\n    [*] --> New\n"
	known := transitions()
	arrows := map[string][]string{}
	for tr := range known {
		arrow := fmt.Sprintf("    %s --> %s", tr.from, tr.to)
		arrows[arrow] = append(arrows[arrow], tr.fact)
	}
	for _, arrow := range slices.Sorted(maps.Keys(arrows)) {
		slices.Sort(arrows[arrow])
		want += arrow + ": " + strings.Join(arrows[arrow], ", ") + "\n"
	}
	want += "    Finished --> [*]\n```\n"

	data, err := os.ReadFile("doc.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), "-update -->\n")
	got, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatal("doc.md has lost its marks")
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("doc.md does not show what the scenarios do: run with -update\n%s", firstDifference(got, want))
	}
	if err := os.WriteFile("doc.md", []byte(before+"-update -->\n"+want+"<!-- end -->"+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocNames checks that doc.md's table has every stage.
func TestDocNames(t *testing.T) {
	data, err := os.ReadFile("doc.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []stage{
		stageNew, stageMounting, stageSandboxing, stageInitializing, stageRunning,
		stageResetting, stageReplacing, stageStopping, stageRemoving, stageUnmounting, stageFinished,
	} {
		if !strings.Contains(string(data), fmt.Sprintf("\n| %s |", s)) {
			t.Errorf("doc.md has no row for %s", s)
		}
	}
}

type transition struct {
	from, to stage
	fact     string
}

// transitions are those that the scenarios show.
var transitions = sync.OnceValue(func() map[transition]bool {
	known := map[transition]bool{}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		runScenario(&testing.T{}, string(data), func(from stage, f Fact, to stage) {
			known[transition{from, to, reflect.TypeOf(f).Name()}] = true
		})
	}
	return known
})
