package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A layer is unpacked once, into layers/<digest> of the store:
//
//	records   what its tar records say, in their order, with a checksum
//	f/<n>     the content of record n, where that is a file
//
// No name of the image ever becomes one of the host, and what the layers of an
// image add up to is computed from the records alone. It is a cache: what is
// missing or torn is made again from the blob. That a power failure tore it is
// noticed by the boot that it was made in, until it has been synced.
const (
	layersDir   = "layers"
	recordsFile = "records"
	// layerFormat changes when older unpacked layers cannot be read any more.
	layerFormat = 1
)

// layerRecord is one record of a layer.
type layerRecord struct {
	Name   string `json:"n"`
	Type   byte   `json:"t"`
	Link   string `json:"l,omitempty"`
	Mode   int64  `json:"m"`
	UID    int    `json:"u,omitempty"`
	GID    int    `json:"g,omitempty"`
	MTime  int64  `json:"at,omitempty"` // nanoseconds since 1970
	Size   int64  `json:"s,omitempty"`
	CRC    uint32 `json:"c,omitempty"` // Castagnoli, of the content
	Digest string `json:"d,omitempty"` // of what starts like a core module
	// NotModule is why the content is no module.
	NotModule string `json:"x,omitempty"`
}

func (r *layerRecord) mtime() time.Time { return time.Unix(0, r.MTime) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// scanner reads a layer's records, and keeps what its files hold if it has a
// directory for that.
type scanner struct {
	dir     string // "": only records
	lim     limits
	bytes   int64
	records []layerRecord
	buf     []byte
}

// scan reads a whole tar stream.
func (s *scanner) scan(tr *tar.Reader) error {
	s.buf = make([]byte, 64<<10)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(s.records) >= s.lim.files {
			return fmt.Errorf("%w: the image has more than %d files", errTooLarge, s.lim.files)
		}
		r := layerRecord{
			Name: hdr.Name, Type: hdr.Typeflag, Link: hdr.Linkname, Mode: hdr.Mode,
			UID: hdr.Uid, GID: hdr.Gid, Size: hdr.Size, MTime: hdr.ModTime.UnixNano(),
		}
		// Before anything is written: records of files are bounded by the names
		// that they may have.
		if len(r.Name) > 2*maxGuestPathLen || len(r.Link) > 2*maxGuestPathLen {
			return fmt.Errorf("the record %q has a name that is too long", clip(r.Name))
		}
		if hdr.Typeflag == tar.TypeReg || hdr.Typeflag == tar.TypeGNUSparse {
			if hdr.Size < 0 || hdr.Size > s.lim.imageBytes-s.bytes {
				return fmt.Errorf("%w: the image has more than %d bytes", errTooLarge, s.lim.imageBytes)
			}
			s.bytes += hdr.Size
			if err := s.content(&r, tr); err != nil {
				return fmt.Errorf("file %q: %w", clip(hdr.Name), err)
			}
		}
		s.records = append(s.records, r)
	}
}

