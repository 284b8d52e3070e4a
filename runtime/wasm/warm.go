package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
)

// A module that takes long to compile also takes long to decode and validate,
// which wazero does each time, cached code or not. So that its next start does
// neither, the cache keeps a stub of it: the module with every function body
// replaced by unreachable. wazero, which knows code by the digest of the module
// it is for, finds the code of the whole module under the digest of the stub,
// where it was put. What the code needs at run time (types, imports, globals,
// tables, data, names) is the same in both, but for data segments that are merged.
//
//	warm/<digest of the module>  checksum, a line of JSON (warmEntry), the stub
//	<wazero's folder>/<key>      the code, under the key of the stub
//
// A stub holds the digest of its module, so that no two modules have the same.
// It is only ever looked up, never compiled for use. Both files appear under
// their names complete and synced, the code first; entries are used if all
// checksums are right, and removed if not.
const (
	warmDir    = "warm"
	warmFormat = 1
	// maxCacheBytes is how large the cache may become; what was not used for
	// longest is removed first.
	maxCacheBytes = 2 << 30
	// warmTouch is how exactly it is known when an entry was used.
	warmTouch = time.Hour
)

// warmEntry says what belongs to a stub.
type warmEntry struct {
	Format int    `json:"format"`
	Digest string `json:"digest"` // of the module before it was rewritten
	Code   string `json:"code"`   // file, relative to the cache
	Size   int64  `json:"size"`   // of it
	// Head and Tail bound the machine code within it, which has a checksum of its
	// own; Sum is that of the rest, which says where functions begin.
	Head int64  `json:"head"`
	Tail int64  `json:"tail"`
	Sum  uint32 `json:"sum"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e *Engine) warmFile(digest string) (string, bool) {
	hexes, ok := strings.CutPrefix(digest, "sha256:")
	if _, err := hex.DecodeString(hexes); !ok || err != nil || len(hexes) != 2*sha256.Size || e.cache == nil {
		return "", false
	}
	return filepath.Join(e.cacheDir(), warmDir, hexes), true
}

// warm takes a module's code from the cache without its bytes, if it is there.
func (m *Module) warm(ctx context.Context) bool {
	e := m.engine
	file, ok := e.warmFile(m.digest)
	if !ok {
		return false
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	entry, stub, err := parseWarm(b)
	if err == nil && entry.Digest != m.digest {
		err = errWarm
	}
	if err == nil {
		err = entry.check(e.cacheDir())
	}
	var code wazero.CompiledModule
	if err == nil {
		code, err = e.lookup(ctx, e.cached, stub)
	}
	if err == nil {
		if serr := m.checkSignatures(code); serr != nil || !m.known(code) {
			_ = code.Close(ctx)
			err = errWarm // made by another version of us
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			_ = os.Remove(file)
			if filepath.IsLocal(entry.Code) {
				_ = os.Remove(filepath.Join(e.cacheDir(), entry.Code))
			}
		}
		return false
	}
	if fi, err := os.Stat(file); err == nil && time.Since(fi.ModTime()) > warmTouch {
		now := time.Now()
		_ = os.Chtimes(file, now, now)
		_ = os.Chtimes(filepath.Join(e.cacheDir(), entry.Code), now, now)
	}
	m.runtime, m.code, m.info = e.cached, code, inspect(code)
	return true
}

// known says whether the host still has every function that code imports.
func (m *Module) known(code wazero.CompiledModule) bool {
	for _, f := range code.ImportedFunctions() {
		module, name, _ := f.Import()
		if m.engine.hostFunction(module, name) == nil {
			return false
		}
	}
	return true
}

var errWarm = errors.New("the cached code cannot be used")

func parseWarm(b []byte) (entry warmEntry, stub []byte, err error) {
	sum, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(rest, castagnoli)) {
		return entry, nil, errWarm
	}
	line, stub, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || json.Unmarshal(line, &entry) != nil || entry.Format != warmFormat || !filepath.IsLocal(entry.Code) {
		return warmEntry{}, nil, errWarm
	}
	return entry, stub, nil
}

// check compares what wazero does not: where in the code functions begin.
func (w warmEntry) check(dir string) error {
	f, err := os.Open(filepath.Join(dir, w.Code))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != w.Size {
		return errWarm
	}
	sum, err := w.sum(f)
	if err == nil && sum != w.Sum {
		err = errWarm
	}
	return err
}

func (w warmEntry) sum(r io.ReaderAt) (uint32, error) {
	sum := crc32.New(castagnoli)
	for _, part := range [][2]int64{{0, w.Head}, {w.Tail, w.Size}} {
		if part[0] < 0 || part[1] < part[0] {
			return 0, errWarm
		}
		if _, err := io.Copy(sum, io.NewSectionReader(r, part[0], part[1]-part[0])); err != nil {
			return 0, err
		}
	}
	return sum.Sum32(), nil
}

// describe fills an entry in for a file of wazero's cache. Where it is not what
// is known of such files, all of it counts.
func (w *warmEntry) describe(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	w.Size = fi.Size()
	w.Head, w.Tail = w.Size, w.Size
	const magic = "WAZEVO"
	head := make([]byte, 300)
	if n, _ := f.ReadAt(head, 0); n == len(head) && string(head[:len(magic)]) == magic {
		at := len(magic) + 1 + int(head[len(magic)])
		offsets := int64(at) + 4 + 8*int64(binary.LittleEndian.Uint32(head[at:]))
		var length [8]byte
		if _, err := f.ReadAt(length[:], offsets); err == nil {
			code := int64(binary.LittleEndian.Uint64(length[:]))
			if end := offsets + 8 + code; code >= 0 && end > 0 && end <= w.Size {
				w.Head, w.Tail = offsets+8, end
			}
		}
	}
	w.Sum, err = w.sum(f)
	return err
}

// compileWarm has a process compile a module, and keeps its code for warm
// starts. original is the module before it was rewritten.
func (e *Engine) compileWarm(ctx context.Context, digest string, original, wasm []byte, most time.Duration) (wazero.CompiledModule, error) {
	file, ok := e.warmFile(digest)
	sum := sha256.Sum256(original)
	stub, err := stubOf(wasm, digest)
	if !ok || digest != "sha256:"+hex.EncodeToString(sum[:]) || err != nil {
		return e.compileInto(ctx, e.cached, e.cacheDir(), wasm, most)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(e.cacheDir(), "compile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	e.sweepCache()
	if err := e.compileElsewhere(ctx, filepath.Join(tmp, "code"), wasm, most); err != nil {
		return nil, err
	}
	code, err := onlyFile(filepath.Join(tmp, "code"))
	if err != nil {
		return nil, err
	}
	key, err := e.keyOf(ctx, filepath.Join(tmp, "key"), stub)
	if err != nil {
		return nil, err
	}
	entry := warmEntry{Format: warmFormat, Digest: digest, Code: key}
	if err := entry.describe(filepath.Join(tmp, "code", code)); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(tmp, "code", code), filepath.Join(e.cacheDir(), key)); err != nil {
		return nil, err
	}
	if err := entry.write(filepath.Join(tmp, "entry"), file, stub); err != nil {
		return nil, err
	}
	return e.lookup(ctx, e.cached, stub)
}

// write makes an entry appear under its name, complete.
func (w warmEntry) write(tmp, file string, stub []byte) error {
	line, err := json.Marshal(w)
	if err != nil {
		return err
	}
	rest := append(append(line, '\n'), stub...)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%08x\n", crc32.Checksum(rest, castagnoli))
	if err == nil {
		_, err = f.Write(rest)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, file)
	}
	return err
}

// keyOf finds out under which name wazero's cache keeps a module's code, by
// having it keep some.
func (e *Engine) keyOf(ctx context.Context, dir string, stub []byte) (string, error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", err
	}
	defer cache.Close(ctx)
	r := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(wazero.NewRuntimeConfigCompiler()).WithCompilationCache(cache))
	defer r.Close(ctx)
	code, err := r.CompileModule(ctx, stub)
	if err != nil {
		return "", err
	}
	if err := code.Close(ctx); err != nil {
		return "", err
	}
	return onlyFile(dir)
}

// onlyFile returns the one file below dir, relative to it.
func onlyFile(dir string) (string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, rerr := filepath.Rel(dir, path)
			files, err = append(files, rel), rerr
		}
		return err
	})
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("the compiler left %d files", len(files))
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// stubOf returns a module with empty functions, marked as the stub of the
// module with this digest.
func stubOf(wasm []byte, digest string) ([]byte, error) {
	const customSection, memorySection, codeSection, dataSection, dataCountSection = 0, 5, 10, 11, 12
	var pages uint64 // of the module's own memory
	counted := false // segments are known by number
	if len(wasm) < 8 {
		return nil, errWarm
	}
	out := append(make([]byte, 0, len(wasm)/4), wasm[:8]...)
	section := func(id byte, content []byte) {
		out = append(out, id)
		out = binary.AppendUvarint(out, uint64(len(content)))
		out = append(out, content...)
	}
	c := cursor{b: wasm, at: 8}
	for c.at < len(c.b) {
		start := c.at
		id, size := c.byte(), c.u32()
		end := c.at + size
		if c.bad || end < c.at || end > len(c.b) {
			return nil, errWarm
		}
		switch id {
		case codeSection:
			n := c.u32()
			if c.bad || n > size {
				return nil, errWarm
			}
			body := binary.AppendUvarint(nil, uint64(n))
			for range n {
				body = append(body, 3, 0, 0x00, 0x0b) // no locals; unreachable; end
			}
			section(codeSection, body)
		case memorySection:
			pages = ownMemoryPages(wasm[c.at:end])
			out = append(out, wasm[start:end]...)
		case dataCountSection:
			counted = true
			out = append(out, wasm[start:end]...)
		case dataSection:
			if merged := mergeData(wasm[c.at:end], pages); merged != nil && !counted {
				section(dataSection, merged)
			} else {
				out = append(out, wasm[start:end]...)
			}
		case customSection:
			if isNameSection(wasm[c.at:end]) {
				out = append(out, wasm[start:end]...)
			}
		default:
			out = append(out, wasm[start:end]...)
		}
		c.at = end
	}
	const name = "wasmpod.stub"
	section(customSection, append(append([]byte{byte(len(name))}, name...), digest...))
	return out, nil
}

func isNameSection(content []byte) bool { return bytes.HasPrefix(content, []byte("\x04name")) }

// sweepCache removes what was not used for longest while the cache is too
// large, and what dead processes have left.
func (e *Engine) sweepCache() {
	type cached struct {
		path string
		info fs.FileInfo
	}
	var files []cached
	var total int64
	_ = filepath.WalkDir(e.cacheDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), "compile-") {
				if time.Since(info.ModTime()) > 24*time.Hour { // longer than anything takes to compile
					_ = os.RemoveAll(path)
				}
				return fs.SkipDir
			}
			return nil
		}
		files, total = append(files, cached{path, info}), total+info.Size()
		return nil
	})
	slices.SortFunc(files, func(a, b cached) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, f := range files {
		if total <= maxCacheBytes {
			return
		}
		if os.Remove(f.path) == nil {
			total -= f.info.Size()
		}
	}
}
