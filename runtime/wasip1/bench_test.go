package wasip1

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// hostCall is one host call of a benchmark's guest with constant arguments,
// except that a fromMemory is loaded from that address.
type hostCall struct {
	name string
	args []any // int, uint64 or fromMemory
}

type fromMemory uint32

// Where the guest's memory has what. The results of calls go to 64.
const (
	benchIovec = 0
	benchText  = 1024
	benchSubs  = 2048
	benchBuf   = 8192
)

// hostCalls are what is measured: the calls of one round, and before them those
// of the preparation.
var hostCalls = []struct {
	name           string
	prepare, round []hostCall
}{
	{"clock_time_get", nil, []hostCall{{"clock_time_get", []any{1, uint64(0), 64}}}},
	{"random_get_32", nil, []hostCall{{"random_get", []any{64, 32}}}},
	{"args_sizes_get", nil, []hostCall{{"args_sizes_get", []any{64, 72}}}},
	{"fd_prestat_get", nil, []hostCall{{"fd_prestat_get", []any{3, 64}}}},
	{"fd_fdstat_get_stdout", nil, []hostCall{{"fd_fdstat_get", []any{1, 64}}}},
	{"fd_read_stdin_4k", nil, []hostCall{{"fd_read", []any{0, benchIovec, 1, 64}}}},
	{"fd_write_stdout_100", nil, []hostCall{{"fd_write", []any{1, benchIovec + 8, 1, 64}}}},
	{"fd_read_file_end", openFile, []hostCall{{"fd_read", []any{fromMemory(128), benchIovec, 1, 64}}}},
	{"fd_pread_4k", openFile, []hostCall{{"fd_pread", []any{fromMemory(128), benchIovec, 1, uint64(0), 64}}}},
	{"fd_pwrite_4k", openFile, []hostCall{{"fd_pwrite", []any{fromMemory(128), benchIovec, 1, uint64(0), 64}}}},
	{"fd_seek", openFile, []hostCall{{"fd_seek", []any{fromMemory(128), uint64(0), 0, 64}}}},
	{"fd_filestat_get", openFile, []hostCall{{"fd_filestat_get", []any{fromMemory(128), 256}}}},
	{"fd_readdir_10", []hostCall{openCall(benchText+5, 6, 192, 2)}, []hostCall{{"fd_readdir", []any{fromMemory(192), benchBuf, 4096, uint64(0), 64}}}},
	{"path_filestat_get", nil, []hostCall{{"path_filestat_get", []any{3, 1, benchText, 5, 256}}}},
	{"path_open_and_fd_close", nil, []hostCall{openCall(benchText, 5, 64, 0), {"fd_close", []any{fromMemory(64)}}}},
	{"poll_oneoff_due", nil, []hostCall{{"poll_oneoff", []any{benchSubs, 3072, 1, 64}}}},
	{"sched_yield", nil, []hostCall{{"sched_yield", nil}}},
}

var openFile = []hostCall{openCall(benchText, 5, 128, 0)}

func openCall(path, length, result, oflags int) hostCall {
	const rights = rightFdRead | rightFdWrite | rightFdSeek | rightFdTell | rightFdFilestatGet | rightFdReaddir
	r := uint64(rights)
	if oflags != 0 {
		r &^= rightFdWrite
	}
	return hostCall{"path_open", []any{3, 1, path, length, oflags, r, r, 0, result}}
}

