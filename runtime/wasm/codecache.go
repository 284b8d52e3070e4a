package wasm

import (
	"bufio"
	"io"
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero"
)

// codeCache is between wazero and the files of its cache. wazero reads where each
// function begins in steps of 8 bytes, a system call each, and machine code into
// fresh memory, a page fault for every 4 KiB. Read through this, the one comes
// from a buffer, and the other lies in huge pages where the host has them for who
// asks: fewer faults, and afterwards fewer misses of the processor's table of
// pages, so that guests run faster too.
type codeCache struct{ files codeFiles }

// codeFiles is what wazero calls a file cache (internal/filecache.Cache).
type codeFiles interface {
	Get(key [32]byte) (content io.ReadCloser, ok bool, err error)
	Add(key [32]byte, content io.Reader) error
	Delete(key [32]byte) error
}

// readFaster puts a codeCache before the files of a cache that no runtime uses
// yet. It does nothing and is false where wazero keeps them in another way than it
// is known here; everything works without it.
func readFaster(cache wazero.CompilationCache) bool {
	v := reflect.ValueOf(cache)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	field := v.Elem().FieldByName("fileCache")
	if !field.IsValid() || field.Kind() != reflect.Interface || field.IsNil() {
		return false
	}
	field = reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	files, ok := field.Interface().(codeFiles)
	faster := reflect.ValueOf(&codeCache{files})
	if !ok || !faster.Type().AssignableTo(field.Type()) {
		return false
	}
	field.Set(faster)
	return true
}

// Get implements codeFiles.
func (c *codeCache) Get(key [32]byte) (io.ReadCloser, bool, error) {
	f, ok, err := c.files.Get(key)
	if err != nil || !ok {
		return f, ok, err
	}
	return &codeReader{file: f, buf: bufio.NewReaderSize(f, codeBuffer)}, true, nil
}

// Add implements codeFiles.
func (c *codeCache) Add(key [32]byte, content io.Reader) error { return c.files.Add(key, content) }

// Delete implements codeFiles.
func (c *codeCache) Delete(key [32]byte) error { return c.files.Delete(key) }

const (
	codeBuffer = 32 << 10
	// hugePage is the least that is worth huge pages.
	hugePage = 2 << 20
	// codeChunk is read at a time: as much as stays in the processor's cache.
	codeChunk = 256 << 10
)

type codeReader struct {
	file io.ReadCloser
	buf  *bufio.Reader
}

// Read fills p as far as there is anything: wazero takes less for the end.
func (r *codeReader) Read(p []byte) (n int, err error) {
	if len(p) >= hugePage {
		preferHugePages(p)
	}
	for n < len(p) && err == nil {
		var more int
		more, err = io.ReadFull(r.buf, p[n:min(len(p), n+codeChunk)])
		n += more
	}
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

func (r *codeReader) Close() error { return r.file.Close() }
