package wasip1

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Names of the host modules.
const (
	ModuleName          = "wasi_snapshot_preview1"
	UnstableModuleName  = "wasi_unstable"
	ExtensionModuleName = "wasmpod"
)

// function is one host function: it converts between the guest's memory and
// the system half. Arguments are on the stack in order, integers as uint64.
type function struct {
	name   string
	params string // i: i32, I: i64
	call   func(ctx context.Context, p *Process, m memory, a []uint64) Errno
}

// functions are all 46 of preview 1.
var functions = []function{
	{"args_get", "ii", argsGet},
	{"args_sizes_get", "ii", argsSizesGet},
	{"environ_get", "ii", environGet},
	{"environ_sizes_get", "ii", environSizesGet},
	{"clock_res_get", "ii", clockResGet},
	{"clock_time_get", "iIi", clockTimeGet},
	{"fd_advise", "iIIi", fdAdvise},
	{"fd_allocate", "iII", fdAllocate},
	{"fd_close", "i", fdClose},
	{"fd_datasync", "i", fdSync},
	{"fd_fdstat_get", "ii", fdFdstatGet},
	{"fd_fdstat_set_flags", "ii", fdFdstatSetFlags},
	{"fd_fdstat_set_rights", "iII", fdFdstatSetRights},
	{"fd_filestat_get", "ii", fdFilestatGet},
	{"fd_filestat_set_size", "iI", fdFilestatSetSize},
	{"fd_filestat_set_times", "iIIi", fdFilestatSetTimes},
	{"fd_pread", "iiiIi", fdPread},
	{"fd_prestat_get", "ii", fdPrestatGet},
	{"fd_prestat_dir_name", "iii", fdPrestatDirName},
	{"fd_pwrite", "iiiIi", fdPwrite},
	{"fd_read", "iiii", fdRead},
	{"fd_readdir", "iiiIi", fdReaddir},
	{"fd_renumber", "ii", fdRenumber},
	{"fd_seek", "iIii", fdSeek},
	{"fd_sync", "i", fdSync},
	{"fd_tell", "ii", fdTell},
	{"fd_write", "iiii", fdWrite},
	{"path_create_directory", "iii", pathCreateDirectory},
	{"path_filestat_get", "iiiii", pathFilestatGet},
	{"path_filestat_set_times", "iiiiIIi", pathFilestatSetTimes},
	{"path_link", "iiiiiii", pathLink},
	{"path_open", "iiiiiIIii", pathOpen},
	{"path_readlink", "iiiiii", pathReadlink},
	{"path_remove_directory", "iii", pathRemoveDirectory},
	{"path_rename", "iiiiii", pathRename},
	{"path_symlink", "iiiii", pathSymlink},
	{"path_unlink_file", "iii", pathUnlinkFile},
	{"poll_oneoff", "iiii", pollOneoff},
	{"proc_exit", "i", procExit},
	{"proc_raise", "i", procRaise},
	{"random_get", "ii", randomGet},
	{"sched_yield", "", schedYield},
	{"sock_accept", "iii", sockAccept},
	{"sock_recv", "iiiiii", sockRecv},
	{"sock_send", "iiiii", sockSend},
	{"sock_shutdown", "ii", sockShutdown},
}

// unstable are the functions that differ in wasi_unstable (snapshot 0).
var unstable = map[string]function{
	"fd_seek":           {"fd_seek", "iIii", fdSeekUnstable},
	"fd_filestat_get":   {"fd_filestat_get", "ii", fdFilestatGetUnstable},
	"path_filestat_get": {"path_filestat_get", "iiiii", pathFilestatGetUnstable},
	"poll_oneoff":       {"poll_oneoff", "iiii", pollOneoffUnstable},
}

// wasmEdge are the socket calls that WasmEdge has added to preview 1.
var wasmEdge = []function{
	{"sock_open", "iii", sockOpen},
	{"sock_bind", "iii", sockBind},
	{"sock_listen", "ii", sockListen},
	{"sock_connect", "iii", sockConnect},
	{"sock_accept.v1", "ii", sockAcceptV1},
	{"sock_send_to", "iiiiiii", sockSendTo},
	{"sock_recv_from", "iiiiiiii", sockRecvFrom},
	{"sock_recv_from.v1", "iiiiiii", sockRecvFromV1},
	{"sock_getlocaladdr", "iii", sockGetLocalAddr},
	{"sock_getlocaladdr.v1", "iiii", sockGetLocalAddrV1},
	{"sock_getpeeraddr", "iii", sockGetPeerAddr},
	{"sock_getpeeraddr.v1", "iiii", sockGetPeerAddrV1},
	{"sock_getsockopt", "iiiii", sockGetSockOpt},
	{"sock_setsockopt", "iiiii", sockSetSockOpt},
	{"sock_getaddrinfo", "iiiiiiii", sockGetAddrInfo},
	{"sock_open_v2", "iii", sockOpen},
	{"sock_bind_v2", "iii", sockBind},
	{"sock_listen_v2", "ii", sockListen},
	{"sock_connect_v2", "iii", sockConnect},
	{"sock_accept_v2", "iii", sockAccept},
	{"sock_recv_v2", "iiiiii", sockRecv},
	{"sock_recv_from_v2", "iiiiiiii", sockRecvFrom},
	{"sock_send_v2", "iiiii", sockSend},
	{"sock_send_to_v2", "iiiiiii", sockSendTo},
	{"sock_getlocaladdr_v2", "iii", sockGetLocalAddr},
	{"sock_getpeeraddr_v2", "iii", sockGetPeerAddr},
}

