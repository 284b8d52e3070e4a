package hostile

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A bomb is a guest that is made to hurt its host.
type bomb struct {
	name   string
	module func() []byte // encoded by hand, or
	args   []string      // arguments of the bomb in testdata/bomb
	memory string        // limit; default 64Mi
	volume bool          // has the volume that bombs share, at /v
	copies int           // how many run at once; default 1
	slow   bool          // left out of the short form
	// untouched is said of memory that is declared, but not used.
	untouched bool

	// How it should end; bombs that go on for ever are killed.
	want ending
}

// ending is what the host says of a guest's end.
type ending int

const (
	killed   ending = iota // it goes on until it is killed
	exits                  // by itself: done, refused by a limit, out of memory
	refused                // its module is not accepted
	whatever               // the limits of the engine decide
)

var bombs = []bomb{
	// Loops and recursion.
	{name: "infinite loop", module: func() []byte {
		return single(function(0, opLoop, typeVoid, opBr, 0, opEnd))
	}},
	{name: "infinite loop in the start function", module: func() []byte {
		return module{start: true, funcs: [][]byte{function(0, opLoop, typeVoid, opBr, 0, opEnd)}}.encode()
	}},
	{name: "infinite tail calls", module: func() []byte {
		return single(function(0, opReturnCall, 0), function(0))
	}},
	{name: "infinite recursion", want: exits, module: func() []byte {
		return single(function(0, opCall, 0))
	}},
	{name: "mutual recursion", want: exits, module: func() []byte {
		return single(function(0, opCall, 1), function(0, opCall, 2), function(0, opCall, 0))
	}},
	{name: "recursion through a table", want: exits, module: func() []byte {
		return module{table: []byte{0, 1}, funcs: [][]byte{function(0, i32(0), opIndirect, 0, 0)}}.encode()
	}},
	{name: "recursion with huge locals", want: exits, module: func() []byte {
		const locals = 3000
		return single(function(locals,
			repeat(locals, func(i int) []byte { return code(i32(8*i), opI64Load, 3, 0, opLocalSet, uleb(i)) }),
			opCall, 0,
			repeat(locals, func(i int) []byte { return code(i32(8*i), opLocalGet, uleb(i), opI64Store, 3, 0) })))
	}},
	{name: "calls of an empty function", module: func() []byte {
		return single(function(0, opLoop, typeVoid, repeat(1000, func(int) []byte { return code(opCall, 1) }), opBr, 0, opEnd), function(0))
	}},
	{name: "doubling call tree", module: func() []byte {
		const levels = 60
		funcs := make([][]byte, levels)
		for i := range levels - 1 {
			funcs[i] = function(0, opCall, uleb(i+1), opCall, uleb(i+1))
		}
		funcs[levels-1] = function(0)
		return single(funcs...)
	}},

	// Memory and tables.
	{name: "memory.grow storm", want: exits, module: func() []byte {
		return single(function(0, opLoop, typeVoid, i32(1), opMemoryGrow, 0, opDrop, opBr, 0, opEnd))
	}},
	{name: "memory.grow that fails", module: func() []byte {
		return module{memory: []byte{1, 1, 1}, funcs: [][]byte{
			function(0, opLoop, typeVoid, i32(1), opMemoryGrow, 0, opDrop, opBr, 0, opEnd)}}.encode()
	}},
	{name: "4 GiB declared", want: exits, module: func() []byte {
		return module{memory: code(1, uleb(65536), uleb(65536)), funcs: [][]byte{function(0)}}.encode()
	}},
	{name: "4 GiB declared, no limit", memory: "8Gi", untouched: true, want: exits, module: func() []byte {
		return module{memory: code(0, uleb(65536)), funcs: [][]byte{function(0)}}.encode()
	}},
	{name: "memory.fill storm", module: func() []byte {
		const pages = 512
		return module{memory: code(1, uleb(pages), uleb(pages)), funcs: [][]byte{function(0,
			opLoop, typeVoid, i32(0), i32(1), i32(pages<<16), opMisc, 11, 0, opBr, 0, opEnd)}}.encode()
	}},
	{name: "memory.copy storm", module: func() []byte {
		const pages = 512
		return module{memory: code(1, uleb(pages), uleb(pages)), funcs: [][]byte{function(0,
			opLoop, typeVoid, i32(1), i32(0), i32(pages<<16-1), opMisc, 10, 0, 0, opBr, 0, opEnd)}}.encode()
	}},
	{name: "table.grow storm", want: whatever, module: func() []byte {
		return module{table: []byte{0, 1}, funcs: [][]byte{function(0,
			opLoop, typeVoid, opRefNull, typeFuncref, i32(65536), opMisc, 15, 0, opDrop, opBr, 0, opEnd)}}.encode()
	}},
	{name: "table.fill storm", want: whatever, module: func() []byte {
		return module{table: code(0, uleb(1e6)), funcs: [][]byte{function(0,
			opLoop, typeVoid, i32(0), opRefNull, typeFuncref, i32(1e6), opMisc, 17, 0, opBr, 0, opEnd)}}.encode()
	}},
	{name: "huge table", want: refused, module: func() []byte {
		return module{table: code(0, uleb(1<<30)), funcs: [][]byte{function(0)}}.encode()
	}},
	{name: "references to functions", module: func() []byte {
		return single(function(0, opLoop, typeVoid, opRefFunc, 0, opDrop, opBr, 0, opEnd))
	}},
	{name: "atomic.wait for ever", module: func() []byte {
		return module{memory: []byte{3, 1, 1}, funcs: [][]byte{function(0,
			i32(0), i32(0), 0x42, 0x7f, opAtomic, 1, 2, 0, opDrop)}}.encode()
	}},
	{name: "a heap that grows for ever", args: []string{"eat"}, want: exits},

	// What takes long to compile.
	{name: "50,000 functions", want: whatever, module: func() []byte {
		funcs := make([][]byte, 50_000)
		for i := range funcs {
			funcs[i] = function(0, i32(i), opDrop)
		}
		return single(funcs...)
	}},
	{name: "9,000 nested blocks", want: whatever, module: func() []byte {
		return single(function(0, strings.Repeat("\x02\x40", 9000), strings.Repeat("\x0b", 9000)))
	}},
	{name: "2,000 nested loops", want: whatever, module: func() []byte {
		return single(function(0, strings.Repeat("\x03\x40", 2000), strings.Repeat("\x0b", 2000)))
	}},
	{name: "a million nested blocks", want: refused, module: func() []byte {
		return single(function(0, strings.Repeat("\x02\x40", 1e6), strings.Repeat("\x0b", 1e6)))
	}},
	{name: "br_table of 100,000", want: whatever, module: func() []byte {
		return single(function(0, opBlock, typeVoid, i32(0), opBrTable, uleb(100_000), make([]byte, 100_001), opEnd))
	}},
	{name: "br_tables in 500 blocks", want: whatever, module: func() []byte {
		const blocks = 500
		return single(function(0, strings.Repeat("\x02\x40", blocks), repeat(blocks, func(done int) []byte {
			targets := repeat(blocks, func(i int) []byte { return uleb(i % (blocks - done)) })
			return code(i32(0), opBrTable, uleb(blocks-1), targets, opEnd)
		})))
	}},
	{name: "50,000 locals", want: whatever, module: func() []byte {
		return single(function(50_000))
	}},
	{name: "locals times blocks", slow: true, want: whatever, module: func() []byte {
		const locals, blocks = 2000, 2000
		return single(function(locals, repeat(blocks, func(i int) []byte {
			return code(i32(0), opI32Load, 2, 0, opIf, typeVoid, opLocalGet, uleb(i), 0x42, 1, opI64Add, opLocalSet, uleb(i), opEnd)
		}), repeat(locals, func(i int) []byte { return code(i32(0), opLocalGet, uleb(i), opI64Store, 3, 0) })))
	}},
	{name: "locals times loops", slow: true, want: whatever, module: func() []byte {
		const locals, loops = 1000, 1000
		return single(function(locals, repeat(loops, func(i int) []byte {
			return code(opLoop, typeVoid, opLocalGet, uleb(i), 0x42, 3, opI64Mul, opLocalSet, uleb(i),
				i32(0), opI32Load, 2, 0, opBrIf, 0, opEnd)
		}), repeat(locals, func(i int) []byte { return code(i32(0), opLocalGet, uleb(i), opI64Store, 3, 0) })))
	}},
	{name: "many live values", want: whatever, module: func() []byte {
		const values = 20_000
		return single(function(0,
			repeat(values, func(i int) []byte { return code(i32(8), opI32Load, 2, 0) }),
			repeat(values-1, func(int) []byte { return code(opI32Add) }), opDrop))
	}},
	{name: "one function of 4 MB", slow: true, want: whatever, module: func() []byte {
		return single(function(0, repeat(400_000, func(i int) []byte {
			return code(i32(i%60), i32(0), opI32Load, 2, 0, opI32Store, 2, 0)
		})))
	}},
	{name: "100,000 globals, exports, segments", want: whatever, module: func() []byte {
		return module{globals: 100_000, exports: 100_000, data: 100_000, funcs: [][]byte{function(0)}}.encode()
	}},

	{name: "10,000 globals times 16,000 calls", want: whatever, module: func() []byte {
		// Each is few enough for a small module.
		return module{globals: 10_000, funcs: [][]byte{function(0, repeat(16_000, func(int) []byte { return code(opCall, 1) })), function(0)}}.encode()
	}},
	{name: "100,000 functions times exports", want: refused, module: func() []byte {
		funcs := make([][]byte, 100_000)
		for i := range funcs {
			funcs[i] = function(0)
		}
		return module{exports: 100_000, funcs: funcs}.encode()
	}},
	{name: "500,000 elements", want: exits, module: func() []byte {
		return module{elems: 500_000, funcs: [][]byte{function(0)}, exports: 1}.encode()
	}, memory: "16Mi"},

	{name: "imports with names of 1 MB", want: refused, module: func() []byte {
		return module{imports: []string{strings.Repeat("i", 1<<20)}, funcs: [][]byte{function(0)}}.encode()
	}},

	// Files, streams and host calls.
	{name: "file descriptors", args: []string{"fds"}, copies: 20},
	{name: "output flood", args: []string{"flood"}},
	{name: "output in single bytes", args: []string{"drip"}},
	{name: "tree 50,000 deep", args: []string{"deep", "50000"}, slow: true, want: exits},
	{name: "long and bad names", args: []string{"names"}},
	{name: "chains of links", args: []string{"links"}},
	{name: "long paths", args: []string{"paths"}},
	{name: "files made and removed", args: []string{"churn"}},
	{name: "rename races", args: []string{"mutate"}, volume: true, copies: 3},
	{name: "poll storm", args: []string{"poll"}},
	{name: "random_get of 32 MiB", args: []string{"random", "32"}, copies: 4},
	{name: "directory of 100,000", args: []string{"readdir", "100000"}, want: exits}, // its own layer of the root is in its memory
	{name: "directory of 100,000 in a volume", args: []string{"readdir", "100000"}, volume: true},
	{name: "termination message of 256 MiB", args: []string{"termlog", "256"}, want: exits},
	{name: "files of 8 EiB", args: []string{"sparse"}},
	{name: "renumbered descriptors", args: []string{"renumber"}},
	{name: "1,000 short pods", module: func() []byte { return single(function(0)) }, copies: 1000, want: exits},
}

// single is a module of functions, of which the first is _start.
func single(funcs ...[]byte) []byte { return module{funcs: funcs}.encode() }

// pod is the bomb's pod; n tells copies apart.
func (b *bomb) pod(n int, image string) *corev1.Pod {
	limit := b.memory
	if limit == "" {
		limit = "64Mi"
	}
	pod := newPod(fmt.Sprintf("bomb-%d", n), image, b.args...)
	c := &pod.Spec.Containers[0]
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
	c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	return pod
}
