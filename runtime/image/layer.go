package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
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
	raw  io.Reader // bounded, hashed
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
	buf := bufio.NewReaderSize(lr.raw, 64<<10)
	lr.raw = buf
	head, err := buf.Peek(4)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	var unpacked io.Reader = buf
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		gz, err := gzip.NewReader(buf)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
		unpacked = gz
	case bytes.HasPrefix(head, zstdMagic):
		f.Close()
		return nil, fmt.Errorf("layer %s: zstd layers are not supported: build the image with gzip", desc.Digest)
	}
	lr.left = &io.LimitedReader{R: unpacked, N: lim.imageBytes + 2048*int64(lim.files)}
	lr.Reader = tar.NewReader(lr.left)
	return lr, nil
}

// next returns the next record, or io.EOF.
func (lr *layerReader) next() (*tar.Header, error) {
	hdr, err := lr.Next()
	switch {
	case err == nil || err == io.EOF:
		return hdr, err
	case lr.left.N <= 0:
		return nil, fmt.Errorf("layer %s: %w: it unpacks to more than an image may hold", lr.desc.Digest, errTooLarge)
	}
	return nil, fmt.Errorf("layer %s: %w", lr.desc.Digest, err)
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

func (lr *layerReader) Close() error { return lr.file.Close() }

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
