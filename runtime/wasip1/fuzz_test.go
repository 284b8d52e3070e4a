package wasip1

import (
	"context"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// fuzzed are the functions that FuzzHostCall calls, each with seeds of its own.
func fuzzed() []function {
	list := slices.Concat(functions, wasmEdge, extensions)
	for _, name := range slices.Sorted(maps.Keys(unstable)) {
		list = append(list, unstable[name])
	}
	return list
}

// TestAllFunctionsAreFuzzed: whatever a guest can import is called with hostile
// arguments, too.
func TestAllFunctionsAreFuzzed(t *testing.T) {
	r, err := sharedRuntime()
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]int{}
	for _, f := range fuzzed() {
		covered[f.name+" "+f.params]++
	}
	for _, module := range []string{ModuleName, UnstableModuleName, ExtensionModuleName} {
		for name, def := range r.Module(module).ExportedFunctionDefinitions() {
			params := ""
			for _, p := range def.ParamTypes() {
				params += map[api.ValueType]string{api.ValueTypeI32: "i", api.ValueTypeI64: "I"}[p]
			}
			want := 1
			if _, other := unstable[name]; other {
				want = 2
			}
			if n := covered[name+" "+params]; n != want {
				t.Errorf("%s.%s(%s) is called %d times by FuzzHostCall, want %d", module, name, params, n, want)
			}
		}
	}
}

// FuzzHostCall calls every function with hostile arguments and memory: no call
// may panic with anything but an exit, touch a file outside the root, or take long.
func FuzzHostCall(f *testing.F) {
	interesting := []uint64{0, 1, 3, 4, 64, 4096, 65535, 65536, 131071, 1 << 31, 1<<32 - 1, 1<<32 - 8, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	functions := fuzzed()
	for i := range functions {
		for _, v := range interesting {
			args := make([]byte, 0, 72)
			for range 9 {
				args = binary.LittleEndian.AppendUint64(args, v)
			}
			f.Add(uint16(i), args, []byte("a/../../x\x00link"))
		}
		// A plausible call: fd 3, small pointers and lengths.
		var args []byte
		for _, v := range []uint64{3, 1, 16, 5, 3, 5, 1<<30 - 1, 1<<30 - 1, 128} {
			args = binary.LittleEndian.AppendUint64(args, v)
		}
		f.Add(uint16(i), args, []byte("over/a/file/../link/\x10\x00\x00\x00"))
		f.Add(uint16(i), args, []byte("link/../up/file/dir/\x10\x00\x00\x00\x08\x00\x00\x00"))
	}
	root, outside := fuzzJail(f)
	// What the host's root has below /over is an overlay's.
	over := NewOverlay(OverlayConfig{Lower: lowerOf(f, root), Dir: f.TempDir(), MemoryBytes: 64 << 10})
	f.Cleanup(over.Close)
	account := &purse{limit: 4 << 20}
	c := newCaller(f, ProcessConfig{
		Memory: account,
		Args:   []string{"a", "b"},
		Env:    []string{"A=b"},
		Stdin:  strings.NewReader("some input"),
		Root:   FS{Mounts: append([]Mount{{GuestPath: "/", Host: root}, {GuestPath: "/ro/deep", Host: outside, ReadOnly: true}, {GuestPath: "/over", Overlay: over}}, Devices()...)},
		MaxFDs: 64,

		Network: newFakeNet(), Hostname: "host", Groups: []uint32{1, 2},
	})
	open := func(t testing.TB) { // sockets of both kinds, a connection, a signal descriptor and a poll set, from 4 on
		c.t = t
		l := c.listen(80)
		c.connect(80)
		c.want(0, "sock_accept", l, 0, atResult)
		c.socket(KindDatagram)
		c.want(0, "signal_open", uint64(1<<14), atResult)
		c.set(int(l), int(c.u32(atResult)))
	}
	open(f)
	f.Fuzz(func(t *testing.T, which uint16, args, memory []byte) {
		fn := functions[int(which)%len(functions)]
		stack := make([]uint64, max(len(fn.params), 1))
		for i := range fn.params {
			var word [8]byte
			copy(word[:], args)
			args = args[min(8, len(args)):]
			stack[i] = binary.LittleEndian.Uint64(word[:])
			if fn.params[i] == 'i' {
				stack[i] &= 1<<32 - 1
			}
		}
		c.mem.Write(0, memory[:min(len(memory), 1<<16)])
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if fn.name == "fd_close" && stack[0] == 3 || fn.name == "fd_fdstat_set_rights" || fn.name == "fd_renumber" && stack[1] <= 3 {
			return // the other calls should keep their way in
		}
		if strings.HasSuffix(fn.name, "_chmod") {
			stack[len(stack)-1] |= 0o700 // the test has to find its way, too
		}
		if fn.name == "fd_allocate" || fn.name == "fd_filestat_set_size" {
			stack[1], stack[len(stack)-1] = stack[1]%(1<<20), stack[len(stack)-1]%(1<<20) // spare the disk
		}
		invoke(WithProcess(ctx, c.p), fn, c.mod, stack)
		if c.p.walk.held != 0 {
			t.Fatalf("%s: the walk still holds %d directories", fn.name, c.p.walk.held)
		}
		if c.p.fds.open > 17 || c.p.fds.open < 10 {
			for fd := 4; fd < len(c.p.fds.entries); fd++ {
				c.p.fds.close(uint32(fd))
			}
			c.p.network.(*fakeNet).reset()
			open(t)
		}
		if account.used < 0 {
			t.Fatalf("%s: %d bytes are charged", fn.name, account.used)
		}
		if text, err := os.ReadFile(filepath.Join(outside, "secret")); string(text) != secret || err != nil {
			t.Fatalf("%s: outside changed: %q, %v", fn.name, text, err)
		}
	})
}

func fuzzJail(f *testing.F) (root, outside string) {
	dir := f.TempDir()
	root, outside = filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{root + "/a/dir", outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			f.Fatal(err)
		}
	}
	for name, text := range map[string]string{outside + "/secret": secret, root + "/a/file": "text", root + "/x": ""} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "../outside", "up": "..", "abs": "/", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			f.Fatal(err)
		}
	}
	return root, outside
}
