// Command semantics prints, for each section of docs/semantics.md, how many of
// its rules are in the name of a test that has passed; the name of a scenario has
// all that it covers. It reads the output of go test -json. Rules without a test
// are listed, and why, where one is out of scope (docs/out-of-scope.md).
//
//	go test -json ./... | go run ./test/spec/semantics
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/wasmpod/wasmpod/test/spec"
)

var (
	id      = regexp.MustCompile(`(MAN|SBX|INIT|SIDE|MAIN|IMG|HOOK|PROBE|COND|PHASE|STATE|TMSG|RST|DEAD|DEL|OOM|ENV|DAPI|VOL|LOG|EXEC|RES|NET|SEC|KCTL|EVT|WL|TIME|FEAT)-?([0-9]{2})`)
	defined = regexp.MustCompile(`^(?:- |\| )([A-Z]+-[0-9]{2})\b`)
)

func main() {
	covered, failed, err := passing(os.Stdin)
	if err == nil {
		err = report(os.Stdout, "docs", covered)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "semantics:", err)
		os.Exit(1)
	case failed > 0:
		fmt.Fprintf(os.Stderr, "semantics: %d tests failed; what they name does not count\n", failed)
		os.Exit(1)
	}
}

// passing reads go test -json and returns the rules that passing tests name.
func passing(r io.Reader) (covered map[string]bool, failed int, err error) {
	covered = map[string]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test string }
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // the output of a build
		}
		switch {
		case e.Test != "" && e.Action == "pass":
			for _, m := range id.FindAllStringSubmatch(e.Test, -1) {
				covered[m[1]+"-"+m[2]] = true
			}
		case e.Action == "fail":
			failed++
			fmt.Fprintln(os.Stderr, "semantics: failed:", e.Package, e.Test)
		}
	}
	return covered, failed, lines.Err()
}

func report(w io.Writer, dir string, covered map[string]bool) error {
	text, err := os.ReadFile(dir + "/semantics.md")
	if err != nil {
		return err
	}
	why, err := spec.OutOfScope(dir + "/out-of-scope.md")
	if err != nil {
		return err
	}
	var section string
	var all, have, total, sum, reasoned int
	var missing []string
	flush := func() {
		if all > 0 {
			fmt.Fprintf(w, "%-60s %3d / %3d\n", section, have, all)
			for _, m := range missing {
				fmt.Fprintln(w, "   ", m)
			}
		}
		all, have, missing = 0, 0, nil
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			flush()
			section, _, _ = strings.Cut(strings.TrimSpace(title), " (")
			continue
		}
		m := defined.FindStringSubmatch(line)
		if m == nil || seen[m[1]] {
			continue
		}
		seen[m[1]] = true
		all++
		total++
		switch {
		case covered[m[1]]:
			have++
			sum++
		case why[m[1]] != "":
			reasoned++
			missing = append(missing, m[1]+" "+why[m[1]])
		default:
			missing = append(missing, m[1]+" has no passing test")
		}
	}
	flush()
	fmt.Fprintf(w, "%-60s %3d / %3d, %d of the others have a reason\n", "all", sum, total, reasoned)
	return nil
}
