package wasip1

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// memoryModule is (module (memory (export "memory") 2 4)).
var memoryModule = []byte("\x00asm\x01\x00\x00\x00\x05\x04\x01\x01\x02\x04\x07\x0a\x01\x06memory\x02\x00")

// caller calls host functions as a guest would, without one.
type caller struct {
	t   testing.TB
	ctx context.Context
	p   *Process
	mod api.Module
	mem memory
	at  uint32 // next free byte for arguments
}

func newCaller(t testing.TB, c ProcessConfig) *caller {
	t.Helper()
	r, err := sharedRuntime()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	mod, err := r.InstantiateWithConfig(ctx, memoryModule, anonymous)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewProcess(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		mod.Close(ctx)
	})
	return &caller{t: t, ctx: WithProcess(ctx, p), p: p, mod: mod, mem: guestMemory(mod)}
}

func lookupFunction(name string) function {
	for _, f := range slices.Concat(functions, wasmEdge, extensions) {
		if f.name == name {
			return f
		}
	}
	panic("no function " + name)
}

// call calls a function with integers and strings, of which a string becomes a
// pointer and a length. It returns the exit code instead of -1 if the guest ends.
func (c *caller) call(name string, args ...any) (errno Errno, exit int) {
	f := lookupFunction(name)
	c.at = 4096
	var stack []uint64
	for _, a := range args {
		switch a := a.(type) {
		case int:
			stack = append(stack, uint64(a))
		case uint64:
			stack = append(stack, a)
		case string:
			stack = append(stack, uint64(c.at), uint64(len(a)))
			c.mem.Write(c.at, []byte(a))
			c.at += uint32(len(a))
		default:
			c.t.Fatalf("argument of type %T", a)
		}
	}
	if len(stack) != len(f.params) {
		c.t.Fatalf("%s: %d arguments, want %d", name, len(stack), len(f.params))
	}
	return invoke(c.ctx, f, c.mod, stack)
}

func invoke(ctx context.Context, f function, mod api.Module, stack []uint64) (errno Errno, exit int) {
	exit = -1
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*sys.ExitError)
			if !ok {
				panic(r)
			}
			exit = int(e.ExitCode())
		}
	}()
	if len(stack) == 0 {
		stack = []uint64{0}
	}
	hostFunction(f)(ctx, mod, stack)
	return Errno(stack[0]), exit
}

func (c *caller) want(want Errno, name string, args ...any) {
	c.t.Helper()
	if errno, exit := c.call(name, args...); errno != want || exit >= 0 {
		c.t.Errorf("%s%.200q = %v (exit %d), want %v", name, args, errno, exit, want)
	}
}

func (c *caller) u32(ptr uint32) uint32 {
	v, _ := c.mem.ReadUint32Le(ptr)
	return v
}

func (c *caller) u64(ptr uint32) uint64 {
	v, _ := c.mem.ReadUint64Le(ptr)
	return v
}

// open opens a path for reading and writing and returns its descriptor.
func (c *caller) open(dir int, path string, oflags int) (int, Errno) {
	const result = 64
	errno, _ := c.call("path_open", dir, lookupFollow, path, oflags, uint64(rightsAll), uint64(rightsAll), 0, result)
	return int(c.u32(result)), errno
}

// openRead opens a path for reading only.
func (c *caller) openRead(dir int, path string, oflags int) (int, Errno) {
	const result = 64
	errno, _ := c.call("path_open", dir, lookupFollow, path, oflags, rightsAll&^rightFdWrite, rightsAll, 0, result)
	return int(c.u32(result)), errno
}

// read reads a file from its current position.
func (c *caller) read(fd int) (string, Errno) {
	const iovec, result, buf, size = 0, 64, 8192, 4096
	c.mem.Write(iovec, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, buf), size))
	errno, _ := c.call("fd_read", fd, iovec, 1, result)
	b, _ := c.mem.Read(buf, c.u32(result))
	return string(b), errno
}

func (c *caller) write(fd int, text string) Errno {
	const iovec, result, buf = 0, 64, 8192
	c.mem.Write(buf, []byte(text))
	c.mem.Write(iovec, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, buf), uint32(len(text))))
	errno, _ := c.call("fd_write", fd, iovec, 1, result)
	return errno
}

// raceEnabled is set in builds with -race, where wazero's compiler is slow.
var raceEnabled bool
