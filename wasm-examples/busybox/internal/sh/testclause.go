package sh

import (
	"regexp"

	"mvdan.cc/sh/v3/syntax"

	"github.com/wasmpod/wasmpod/wasm-examples/busybox/internal/glob"
)

// testExpr evaluates [[ … ]]. Everything but patterns, regular expressions and arithmetic is left to test(1).
func (s *Shell) testExpr(x syntax.TestExpr) bool {
	switch x := x.(type) {
	case *syntax.Word:
		return s.word(x) != ""
	case *syntax.ParenTest:
		return s.testExpr(x.X)
	case *syntax.UnaryTest:
		if x.Op == syntax.TsNot {
			return !s.testExpr(x.X)
		}
		return s.test(x.Op.String(), s.testWord(x.X))
	case *syntax.BinaryTest:
		switch x.Op {
		case syntax.AndTest:
			return s.testExpr(x.X) && s.testExpr(x.Y)
		case syntax.OrTest:
			return s.testExpr(x.X) || s.testExpr(x.Y)
		}
		left := s.testWord(x.X)
		right, _ := x.Y.(*syntax.Word)
		switch x.Op {
		case syntax.TsMatch, syntax.TsMatchShort:
			return glob.Match(s.pattern(right), left)
		case syntax.TsNoMatch:
			return !glob.Match(s.pattern(right), left)
		case syntax.TsReMatch:
			re, err := regexp.Compile(s.word(right))
			if err != nil {
				s.fatal(2, "[[: bad regular expression: %v", err)
			}
			return re.MatchString(left)
		case syntax.TsBefore:
			return left < s.word(right)
		case syntax.TsAfter:
			return left > s.word(right)
		}
		return s.test(left, x.Op.String(), s.word(right))
	}
	return false
}

func (s *Shell) testWord(x syntax.TestExpr) string {
	w, _ := x.(*syntax.Word)
	return s.word(w)
}

func (s *Shell) test(args ...string) bool {
	return builtins["test"].run(s, append([]string{"test"}, args...)) == 0
}