// BenchmarkHostCall measures whole host calls, made by a compiled guest, and
// those of wazero's built-in host in the same way; ours also on an overlay that
// shows the same files.
func BenchmarkHostCall(b *testing.B) {
	for _, c := range hostCalls {
		guest := hostCallGuest(c.prepare, c.round)
		for _, host := range []string{"ours", "overlay", "wazero"} {
			b.Run(c.name+"/"+host, func(b *testing.B) {
				root := b.TempDir()
				benchTree(b, root)
				ctx := context.Background()
				r := wazero.NewRuntime(ctx)
				defer r.Close(ctx)
				config := anonymous
				if host != "wazero" {
					fs := rootFS(root)
					if host == "overlay" {
						fs = overlayFS(overlayOf(b, root))
					}
					p, err := NewProcess(ProcessConfig{Stdin: zeros{}, Stdout: io.Discard, Prompt: true, Root: fs})
					if err != nil {
						b.Fatal(err)
					}
					defer p.Close()
					ctx = WithProcess(ctx, p)
					err = Instantiate(ctx, r)
					if err != nil {
						b.Fatal(err)
					}
				} else {
					wasi_snapshot_preview1.MustInstantiate(ctx, r)
					config = config.WithStdin(zeros{}).WithStdout(io.Discard).WithRandSource(rand.Reader).WithSysNanotime().WithSysWalltime().WithSysNanosleep().
						WithFSConfig(wazero.NewFSConfig().WithDirMount(root, "/"))
				}
				mod, err := r.InstantiateWithConfig(ctx, guest, config)
				if err != nil {
					b.Fatal(err)
				}
				m := mod.Memory()
				m.Write(benchIovec, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, benchBuf), 4096))
				m.Write(benchIovec+8, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, benchBuf), 100))
				m.WriteString(benchText, "d/e/fd/list")
				m.Write(benchSubs, clockSub(1, clockMonotonic, 0, 0))
				if _, err := mod.ExportedFunction("prepare").Call(ctx, 1); err != nil {
					b.Fatal(err)
				}
				round := mod.ExportedFunction("round")
				b.ReportAllocs()
				b.ResetTimer()
				if _, err := round.Call(ctx, uint64(b.N)); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// benchTree makes the file d/e/f and the directory d/list.
func benchTree(b *testing.B, root string) {
	for _, dir := range []string{"d/e", "d/list"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	names := []string{"d/e/f"}
	for i := range 10 {
		names = append(names, "d/list/file"+string(rune('0'+i)))
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, 4096), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// hostCallGuest encodes a module with two functions, prepare(n) and round(n),
// which make their calls n times and trap if one fails.
func hostCallGuest(prepare, round []hostCall) []byte {
	vec := func(items ...[]byte) []byte {
		b := binary.AppendUvarint(nil, uint64(len(items)))
		for _, item := range items {
			b = append(b, item...)
		}
		return b
	}
	sized := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	section := func(id byte, content []byte) []byte { return append([]byte{id}, sized(content)...) }

	const valueI32, valueI64 = 0x7f, 0x7e
	types := [][]byte{{0x60, 1, valueI32, 0}}
	var imports [][]byte
	index := map[string]int{}
	for _, c := range append(prepare[:len(prepare):len(prepare)], round...) {
		if _, ok := index[c.name]; ok {
			continue
		}
		index[c.name] = len(imports)
		params := []byte(lookupFunction(c.name).params)
		t := append([]byte{0x60}, sized(params)...)
		for i, p := range params {
			t[2+i] = valueI32
			if p == 'I' {
				t[2+i] = valueI64
			}
		}
		types = append(types, append(t, 1, valueI32))
		imports = append(imports, append(append(sized([]byte(ModuleName)), sized([]byte(c.name))...), 0, byte(len(imports)+1)))
	}
	body := func(calls []hostCall) []byte {
		const block, loop, end, br, brIf, void, get, set = 0x02, 0x03, 0x0b, 0x0c, 0x0d, 0x40, 0x20, 0x21
		b := []byte{0, block, void, loop, void, get, 0, 0x45 /* eqz */, brIf, 1}
		for _, c := range calls {
			for _, a := range c.args {
				switch a := a.(type) {
				case int:
					b = appendSigned(append(b, 0x41), int64(a))
				case uint64:
					b = appendSigned(append(b, 0x42), int64(a))
				case fromMemory:
					b = append(appendSigned(append(b, 0x41), int64(a)), 0x28, 2, 0)
				}
			}
			b = append(b, 0x10, byte(index[c.name]), 0x04 /* if */, void, 0 /* unreachable */, end)
		}
		return sized(append(b, get, 0, 0x41, 1, 0x6b /* sub */, set, 0, br, 0, end, end, end))
	}
	first := byte(len(imports))
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, vec(types...))...)
	b = append(b, section(2, vec(imports...))...)
	b = append(b, section(3, vec([]byte{0}, []byte{0}))...)
	b = append(b, section(5, vec([]byte{0, 1}))...)
	b = append(b, section(7, vec(append(sized([]byte("memory")), 2, 0),
		append(sized([]byte("prepare")), 0, first), append(sized([]byte("round")), 0, first+1)))...)
	return append(b, section(10, vec(body(prepare), body(round)))...)
}

// appendSigned appends v as signed LEB128.
func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func BenchmarkNewProcess(b *testing.B) {
	fs := rootFS(b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		p, err := NewProcess(ProcessConfig{Root: fs})
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
