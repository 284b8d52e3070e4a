// Command bomb does to its host what its first argument says, for ever unless
// there is nothing left to do. What shall go on after an error, ignores it.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 random_get
func randomGet(buf unsafe.Pointer, n uint32) uint32

//go:wasmimport wasi_snapshot_preview1 poll_oneoff
func pollOneoff(in, out unsafe.Pointer, n uint32, events unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 fd_readdir
func fdReaddir(fd int32, buf unsafe.Pointer, n uint32, cookie uint64, used unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 fd_renumber
func fdRenumber(from, to int32) uint32

var bombs = map[string]func(arg int){
	"fds":      fds,
	"flood":    flood,
	"drip":     drip,
	"deep":     deep,
	"names":    names,
	"links":    links,
	"paths":    paths,
	"churn":    churn,
	"mutate":   mutate,
	"attack":   attack,
	"proc":     proc,
	"poll":     poll,
	"random":   random,
	"readdir":  readdir,
	"termlog":  termlog,
	"sparse":   sparse,
	"eat":      eat,
	"renumber": renumber,
	"exit":     os.Exit,
}

func main() {
	arg := 0
	if len(os.Args) > 2 {
		arg, _ = strconv.Atoi(os.Args[2])
	}
	bombs[os.Args[1]](arg)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// fds opens files until it may not, and then goes on trying; with an argument it
// ends then, and its exit code is 0 if the reason was the limit.
func fds(end int) {
	f, err := os.Create("/many")
	for n := 0; ; n++ {
		if err != nil && end > 0 {
			if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
				fail(err)
			}
			fmt.Println(n, err)
			return
		}
		keep = append(keep, f)
		if n%3 == 0 {
			f, err = os.Open("/")
		} else {
			f, err = os.Open("/many")
		}
	}
}

var keep []any // from the garbage collector, which would close files

func flood(bytes int) {
	line := []byte(strings.Repeat(strings.Repeat("x", 1023)+"\n", 64))
	for n := 0; bytes == 0 || n < bytes; n += len(line) {
		os.Stdout.Write(line)
	}
}

func drip(int) {
	for {
		os.Stderr.Write([]byte("\n"))
	}
}

// deep makes a tree deeper than any path can name: what there is becomes the
// content of a new directory, again and again.
func deep(levels int) {
	os.Mkdir("/top", 0o755)
	for range levels {
		if err := errors.Join(os.Mkdir("/new", 0o755), os.Rename("/top", "/new/d"), os.Rename("/new", "/top")); err != nil {
			fail(err)
		}
	}
}

func names(int) {
	long := strings.Repeat("n", 250)
	for n := 0; ; n++ {
		f, err := os.Create("/" + long + strconv.Itoa(n%10000))
		if err == nil {
			f.Close()
		}
		os.Create("/" + strings.Repeat("\xff", n%300))
		os.Stat("/" + strings.Repeat("x/", n%2047))
		os.Stat("/a\x00b")
		os.Mkdir("/"+strings.Repeat("m", 4096-n%10), 0o755)
	}
}

// links makes links whose resolution is as long as it can be.
func links(int) {
	os.MkdirAll("/l/"+strings.Repeat("d/", 300), 0o755)
	for i := range 39 {
		os.Symlink(strings.Repeat("d/", 300)+strings.Repeat("../", 300)+"l"+strconv.Itoa(i+1), "/l/l"+strconv.Itoa(i))
	}
	os.Symlink("loop", "/l/loop")
	os.Symlink("/proc/self/root/etc/passwd", "/l/proc")
	os.Symlink("../../../../../../etc/passwd", "/l/up")
	for {
		for _, name := range []string{"l0", "l1", "loop", "proc", "up"} {
			if _, err := os.ReadFile("/l/" + name); err == nil {
				fail(fmt.Errorf("read through %s", name))
			}
		}
	}
}

// paths walks as long ways as a path can say.
func paths(int) {
	os.Mkdir("/p", 0o755)
	long := "/" + strings.Repeat("p/../", 800) + "p"
	for {
		if _, err := os.Stat(long); err != nil {
			fail(err)
		}
	}
}

// churn makes and removes files and directories.
func churn(int) {
	for n := 0; ; n++ {
		dir := "/c" + strconv.Itoa(n%100)
		os.Mkdir(dir, 0o755)
		os.WriteFile(dir+"/f", []byte("x"), 0o644)
		os.Rename(dir+"/f", dir+"/g")
		os.Link(dir+"/g", dir+"/h")
		os.Truncate(dir+"/g", 1<<40)
		os.RemoveAll(dir)
	}
}

// mutate changes the tree of a shared volume under whoever walks through it: what
// was a directory a moment ago is a link out of the volume, and the other way
// round. Arguments are what the links shall lead to.
func mutate(int) {
	targets := append([]string{"../../outside", "../outside", "../../../../../../..", "/proc/self/root"}, os.Args[2:]...)
	for n := 0; ; n++ {
		os.MkdirAll("/v/a/b/c", 0o777)
		os.WriteFile("/v/a/b/secret", []byte("inside"), 0o666)
		os.Symlink(targets[n%len(targets)], "/v/link")
		for range 20 {
			os.Rename("/v/a/b", "/v/kept")
			os.Rename("/v/link", "/v/a/b")
			os.Rename("/v/a/b", "/v/link")
			os.Rename("/v/kept", "/v/a/b")
			os.Rename("/v/a", "/v/moved")
			os.Rename("/v/moved", "/v/a")
			os.Rename("/v/a/b/c", "/v/c")
			os.Rename("/v/c", "/v/a/b/c")
		}
		os.Remove("/v/link")
	}
}

//go:wasmimport wasi_snapshot_preview1 path_open
func pathOpen(dir int32, dirflags uint32, path unsafe.Pointer, n uint32, oflags uint32, rights, inheriting uint64, fdflags uint32, opened unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 path_link
func pathLink(from int32, flags uint32, path unsafe.Pointer, n uint32, to int32, newPath unsafe.Pointer, newN uint32) uint32

// attack reads and writes where mutate is at work, for as many rounds as it is
// told, and fails if it ever sees or reaches what is not the volume's.
func attack(rounds int) {
	seen := 0
	look := func(how string, b []byte, err error) {
		if err == nil && string(b) != "inside" && len(b) > 0 {
			fail(fmt.Errorf("%s: read %q", how, b))
		}
		if err == nil {
			seen++
		}
	}
	open := func(dir int, path string, oflags uint32) (int, bool) {
		var fd uint32
		const rights = 1<<1 | 1<<14 // read, readdir
		errno := pathOpen(int32(dir), 1, unsafe.Pointer(unsafe.StringData(path)), uint32(len(path)), oflags, rights, 1<<30-1, 0, unsafe.Pointer(&fd))
		return int(fd), errno == 0
	}
	for range rounds {
		for _, path := range []string{
			"/v/a/b/secret", "/v/a/b/c/../secret", "/v/a/b/c/../../b/secret", "/v/a/../a/b/secret", "/v/link/secret",
			"/v/link/outside/secret", "/v/a/b/outside/secret", "/v/a/b/c/../../../../outside/secret",
		} {
			b, err := os.ReadFile(path)
			look(path, b, err)
		}
		// Through a directory that is held open while it moves.
		if dir, ok := open(3, "v/a/b/c", 2); ok {
			for _, path := range []string{"..", "../secret", "../../outside/secret", "../../../outside/secret", "./../..", "/v/a/b/secret"} {
				if _, ok := open(dir, path, 0); ok {
					fail(fmt.Errorf("opened %s from a directory", path))
				}
			}
			syscall.Close(dir)
		}
		// Files that are made go where the volume is, or nowhere.
		os.WriteFile("/v/a/b/planted", []byte("inside"), 0o666)
		os.Mkdir("/v/a/b/dir", 0o777)
		os.Symlink("x", "/v/a/b/symlink")
		os.Rename("/v/a/b/planted", "/v/a/b/c/planted")
		os.Chtimes("/v/a/b/secret", time.Unix(1, 0), time.Unix(1, 0))
		os.Truncate("/v/a/b/secret2", 0)
		const from, to = "v/a/b/secret", "v/hard"
		pathLink(3, 1, unsafe.Pointer(unsafe.StringData(from)), uint32(len(from)), 3, unsafe.Pointer(unsafe.StringData(to)), uint32(len(to)))
		b, err := os.ReadFile("/v/hard")
		look("hard link", b, err)
		os.Remove("/v/hard")
		for _, path := range []string{"/v/a/b/secret", "/v/a/b/c/planted", "/v/a/b/planted", "/v/a/b/symlink", "/v/a/b/dir"} {
			os.Remove(path)
		}
		if entries, err := os.ReadDir("/v/a/b"); err == nil {
			for _, e := range entries {
				if e.Name() == "outside" || e.Name() == "usr" { // the container has neither
					fail(fmt.Errorf("listed the host's %s", e.Name()))
				}
			}
		}
	}
	if seen == 0 {
		fail(errors.New("never read the file that is inside: nothing was tested"))
	}
}

// proc reads what a process file system on the host would lead it to; further
// arguments are host paths of files that it must not reach.
func proc(int) {
	for _, dir := range []string{"root", "cwd", "task/1/root", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8", "fd/9"} {
		for _, secret := range os.Args[2:] {
			for _, path := range []string{"/v/self/", "/v/thread-self/", "/v/1/"} {
				if b, err := os.ReadFile(path + dir + secret); err == nil {
					fail(fmt.Errorf("%s: read %q", path+dir+secret, b))
				}
				if b, err := os.ReadFile(path + dir + "/../../../../../.." + secret); err == nil {
					fail(fmt.Errorf("%s: read %q", path+dir+secret, b))
				}
			}
		}
	}
	if _, err := os.ReadFile("/v/self/stat"); err != nil {
		fail(err)
	}
}

// poll asks for thousands of events at a time: of its streams, of descriptors
// that are not there, of clocks.
func poll(int) {
	const count, size = 4096, 48
	in, out := make([]byte, count*size), make([]byte, count*32)
	var events uint32
	for {
		for i := range count {
			s := in[i*size:][:size]
			clear(s)
			s[8] = byte(i % 3)
			switch {
			case i%3 == 0:
				binary.LittleEndian.PutUint32(s[16:], 1)
				binary.LittleEndian.PutUint64(s[24:], uint64(i)*1000)
			default:
				binary.LittleEndian.PutUint32(s[16:], uint32(i%8))
			}
		}
		pollOneoff(unsafe.Pointer(&in[0]), unsafe.Pointer(&out[0]), count, unsafe.Pointer(&events))
	}
}

func random(mib int) {
	buf := make([]byte, mib<<20)
	for {
		randomGet(unsafe.Pointer(&buf[0]), uint32(len(buf)))
		randomGet(unsafe.Pointer(&buf[0]), 1<<32-1)
	}
}

// readdir fills a directory, and lists it: in order, from the middle, with
// buffers too small for an entry, with cookies that were never given.
func readdir(entries int) {
	dir := "/r"
	if _, err := os.Stat("/v"); err == nil {
		dir = "/v/r" // in the volume
	}
	os.Mkdir(dir, 0o755)
	for i := range entries {
		f, err := os.Create(dir + "/" + strings.Repeat("e", 100) + strconv.Itoa(i))
		if err != nil {
			fail(err)
		}
		f.Close()
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != entries {
		fail(fmt.Errorf("%d entries, want %d: %w", len(list), entries, err))
	}
	fd, err := syscall.Open(dir, syscall.O_RDONLY, 0)
	if err != nil {
		fail(err)
	}
	buf := make([]byte, 64<<10)
	var used uint32
	for i := 0; ; i++ {
		cookie := uint64(i*7919) % uint64(entries)
		if i%100 == 0 {
			cookie = 1<<63 + uint64(i)
		}
		fdReaddir(int32(fd), unsafe.Pointer(&buf[0]), uint32(i%len(buf)), cookie, unsafe.Pointer(&used))
	}
}

func termlog(mib int) {
	f, err := os.OpenFile("/dev/termination-log", os.O_WRONLY, 0)
	if err != nil {
		fail(err)
	}
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = 't'
	}
	for range mib {
		if _, err := f.Write(chunk); err != nil {
			fail(err)
		}
	}
	os.Exit(7)
}

// sparse makes files as large as a number can say, and reads and writes at
// their ends.
func sparse(int) {
	buf := make([]byte, 1<<20)
	for {
		f, err := os.Create("/sparse")
		if err != nil {
			fail(err)
		}
		f.Truncate(1<<63 - 1)
		f.Truncate(1 << 42)
		f.Seek(1<<42-10, io.SeekStart)
		f.Write([]byte("0123456789"))
		f.ReadAt(buf, 1<<41)
		f.Close()
	}
}

func eat(int) {
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
}

// renumber moves descriptors about, onto themselves and onto the preopen.
func renumber(int) {
	os.WriteFile("/f", nil, 0o644)
	for {
		a, _ := syscall.Open("/f", syscall.O_RDONLY, 0)
		b, _ := syscall.Open(filepath.Clean("/f"), syscall.O_RDONLY, 0)
		fdRenumber(int32(a), int32(b))
		fdRenumber(int32(b), int32(b))
		fdRenumber(int32(b), 1<<30)
		fdRenumber(-1, int32(b))
		syscall.Close(b)
	}
}
