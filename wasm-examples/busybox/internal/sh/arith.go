package sh

import (
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

// arith evaluates an arithmetic expression; an error in it ends the shell.
func (s *Shell) arith(x syntax.ArithmExpr) int64 {
	switch x := x.(type) {
	case nil:
		return 0
	case *syntax.Word:
		return s.arithText(s.word(x))
	case *syntax.ParenArithm:
		return s.arith(x.X)
	case *syntax.UnaryArithm:
		return s.arithUnary(x)
	case *syntax.BinaryArithm:
		return s.arithBinary(x)
	}
	s.fatal(2, "arithmetic syntax error")
	return 0
}

// arithText is the value of a constant, of a variable, or of an expression that a variable holds.
func (s *Shell) arithText(text string) int64 {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	if c := text[0]; c >= '0' && c <= '9' || c == '-' || c == '+' {
		if n, ok := parseInt(text); ok {
			return n
		}
	}
	s.enter()
	defer s.leave()
	if syntax.ValidName(text) {
		value, set := s.lookup(text)
		if !set && s.opts.nounset {
			s.fatal(2, "%s: parameter not set", text)
		}
		return s.arithText(value)
	}
	expr, err := syntax.NewParser().Arithmetic(strings.NewReader(text))
	if err != nil || expr == nil {
		s.fatal(2, "arithmetic syntax error")
	}
	if w, ok := expr.(*syntax.Word); ok && w.Lit() == text { // neither number nor name
		s.fatal(2, "arithmetic syntax error")
	}
	return s.arith(expr)
}

// parseInt reads a decimal, octal, hexadecimal or base#digits constant with an optional sign. Like C, it wraps around.
func parseInt(text string) (int64, bool) {
	negative := false
	switch text[0] {
	case '-':
		negative, text = true, text[1:]
	case '+':
		text = text[1:]
	}
	base := 10
	switch {
	case len(text) > 2 && (text[:2] == "0x" || text[:2] == "0X"):
		base, text = 16, text[2:]
	case len(text) > 1 && text[0] == '0':
		base, text = 8, text[1:]
	default:
		if b, digits, ok := strings.Cut(text, "#"); ok {
			n, err := strconv.Atoi(b)
			if err != nil || n < 2 || n > 36 {
				return 0, false
			}
			base, text = n, digits
		}
	}
	n, err := strconv.ParseUint(text, base, 64)
	if err != nil {
		if ne, ok := err.(*strconv.NumError); !ok || ne.Err != strconv.ErrRange {
			return 0, false
		}
	}
	if negative {
		return -int64(n), true
	}
	return int64(n), true
}

// arithName returns the variable that an assignment operator changes.
func (s *Shell) arithName(x syntax.ArithmExpr) string {
	if w, ok := x.(*syntax.Word); ok {
		if name := w.Lit(); syntax.ValidName(name) {
			return name
		}
	}
	s.fatal(2, "arithmetic syntax error")
	return ""
}

func (s *Shell) arithUnary(x *syntax.UnaryArithm) int64 {
	if x.Op == syntax.Inc || x.Op == syntax.Dec {
		name := s.arithName(x.X)
		old := s.arithText(s.get(name))
		value := old + 1
		if x.Op == syntax.Dec {
			value = old - 1
		}
		s.set(name, formatInt(value))
		if x.Post {
			return old
		}
		return value
	}
	v := s.arith(x.X)
	switch x.Op {
	case syntax.Not:
		return truth(v == 0)
	case syntax.BitNegation:
		return ^v
	case syntax.Minus:
		return -v
	}
	return v
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

var assignOps = map[syntax.BinAritOperator]syntax.BinAritOperator{
	syntax.AddAssgn: syntax.Add, syntax.SubAssgn: syntax.Sub, syntax.MulAssgn: syntax.Mul, syntax.QuoAssgn: syntax.Quo,
	syntax.RemAssgn: syntax.Rem, syntax.AndAssgn: syntax.And, syntax.OrAssgn: syntax.Or, syntax.XorAssgn: syntax.Xor,
	syntax.ShlAssgn: syntax.Shl, syntax.ShrAssgn: syntax.Shr,
}

func (s *Shell) arithBinary(x *syntax.BinaryArithm) int64 {
	switch x.Op {
	case syntax.AndArit:
		return truth(s.arith(x.X) != 0 && s.arith(x.Y) != 0)
	case syntax.OrArit:
		return truth(s.arith(x.X) != 0 || s.arith(x.Y) != 0)
	case syntax.TernQuest:
		branches, ok := x.Y.(*syntax.BinaryArithm)
		if !ok || branches.Op != syntax.TernColon {
			s.fatal(2, "arithmetic syntax error")
		}
		if s.arith(x.X) != 0 {
			return s.arith(branches.X)
		}
		return s.arith(branches.Y)
	case syntax.Assgn:
		name := s.arithName(x.X)
		v := s.arith(x.Y)
		s.set(name, formatInt(v))
		return v
	}
	if op, ok := assignOps[x.Op]; ok {
		name := s.arithName(x.X)
		v := s.compute(op, s.arithText(s.get(name)), s.arith(x.Y))
		s.set(name, formatInt(v))
		return v
	}
	a := s.arith(x.X)
	return s.compute(x.Op, a, s.arith(x.Y))
}

func (s *Shell) compute(op syntax.BinAritOperator, a, b int64) int64 {
	switch op {
	case syntax.Add:
		return a + b
	case syntax.Sub:
		return a - b
	case syntax.Mul:
		return a * b
	case syntax.Quo, syntax.Rem:
		if b == 0 {
			s.fatal(2, "divide by zero")
		}
		if b == -1 { // the one division that overflows
			if op == syntax.Rem {
				return 0
			}
			return -a
		}
		if op == syntax.Rem {
			return a % b
		}
		return a / b
	case syntax.Pow:
		if b < 0 {
			s.fatal(2, "negative exponent")
		}
		v := int64(1)
		for ; b > 0; b >>= 1 {
			if b&1 != 0 {
				v *= a
			}
			a *= a
		}
		return v
	case syntax.Eql:
		return truth(a == b)
	case syntax.Neq:
		return truth(a != b)
	case syntax.Lss:
		return truth(a < b)
	case syntax.Gtr:
		return truth(a > b)
	case syntax.Leq:
		return truth(a <= b)
	case syntax.Geq:
		return truth(a >= b)
	case syntax.And:
		return a & b
	case syntax.Or:
		return a | b
	case syntax.Xor:
		return a ^ b
	case syntax.Shl:
		return a << (uint64(b) & 63)
	case syntax.Shr:
		return a >> (uint64(b) & 63)
	case syntax.Comma:
		return b
	}
	s.fatal(2, "arithmetic syntax error")
	return 0
}
