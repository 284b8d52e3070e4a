package main

import "encoding/binary"

// The guests, assembled by hand so that the program needs no tools.
var (
	// (loop (br 0))
	spin = guest("", "\x03\x40\x0c\x00\x0b")
	// Reads 64 MiB in steps of 4160 bytes, for ever: most reads miss the caches.
	spinMemory = guest("", "\x03\x40"+ // loop
		"\x23\x00\x41\xc0\x20\x6a\x41\xff\xff\xff\x1f\x71\x24\x00"+ // at = (at + 4160) & 0x3ffffff
		"\x23\x00\x28\x02\x00\x1a"+ // drop(load(at))
		"\x0c\x00\x0b")
	// random_get(0, 8)
	random = guest(vec("wasi_snapshot_preview1")+vec("random_get")+"\x00\x01", "\x41\x00\x41\x08\x10\x00\x1a")
	// poll_oneoff of a clock that never rings, for ever; the subscription is at 0
	sleep = guest(vec("wasi_snapshot_preview1")+vec("poll_oneoff")+"\x00\x02",
		"\x41\x00\x41\x01\x36\x02\x10"+ // clock id 1
			"\x41\x00\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x37\x03\x18"+ // timeout
			"\x03\x40\x41\x00\x41\x80\x01\x41\x01\x41\x80\x02\x10\x00\x1a\x0c\x00\x0b")
)

func vec(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

// guest is a module with one page of memory (64 MiB if it imports nothing), a
// mutable i32 global, and _start with this code. An import is a function of
// type 1: (i32 i32) -> i32 or 2: (i32 i32 i32 i32) -> i32.
func guest(imported, code string) []byte {
	types := "\x03" + "\x60\x00\x00" + "\x60\x02\x7f\x7f\x01\x7f" + "\x60\x04\x7f\x7f\x7f\x7f\x01\x7f"
	imports, start, pages := "\x00", "\x00", "\x80\x08"
	if imported != "" {
		imports, start, pages = "\x01"+imported, "\x01", "\x01"
	}
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + vec(types) +
		"\x02" + vec(imports) +
		"\x03" + vec("\x01\x00") +
		"\x05" + vec("\x01\x00"+pages) +
		"\x06" + vec("\x01\x7f\x01\x41\x00\x0b") +
		"\x07" + vec("\x02\x06_start\x00"+start+"\x06memory\x02\x00") +
		"\x0a" + vec("\x01"+vec("\x00"+code+"\x0b")))
}
