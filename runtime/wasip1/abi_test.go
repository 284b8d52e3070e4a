package wasip1

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tetratelabs/wazero"
)

func clockSub(userdata uint64, clock uint32, timeout uint64, flags uint16) []byte {
	b := make([]byte, 48)
	put64(b, userdata)
	put32(b[16:], clock)
	put64(b[24:], timeout)
	put16(b[40:], flags)
	return b
}

func fdSub(userdata uint64, kind uint8, fd uint32) []byte {
	b := make([]byte, 48)
	put64(b, userdata)
	b[8] = kind
	put32(b[16:], fd)
	return b
}

type event struct {
	userdata uint64
	errno    Errno
	kind     uint8
	nbytes   uint64
	flags    uint16
}

// poll calls poll_oneoff and decodes its events.
func (c *caller) poll(subs ...[]byte) ([]event, Errno) {
	const in, out, result = 8192, 16384, 64
	c.mem.Write(in, bytes.Join(subs, nil))
	errno, _ := c.call("poll_oneoff", in, out, len(subs), result)
	if errno != 0 {
		return nil, errno
	}
	var events []event
	for i := range c.u32(result) {
		b, _ := c.mem.Read(out+32*i, 32)
		events = append(events, event{le64(b), Errno(binary.LittleEndian.Uint16(b[8:])), b[10], le64(b[16:]), binary.LittleEndian.Uint16(b[24:])})
	}
	return events, 0
}

func TestAllFunctionsAreThere(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	if err := Instantiate(ctx, r); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{ModuleName: 46 + len(wasmEdge), UnstableModuleName: 46, ExtensionModuleName: len(extensions)} {
		if n := len(r.Module(name).ExportedFunctionDefinitions()); n != want {
			t.Errorf("%s has %d functions, want %d", name, n, want)
		}
	}
	if err := Instantiate(ctx, r); err == nil {
		t.Error("a second registration in one runtime succeeded")
	}
}

func TestArgsAndEnviron(t *testing.T) {
	c := newCaller(t, ProcessConfig{Args: []string{"a", "", "ünï"}, Env: []string{"K=v", "EMPTY="}})
	c.want(0, "args_sizes_get", 0, 4)
	if argc, size := c.u32(0), c.u32(4); argc != 3 || size != 2+1+6 {
		t.Errorf("argc %d, size %d", argc, size)
	}
	c.want(0, "args_get", 16, 64)
	if b, _ := c.mem.Read(64, 9); string(b) != "a\x00\x00ünï\x00" || c.u32(16) != 64 || c.u32(20) != 66 || c.u32(24) != 67 {
		t.Errorf("%q at %d %d %d", b, c.u32(16), c.u32(20), c.u32(24))
	}
	c.want(0, "environ_sizes_get", 0, 4)
	c.want(0, "environ_get", 16, 64)
	if b, _ := c.mem.Read(64, c.u32(4)); string(b) != "K=v\x00EMPTY=\x00" {
		t.Errorf("%q", b)
	}
	end := int(c.mem.Size())
	c.want(ErrnoFAULT, "args_get", end-8, 64)
	c.want(ErrnoFAULT, "args_get", 16, end-8)
	c.want(ErrnoFAULT, "args_sizes_get", end-3, 0)
	c.want(ErrnoFAULT, "args_sizes_get", 0, end)
}

func TestNewProcessErrors(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]ProcessConfig{
		"NUL byte":             {Args: []string{"a\x00b"}},
		"mount data":           {Root: FS{Mounts: []Mount{{GuestPath: "data", Host: dir}}}},
		"mount /x":             {Root: FS{Mounts: []Mount{{GuestPath: "/x", Host: dir + "/missing"}}}},
		"mount /":              {Root: FS{Mounts: []Mount{{GuestPath: "/", Device: DeviceNull}}}},
		"environment variable": {Env: []string{"A=\x00"}},
		"file descriptors":     {MaxFDs: 2},
	} {
		if p, err := NewProcess(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, %v", name, p, err)
		}
	}
}

func TestProcExitAndRaise(t *testing.T) {
	c := newCaller(t, ProcessConfig{})
	for code, want := range map[int]int{0: 0, 7: 7, 255: 255, 256: 0, 0xffffffff: 255} {
		if _, exit := c.call("proc_exit", code); exit != want {
			t.Errorf("proc_exit(%d) is %d, want %d", code, exit, want)
		}
	}
	for sig, want := range map[int]int{6: 134, 9: 137, 15: 143, 30: 128 + 31, 24: 128 + 25} {
		if _, exit := c.call("proc_raise", sig); exit != want {
			t.Errorf("proc_raise(%d) is %d, want %d", sig, exit, want)
		}
	}
	c.want(0, "proc_raise", 0)
	c.want(0, "proc_raise", 16)               // SIGCHLD
	c.want(ErrnoNOTSUP, "proc_raise", 18)     // SIGSTOP
	c.want(ErrnoINVAL, "proc_raise", 31)      // none such
	c.want(0, "sched_yield")                  // and nothing else
	c.want(ErrnoBADF, "sock_shutdown", 99, 0) // not open
	c.want(ErrnoNOTSOCK, "sock_shutdown", 1, 0)
}

