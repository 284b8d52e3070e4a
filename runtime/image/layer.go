package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var (
	wasmMagic = []byte("\x00asm")
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// checkModule looks at the first bytes of what should be a core module.
func checkModule(head []byte) error {
	switch {
	case len(head) < 8 || !bytes.Equal(head[:4], wasmMagic):
		return errors.New("not a WebAssembly module")
	case bytes.Equal(head[4:8], []byte{1, 0, 0, 0}):
		return nil
	case bytes.Equal(head[6:8], []byte{1, 0}):
		return errors.New("a WebAssembly component; only core modules (WASI preview 1) can run here")
	}
	return fmt.Errorf("a WebAssembly module of the unknown version %d", uint32(head[4])|uint32(head[5])<<8|uint32(head[6])<<16|uint32(head[7])<<24)
}

// layerReader reads the records of one layer. What it returned is proved by
// the layer's digest only when verify has returned nil.
type layerReader struct {
	*tar.Reader
	desc v1.Descriptor
	file *os.File
	done func() error // with the decompressor
	raw  io.Reader    // bounded, hashed
	sum  hash.Hash
	left *io.LimitedReader // bounds the unpacked stream
}

// openLayer opens a tar layer, compressed or not. A hostile layer cannot
// yield more than the image may hold: files, and 2 KiB of headers for each.
func openLayer(ctx context.Context, l *layout, desc v1.Descriptor, lim limits) (*layerReader, error) {
	f, err := os.Open(l.blobPath(desc.Digest))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	lr := &layerReader{desc: desc, file: f, sum: sha256.New()}
	lr.raw = io.TeeReader(contextReader{ctx, io.LimitReader(f, desc.Size)}, lr.sum)
	if lr.Reader, lr.done, lr.left, err = unpackStream(lr.raw, lim); err != nil {
		f.Close()
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	return lr, nil
}

// maxZstdWindow bounds the memory that a layer can ask for; the zstd command
// does not make more than this without being told to.
const maxZstdWindow = 128 << 20

// unpackStream reads the tar archive in a stream, compressed or not.
func unpackStream(r io.Reader, lim limits) (*tar.Reader, func() error, *io.LimitedReader, error) {
	buf := bufio.NewReaderSize(r, 256<<10)
	head, err := buf.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, nil, err
	}
	var unpacked io.Reader = buf
	done := func() error { return nil }
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		gz, err := gzip.NewReader(buf)
		if err != nil {
			return nil, nil, nil, err
		}
		unpacked, done = gz, gz.Close
	case bytes.HasPrefix(head, zstdMagic):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, nil, err
		}
		unpacked, done = z, func() error { z.Close(); return nil }
	}
	left := &io.LimitedReader{R: unpacked, N: lim.imageBytes + 2048*int64(lim.files)}
	return tar.NewReader(left), done, left, nil
}

// next returns the next record, or io.EOF.
func (lr *layerReader) next() (*tar.Header, error) {
	hdr, err := lr.Next()
	if err == io.EOF {
		return nil, err
	}
	return hdr, lr.wrap(err)
}

// wrap says what layer an error is about.
func (lr *layerReader) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case lr.left.N <= 0:
		return fmt.Errorf("layer %s: %w: it unpacks to more than an image may hold", lr.desc.Digest, errTooLarge)
	}
	return fmt.Errorf("layer %s: %w", lr.desc.Digest, err)
}

// verify reads the rest of the layer and compares its digest.
func (lr *layerReader) verify() error {
	if _, err := io.Copy(io.Discard, lr.raw); err != nil {
		return fmt.Errorf("layer %s: %w", lr.desc.Digest, err)
	}
	if got := "sha256:" + hex.EncodeToString(lr.sum.Sum(nil)); got != lr.desc.Digest.String() {
		return fmt.Errorf("layer %s is damaged: its content has the digest %s", lr.desc.Digest, got)
	}
	return nil
}

func (lr *layerReader) Close() error {
	_ = lr.done()
	return lr.file.Close()
}

// contextReader ends a long read when nobody waits for it any more.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// cleanEntryName makes the name of a file in an image, as tar archives and
// configurations spell it ("./a", "/a", "a/", "../a"), a clean path relative
// to the image's root. "" is the root. Names cannot leave the root: ".." at
// the top is the top, as in a chroot.
func cleanEntryName(s string) (string, error) {
	switch {
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("the file name %q holds a NUL byte", s)
	case len(s) > maxGuestPathLen:
		return "", fmt.Errorf("the file name %q is longer than %d bytes", clip(s), maxGuestPathLen)
	}
	clean := strings.TrimPrefix(path.Clean("/"+s), "/")
	for part := range strings.SplitSeq(clean, "/") {
		if len(part) > maxGuestNameLen {
			return "", fmt.Errorf("the file name %q has a part longer than %d bytes", clip(s), maxGuestNameLen)
		}
	}
	if clean != "" && !fs.ValidPath(clean) {
		return "", fmt.Errorf("the file name %q is not valid UTF-8", clip(s))
	}
	return clean, nil
}