func (s *scanner) content(r *layerRecord, tr io.Reader) (err error) {
	var out io.Writer = io.Discard
	if s.dir != "" {
		var f *os.File
		f, err = os.OpenFile(contentPath(s.dir, len(s.records)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
		if err != nil {
			return full(err, s.dir)
		}
		defer func() {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		out = f
	}
	head := make([]byte, min(8, r.Size))
	if _, err := io.ReadFull(tr, head); err != nil {
		return noEOF(err)
	}
	var sum hash.Hash
	if why := checkModule(head); why == nil {
		sum = sha256.New()
	} else {
		r.NotModule = why.Error()
	}
	for b := head; ; {
		r.CRC = crc32.Update(r.CRC, castagnoli, b)
		if sum != nil {
			sum.Write(b)
		}
		if _, err := out.Write(b); err != nil {
			return full(err, s.dir)
		}
		if err == io.EOF {
			err = nil
			break
		}
		var n int
		if n, err = tr.Read(s.buf); err != nil && err != io.EOF {
			return err
		}
		b = s.buf[:n]
	}
	if sum != nil {
		r.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}
	return err
}

// noEOF: an archive that ends within a file is broken.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func contentPath(dir string, record int) string {
	return filepath.Join(dir, "f", strconv.Itoa(record))
}

// recordsHeader is the first line of the file of records.
type recordsHeader struct {
	Format int    `json:"format"`
	Boot   string `json:"boot,omitempty"` // in which the files were written; empty: they have been synced
	CRC    uint32 `json:"crc"`            // of the lines that follow
}

// writeRecords completes an unpacked layer.
func writeRecords(dir string, records []layerRecord) error {
	raw, err := json.Marshal(records)
	if err != nil {
		return err
	}
	head, err := json.Marshal(recordsHeader{Format: layerFormat, Boot: bootID(), CRC: crc32.Checksum(raw, castagnoli)})
	if err != nil {
		return err
	}
	return full(os.WriteFile(filepath.Join(dir, recordsFile), append(append(head, '\n'), raw...), 0o644), dir)
}

var errStale = errors.New("the unpacked layer is of no use")

// readRecords reads the records of an unpacked layer. The error is errStale if
// it has to be unpacked again.
func readRecords(dir string, lim limits) ([]layerRecord, error) {
	f, err := os.Open(filepath.Join(dir, recordsFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	defer f.Close()
	b, err := readAtMost(f, int64(lim.files)*1024+maxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	var head recordsHeader
	line, raw, ok := cutLine(b)
	if err := json.Unmarshal(line, &head); !ok || err != nil || head.Format != layerFormat || head.CRC != crc32.Checksum(raw, castagnoli) {
		return nil, errStale
	}
	if head.Boot != "" && head.Boot != bootID() {
		return nil, errStale
	}
	var records []layerRecord
	if err := json.Unmarshal(raw, &records); err != nil {
		return nil, errStale
	}
	return records, nil
}

func cutLine(b []byte) (line, rest []byte, ok bool) {
	for i, c := range b {
		if c == '\n' {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}

// bootID names the running kernel's boot; where there is no such thing, every
// process has its own.
var bootID = sync.OnceValue(func() string {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil && len(b) >= 36 {
		return string(b[:36])
	}
	return fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
})

// settle syncs unpacked layers and says so in their records, so that they are
// good after the next boot too.
func settle(dirs []string) {
	for _, dir := range dirs {
		if syncTree(dir) != nil {
			return
		}
		f, err := os.ReadFile(filepath.Join(dir, recordsFile))
		if err != nil {
			continue
		}
		var head recordsHeader
		line, raw, _ := cutLine(f)
		if json.Unmarshal(line, &head) != nil || head.Boot != bootID() {
			continue
		}
		head.Boot = ""
		if line, err = json.Marshal(head); err == nil {
			_ = writeFileAtomic(filepath.Join(dir, recordsFile), append(append(line, '\n'), raw...))
		}
	}
}

// settleLater settles layers in the background. A process that ends before
// leaves them as they are, good until the next boot.
func (s *Service) settleLater(dirs []string) {
	if len(dirs) > 0 && s.cfg.Settle {
		go settle(dirs)
	}
}

// layerDir is where a layer lies unpacked; empty if there is no store to keep
// it in.
func (s *Service) layerDir(h v1.Hash) string {
	if s.cfg.Root == "" {
		return ""
	}
	return filepath.Join(s.stores[0].dir, layersDir, h.Hex)
}

// layerRecords returns what the records of a layer say: from where it lies
// unpacked, else from its blob, whose digest is then verified.
func (s *Service) layerRecords(ctx context.Context, l *layout, desc v1.Descriptor) ([]layerRecord, error) {
	if dir := s.layerDir(desc.Digest); dir != "" {
		if records, err := readRecords(dir, s.limits); err == nil {
			return records, nil
		}
	}
	return scanBlob(ctx, l, desc, s.limits, "")
}

func scanBlob(ctx context.Context, l *layout, desc v1.Descriptor, lim limits, dir string) ([]layerRecord, error) {
	lr, err := openLayer(ctx, l, desc, lim)
	if err != nil {
		return nil, err
	}
	defer lr.Close()
	sc := scanner{dir: dir, lim: lim}
	if err := lr.wrap(sc.scan(lr.Reader)); err != nil {
		return nil, err
	}
	return sc.records, lr.verify()
}

// unpackedLayer makes sure that a layer lies unpacked, and returns where and
// what its records say. Without a store to keep it in, dir is empty.
func (s *Service) unpackedLayer(ctx context.Context, l *layout, desc v1.Descriptor) (dir string, records []layerRecord, err error) {
	dir = s.layerDir(desc.Digest)
	if dir == "" {
		return "", nil, nil
	}
	// One container of an image at a time unpacks its layers; the others find them.
	s.unpacking.Lock()
	defer s.unpacking.Unlock()
	if records, err := readRecords(dir, s.limits); err == nil {
		return dir, records, nil
	}
	st, err := s.stage(ctx)
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return "", nil, nil // a store that cannot be written to
		}
		return "", nil, err
	}
	defer st.close()
	into, err := st.layer(desc.Digest)
	if err != nil {
		return "", nil, err
	}
	if records, err = scanBlob(ctx, l, desc, s.limits, into); err != nil {
		return "", nil, err
	}
	if err := writeRecords(into, records); err != nil {
		return "", nil, err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return "", nil, err
	}
	defer lock.release()
	if err := s.adoptLayer(into, desc.Digest); err != nil {
		return "", nil, err
	}
	s.settleLater([]string{dir})
	return dir, records, nil
}

// layer makes a directory for a layer to be unpacked into.
func (st *staging) layer(h v1.Hash) (string, error) {
	dir := filepath.Join(st.dir, "layer-"+h.Hex)
	if err := os.MkdirAll(filepath.Join(dir, "f"), 0o755); err != nil {
		return "", fmt.Errorf("image store: %w", full(err, dir))
	}
	return dir, nil
}

// adoptLayer moves an unpacked layer to its place. The store's lock is held.
func (s *Service) adoptLayer(from string, h v1.Hash) error {
	to := s.layerDir(h)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	if _, err := os.Lstat(to); err == nil {
		if _, err := readRecords(to, s.limits); err == nil {
			return nil // somebody was faster
		}
		// Away in one step: a reader never sees half of it under its name. What a
		// container shows is left for a later sweep.
		away := from + ".old"
		lock, busy := leaseAll(to)
		if busy {
			away = to + "-" + filepath.Base(filepath.Dir(from))
		}
		err := os.Rename(to, away)
		lock.release()
		if err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return nil
}