func TestClocksAndRandom(t *testing.T) {
	random := strings.NewReader(strings.Repeat("r", 1<<16))
	c := newCaller(t, ProcessConfig{Rand: random})
	var last [4]uint64
	for clock := range 4 {
		c.want(0, "clock_res_get", clock, 0)
		c.want(0, "clock_time_get", clock, uint64(0), 8)
		if res := c.u64(0); res != 1 {
			t.Errorf("clock %d: resolution %d", clock, res)
		}
		last[clock] = c.u64(8)
	}
	if d := time.Since(time.Unix(0, int64(last[0]))); d < 0 || d > time.Minute {
		t.Errorf("realtime is off by %v", d)
	}
	if last[1] < uint64(monotonicOffset) || last[2] >= last[1] {
		t.Errorf("monotonic %d, cpu %d", last[1], last[2])
	}
	c.want(ErrnoINVAL, "clock_time_get", 4, uint64(0), 8)
	c.want(ErrnoFAULT, "clock_time_get", 0, uint64(0), -8&0xffffffff)
	c.want(0, "random_get", 0, 16)
	if b, _ := c.mem.Read(0, 16); string(b) != strings.Repeat("r", 16) {
		t.Errorf("%q", b)
	}
	c.want(ErrnoIO, "random_get", 0, 1<<16) // the source ends
	c.want(ErrnoFAULT, "random_get", 8, -8&0xffffffff)
}

func TestPollOneoff(t *testing.T) {
	c := newCaller(t, ProcessConfig{Stdin: strings.NewReader("abc"), Root: rootFS(t.TempDir())})
	file, errno := c.open(3, "f", int(oflagCreat))
	if errno != 0 {
		t.Fatal(errno)
	}
	c.write(file, "0123456789")
	c.want(0, "fd_seek", file, uint64(4), 0, 8)
	events, _ := c.poll(
		fdSub(1, eventRead, uint32(file)),
		fdSub(2, eventWrite, 1),
		fdSub(3, eventRead, 77),
		fdSub(4, eventRead, 1), // stdout cannot be read
		clockSub(5, clockMonotonic, uint64(time.Hour), 0),
		clockSub(6, clockProcessCPU, 1, 0),
		clockSub(7, 9, 1, 0),
		clockSub(8, clockRealtime, 1, 1), // long ago
		fdSub(9, eventRead, 3),           // a directory
	)
	want := []event{{1, 0, eventRead, 6, 0}, {2, 0, eventWrite, 0, 0}, {3, ErrnoBADF, eventRead, 0, 0}, {4, ErrnoBADF, eventRead, 0, 0},
		{6, ErrnoNOTSUP, eventClock, 0, 0}, {7, ErrnoINVAL, eventClock, 0, 0}, {8, 0, eventClock, 0, 0}, {9, ErrnoBADF, eventRead, 0, 0}}
	if len(events) != len(want) {
		t.Fatalf("%+v", events)
	}
	for i := range want {
		if events[i] != want[i] {
			t.Errorf("event %+v, want %+v", events[i], want[i])
		}
	}
	if events, _ := c.poll(fdSub(1, eventRead, 0)); len(events) != 1 || events[0] != (event{1, 0, eventRead, 3, 0}) {
		t.Errorf("stdin: %+v", events)
	}
	c.read(0)
	if events, _ := c.poll(fdSub(1, eventRead, 0)); len(events) != 1 || events[0] != (event{1, 0, eventRead, 0, 1}) {
		t.Errorf("stdin at its end: %+v", events)
	}
	for name, call := range map[string][]any{
		"no subscriptions": {0, 0, 0, 0},
		"too many":         {0, 0, maxSubscriptions + 1, 0},
	} {
		if errno, _ := c.call("poll_oneoff", call...); errno != ErrnoINVAL {
			t.Errorf("%s: %v", name, errno)
		}
	}
	if _, errno := c.poll(fdSub(1, 3, 0)); errno != ErrnoINVAL {
		t.Errorf("unknown kind: %v", errno)
	}
	c.want(ErrnoFAULT, "poll_oneoff", int(c.mem.Size())-47, 0, 1, 64)
	c.want(ErrnoFAULT, "poll_oneoff", 0, int(c.mem.Size())-31, 1, 64)
}

