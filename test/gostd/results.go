package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// skip is a line of the list:
//
//	fail net[@go1.25] TestName[/sub...] reason
//	skip net[@go1.25] TestName[/sub...] reason
//
// What is said to fail is run, so that it is noticed when it passes; what is to
// be skipped is left out, as it would hang, or end the others.
type skip struct {
	line                          int
	kind, pkg, goes, test, reason string
}

func readSkips(file string) (skips []skip, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "fail" && words[0] != "skip" {
			return nil, fmt.Errorf("%s:%d: want 'fail' or 'skip', package, test and reason", file, n)
		}
		s := skip{line: n, kind: words[0], test: words[2], reason: strings.Join(words[3:], " ")}
		s.pkg, s.goes, _ = strings.Cut(words[1], "@")
		skips = append(skips, s)
	}
	return skips, nil
}

// of says whether the line is about a package under a version of Go.
func (s skip) of(pkg, version string) bool {
	return s.pkg == pkg && (s.goes == "" || s.goes == version)
}

// pattern is the line for -skip.
func (s skip) pattern() string {
	words := strings.Split(s.test, "/")
	for i, w := range words {
		words[i] = "^" + regexp.QuoteMeta(w) + "$"
	}
	return strings.Join(words, "/")
}

// covers says whether a failure of a test is what the line expects, or comes of
// it.
func (s skip) covers(test string) bool {
	return s.kind == "fail" && (test == s.test || strings.HasPrefix(test, s.test+"/"))
}

// results are those of one package.
type results struct {
	passed  int
	ran     map[string]bool // whether it passed
	failed  []string
	skipped []string
	output  map[string]string // by test; that of the package by ""
	ended   bool              // with a verdict on the package
	bad     bool              // the verdict
}

func readResults(out []byte) (*results, error) {
	r := &results{ran: make(map[string]bool), output: make(map[string]string)}
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			r.output[""] += string(line)
			continue
		}
		switch e.Action {
		case "output", "build-output":
			r.output[e.Test] += e.Output
		case "pass", "fail", "skip":
			if e.Test == "" {
				r.ended, r.bad = true, e.Action == "fail"
				continue
			}
			switch e.Action {
			case "pass":
				r.passed++
				r.ran[e.Test] = true
			case "fail":
				r.ran[e.Test] = false
				r.failed = append(r.failed, e.Test)
			case "skip":
				r.skipped = append(r.skipped, e.Test)
			}
		}
	}
	return r, nil
}

// judge compares what failed with the list.
func (r *results) judge(pkg, version string, skips []skip) (unknown, expected []string, stale []skip) {
	for _, test := range r.failed {
		switch {
		case slices.ContainsFunc(skips, func(s skip) bool { return s.of(pkg, version) && s.covers(test) }):
			expected = append(expected, test)
		case !slices.ContainsFunc(r.failed, func(other string) bool { return strings.HasPrefix(other, test+"/") }):
			unknown = append(unknown, test)
		}
	}
	for _, s := range skips {
		if s.kind != "fail" || !s.of(pkg, version) {
			continue
		}
		if passed, ran := r.ran[s.test]; passed || !ran {
			stale = append(stale, s)
		}
	}
	return unknown, expected, stale
}

// broken says that the test binary did not end by itself, or failed for no test.
func (r *results) broken(expected []string) bool {
	return !r.ended || r.bad && len(expected) == 0
}
