package safepoint

import (
	"fmt"
	"unicode/utf8"
)

// Error says where and why a module cannot be rewritten.
type Error struct {
	Offset  int // in the module's bytes
	Message string
}

func (e *Error) Error() string {
	if e.Offset == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s (at offset %#x)", e.Message, e.Offset)
}

// reader reads a part of a module. Its first error sticks: every read after it
// returns zero, so that a decoder checks once per loop rather than per value.
type reader struct {
	buf  []byte // the whole module, or a part of it that starts at offset 0
	pos  int
	end  int // of the part being read
	base int // offset of buf in the module, for messages
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &Error{Offset: r.base + r.pos, Message: fmt.Sprintf(format, args...)}
	}
}

func (r *reader) more() bool { return r.err == nil && r.pos < r.end }

func (r *reader) left() int { return r.end - r.pos }

func (r *reader) byte() byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= r.end {
		r.fail("unexpected end")
		return 0
	}
	b := r.buf[r.pos]
	r.pos++
	return b
}

func (r *reader) skip(n int) {
	if r.err != nil {
		return
	}
	if n < 0 || n > r.left() {
		r.fail("unexpected end")
		return
	}
	r.pos += n
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	// Nearly every value is one byte.
	if r.err == nil && r.pos < r.end {
		if b := r.buf[r.pos]; b < 0x80 {
			r.pos++
			return uint32(b)
		}
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && b > 0x0f {
			break
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail("number does not fit into 32 bits")
	return 0
}

// signed reads a signed LEB128 of at most the given number of bits.
func (r *reader) signed(bits int) int64 {
	var v int64
	shift := 0
	for {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		v |= int64(b&0x7f) << shift
		shift += 7
		if b >= 0x80 {
			if shift >= bits {
				r.fail("number does not fit into %d bits", bits)
				return 0
			}
			continue
		}
		if shift < 64 && b&0x40 != 0 {
			v |= -1 << shift
		}
		if shift > bits {
			// The unused bits of the last byte must repeat the sign.
			used := bits - (shift - 7)
			top := int8(b<<1) >> used // arithmetic: the sign and what lies above it
			if top != 0 && top != -1 {
				r.fail("number does not fit into %d bits", bits)
				return 0
			}
		}
		return v
	}
}

// count reads the length of a vector whose elements take at least one byte
// each, so that a declared length never makes anyone allocate more than the
// module's own size.
func (r *reader) count(what string, limit int) int {
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if int64(n) > int64(r.left()) {
		r.fail("%d %s declared, but only %d bytes follow", n, what, r.left())
		return 0
	}
	if int64(n) > int64(limit) {
		r.fail("%d %s exceed the limit of %d", n, what, limit)
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	start := r.pos
	r.skip(n)
	if r.err != nil {
		return nil
	}
	return r.buf[start:r.pos]
}

func (r *reader) name(what string) string {
	n := r.u32()
	if r.err != nil {
		return ""
	}
	if int64(n) > int64(r.left()) {
		r.fail("%s is longer than what holds it", what)
		return ""
	}
	b := r.bytes(int(n))
	if !utf8.Valid(b) {
		r.fail("%s is not UTF-8", what)
		return ""
	}
	return string(b)
}

// sub returns a reader of the next n bytes and skips them.
func (r *reader) sub(n uint32, what string) *reader {
	if r.err == nil && int64(n) > int64(r.left()) {
		r.fail("%s of %d bytes is cut short: only %d bytes follow", what, n, r.left())
	}
	if r.err != nil {
		return &reader{err: r.err}
	}
	s := &reader{buf: r.buf, pos: r.pos, end: r.pos + int(n), base: r.base}
	r.pos = s.end
	return s
}

// copier copies source bytes and replaces parts of them.
type copier struct {
	src  []byte
	last int // source bytes before it are dealt with
	out  []byte
}

func (c *copier) upTo(pos int) {
	c.out = append(c.out, c.src[c.last:pos]...)
	c.last = pos
}

// number replaces the source bytes from..to by an unsigned LEB128.
func (c *copier) number(from, to int, v uint32) {
	c.upTo(from)
	c.out = appendU32(c.out, v)
	c.last = to
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS32(b []byte, v int32) []byte {
	for v < -64 || v >= 64 {
		b = append(b, byte(v&0x7f)|0x80)
		v >>= 7
	}
	return append(b, byte(v&0x7f))
}

func appendName(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}

func appendSection(b []byte, id byte, payload []byte) []byte {
	b = append(b, id)
	b = appendU32(b, uint32(len(payload)))
	return append(b, payload...)
}