func TestWriterErrors(t *testing.T) {
	for err, want := range map[error]Errno{
		io.ErrClosedPipe:          ErrnoPIPE,
		syscall.EPIPE:             ErrnoPIPE,
		syscall.ENOSPC:            ErrnoNOSPC,
		errors.New("disk is sad"): ErrnoIO,
	} {
		r, w := io.Pipe()
		r.CloseWithError(err)
		c := newCaller(t, ProcessConfig{Stdout: w})
		if errno := c.write(1, "x"); errno != want {
			t.Errorf("%v: %v, want %v", err, errno, want)
		}
	}
	c := newCaller(t, ProcessConfig{Stdin: iotest.ErrReader(errors.New("torn"))})
	if _, errno := c.read(0); errno != ErrnoIO {
		t.Errorf("read error: %v", errno)
	}
}

func TestRights(t *testing.T) {
	c := newCaller(t, ProcessConfig{Root: rootFS(t.TempDir())})
	fd, errno := c.open(3, "f", int(oflagCreat))
	if errno != 0 {
		t.Fatal(errno)
	}
	c.write(fd, "x")
	c.want(0, "fd_fdstat_get", fd, 0)
	all := c.u64(8)
	c.want(0, "fd_fdstat_set_rights", fd, all&^rightFdWrite, uint64(0))
	c.want(ErrnoNOTCAPABLE, "fd_fdstat_set_rights", fd, all, uint64(0))
	if errno := c.write(fd, "x"); errno != ErrnoBADF {
		t.Errorf("write without the right: %v", errno)
	}
	c.want(0, "fd_fdstat_set_rights", 3, rightPathOpen, rightFdRead)
	c.want(ErrnoNOTCAPABLE, "path_unlink_file", 3, "f")
	if _, errno := c.open(3, "f", 0); errno != ErrnoNOTCAPABLE {
		t.Errorf("open for writing without the right: %v", errno)
	}
	if _, errno := c.openRead(3, "new", int(oflagCreat)); errno != ErrnoNOTCAPABLE {
		t.Errorf("create without the right: %v", errno)
	}
}

// TestUnstable checks the layouts that differ in snapshot 0.
func TestUnstable(t *testing.T) {
	c := newCaller(t, ProcessConfig{Root: rootFS(t.TempDir())})
	fd, _ := c.open(3, "f", int(oflagCreat))
	c.write(fd, "0123456789")
	call := func(name string, args ...uint64) {
		t.Helper()
		if errno, _ := invoke(c.ctx, unstable[name], c.mod, args); errno != 0 {
			t.Errorf("%s: %v", name, errno)
		}
	}
	const end = 1
	call("fd_seek", uint64(fd), ^uint64(0), end, 0)
	if c.u64(0) != 9 {
		t.Errorf("seek from the end: %d", c.u64(0))
	}
	call("fd_filestat_get", uint64(fd), 0)
	if kind, nlink, size := c.u32(16), c.u32(20), c.u64(24); kind != uint32(filetypeRegular) || nlink != 1 || size != 10 {
		t.Errorf("filestat: type %d, nlink %d, size %d", kind, nlink, size)
	}
	sub := make([]byte, 56)
	put64(sub, 42)
	put32(sub[24:], clockMonotonic)
	put64(sub[32:], 1)
	c.mem.Write(0, sub)
	call("poll_oneoff", 0, 128, 1, 64)
	if c.u32(64) != 1 || c.u64(128) != 42 {
		t.Errorf("%d events, userdata %d", c.u32(64), c.u64(128))
	}
}

// TestReaddirCookies reads with a buffer too small for two entries, seeks back,
// and goes on after entries are removed.
func TestReaddirCookies(t *testing.T) {
	root := t.TempDir()
	const n = 3 * maxWindow
	for i := range n {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("f%0*d", 5+i%7, i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := newCaller(t, ProcessConfig{Root: FS{Mounts: []Mount{{GuestPath: "/", Host: root}}}})
	entry := func(cookie uint64) (name string, next uint64) {
		const buf, used = 8192, 64
		c.want(0, "fd_readdir", 3, buf, 64, cookie, used)
		if c.u32(used) < 24 {
			return "", 0
		}
		b, _ := c.mem.Read(buf+24, c.u32(buf+16))
		return string(b), c.u64(buf)
	}
	seen := map[string]uint64{}
	var cookie uint64
	for {
		name, next := entry(cookie)
		if name == "" {
			break
		}
		if _, twice := seen[name]; twice {
			t.Fatalf("%s twice", name)
		}
		seen[name] = cookie
		cookie = next
	}
	if len(seen) != n+2 {
		t.Fatalf("%d entries, want %d", len(seen), n+2)
	}
	if w := len(c.p.fds.entries[3].file.(*openDir).list.window); w > maxWindow {
		t.Errorf("remembers %d entries", w)
	}
	// Far back means reading the directory again.
	for _, at := range []uint64{n, 1, n / 2, 2 * maxWindow, 2} {
		if got, _ := entry(at); seen[got] != at {
			t.Errorf("cookie %d is %s, which had %d", at, got, seen[got])
		}
	}
	c.want(0, "fd_readdir", 3, 8192, 64, ^uint64(0), 64)
}