// ImportName says by which name of its host module a function is known that a
// guest imports by this name and with so many parameters: WasmEdge's two
// versions have functions of one name and different types.
func ImportName(module, name string, params int) string {
	if module == ModuleName {
		switch {
		case name == "sock_accept" && params == 2,
			name == "sock_recv_from" && params == 7,
			name == "sock_getlocaladdr" && params == 4,
			name == "sock_getpeeraddr" && params == 4:
			return name + ".v1"
		}
	}
	return name
}

// errNoProcess is an embedder's mistake, which no guest can cause.
var errNoProcess = errors.New("wasip1: host call without a Process in its context (WithProcess)")

// Instantiate registers the host modules wasi_snapshot_preview1, wasi_unstable
// and wasmpod in r. Call it once per runtime; guests are told apart by the
// Process in the context that they are instantiated and called with. Guests
// that use version 1 of WasmEdge's sockets need their imports renamed, see
// [ImportName].
func Instantiate(ctx context.Context, r wazero.Runtime) error {
	older := make([]function, len(functions))
	for i, f := range functions {
		if other, ok := unstable[f.name]; ok {
			f = other
		}
		older[i] = f
	}
	for _, module := range []struct {
		name      string
		functions []function
	}{
		{ModuleName, slices.Concat(functions, wasmEdge)},
		{UnstableModuleName, older},
		{ExtensionModuleName, extensions},
	} {
		b := r.NewHostModuleBuilder(module.name)
		for _, f := range module.functions {
			params := make([]api.ValueType, len(f.params))
			for i, c := range f.params {
				params[i] = api.ValueTypeI32
				if c == 'I' {
					params[i] = api.ValueTypeI64
				}
			}
			results := []api.ValueType{api.ValueTypeI32}
			if f.name == "proc_exit" {
				results = nil
			}
			b = b.NewFunctionBuilder().WithGoModuleFunction(hostFunction(f), params, results).Export(f.name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("host module %s: %w", module.name, err)
		}
	}
	return nil
}

func hostFunction(f function) api.GoModuleFunc {
	worth := 0
	if strings.HasPrefix(f.name, "path_") {
		worth = pathBytesWorth
	}
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		p := processFrom(ctx)
		if p == nil {
			panic(errNoProcess)
		}
		if p.away.context != nil {
			ctx = p.away.context
		}
		p.away.call, p.away.memory, p.away.args = f.call, mod, stack
		errno := f.call(ctx, p, guestMemory(mod), stack)
		if len(stack) > 0 {
			stack[0] = uint64(errno)
		}
		if errno == ErrnoINTR {
			handleSignals(ctx)
		}
		if p.exhausted {
			p.settle(ctx)
		}
		if worth > 0 {
			p.work(ctx, worth)
		}
	}
}

// memory is the calling guest's memory. Every access is checked, and a bad one
// is EFAULT. Slices of it are views, valid during the call.
type memory struct{ api.Memory }

func guestMemory(mod api.Module) memory {
	mem := mod.Memory()
	if mem == nil || reflect.ValueOf(mem).IsNil() { // a module without memory
		return memory{}
	}
	return memory{mem}
}

func (m memory) bytes(ptr, n uint32) ([]byte, Errno) {
	if m.Memory == nil {
		return nil, ErrnoFAULT
	}
	b, ok := m.Read(ptr, n)
	if !ok {
		return nil, ErrnoFAULT
	}
	return b, 0
}

// array is bytes for count items of size bytes each.
func (m memory) array(ptr, count, size uint32) ([]byte, Errno) {
	if uint64(count)*uint64(size) > 1<<32-1 {
		return nil, ErrnoFAULT
	}
	return m.bytes(ptr, count*size)
}

// path copies a path argument. It only guards the copy; the walk checks more.
func (m memory) path(ptr, n uint32) (string, Errno) {
	b, errno := m.bytes(ptr, n)
	switch {
	case errno != 0:
		return "", errno
	case n > maxPath:
		return "", ErrnoNAMETOOLONG
	}
	return string(b), 0
}

// maxIovecs is IOV_MAX. maxTransfer is what one call moves at most, as on
// Linux: the count must fit and the call must end.
const (
	maxIovecs   = 1024
	maxTransfer = 0x7ffff000
)

// iovecs returns the buffers of an array of iovecs, in a slice that the next
// call reuses:
//
//	ptr → | buf u32 | len u32 | buf u32 | len u32 | …
func (p *Process) iovecsOf(m memory, ptr, count uint32) ([][]byte, Errno) {
	if count > maxIovecs {
		return nil, ErrnoINVAL
	}
	list, errno := m.array(ptr, count, 8)
	if errno != 0 {
		return nil, errno
	}
	bufs := p.iovecs[:0]
	room := uint32(maxTransfer)
	if count == 1 { // as good as always
		b, errno := m.bytes(le32(list), le32(list[4:]))
		if errno != 0 {
			return nil, errno
		}
		if uint64(len(b)) > uint64(room) {
			b = b[:room]
		}
		p.iovecs = append(bufs, b)
		return p.iovecs, 0
	}
	for ; len(list) > 0; list = list[8:] {
		b, errno := m.bytes(le32(list), le32(list[4:]))
		if errno != 0 {
			return nil, errno
		}
		b = b[:min(uint64(len(b)), uint64(room))]
		room -= uint32(len(b))
		bufs = append(bufs, b)
	}
	if !holdGrown(p, p.iovecs, bufs) {
		return nil, ErrnoNOMEM
	}
	p.iovecs = bufs
	return bufs, 0
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func put16(b []byte, v uint16) { binary.LittleEndian.PutUint16(b, v) }
func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
func put64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }
