// Package spec says what wasmpod does with a Pod: its tests write SPEC.md, and
// command semantics counts the rules that tests show.
package spec

import (
	"os"
	"regexp"
	"strings"
)

var outside = regexp.MustCompile(`^\| ((?:[A-Z]+-[0-9]{2} ?)+) \| (.*) \|$`)

// OutOfScope reads docs/out-of-scope.md: by rule, why wasmpod does not follow it.
func OutOfScope(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	why, status := map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			status = strings.ToLower(strings.TrimSpace(title)) + ": "
		}
		if m := outside.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			for _, rule := range strings.Fields(m[1]) {
				why[rule] = status + m[2]
			}
		}
	}
	return why, nil
}
