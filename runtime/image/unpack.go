package image

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Unpack fills dir, which must be empty or not exist, with the image's files:
// the private root of one container. The entry module is left out, as are
// devices, pipes, sockets, owners and set-id bits. Symlinks are kept as they
// are, pointing wherever they point: whoever opens paths in the guest's name
// has to confine them. Nothing is ever written outside dir.
//
// After an error dir is empty again, except for what could not be removed.
func (s *Service) Unpack(ctx context.Context, img Image, dir string) (err error) {
	c, err := s.locate(ctx, img)
	if err != nil {
		return err
	}
	return s.unpack(ctx, c, img, dir)
}

func (s *Service) unpack(ctx context.Context, c content, img Image, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("unpack image %q: %w", img.Ref, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack image %q: %w", img.Ref, err)
	}
	defer root.Close()
	if names, err := rootNames(root); err != nil {
		return fmt.Errorf("unpack image %q: %w", img.Ref, err)
	} else if len(names) > 0 {
		return fmt.Errorf("unpack image %q: %s is not empty", img.Ref, dir)
	}
	u := &unpacker{root: root, lim: s.limits}
	if err = c.unpack(ctx, u); err == nil {
		err = u.finish()
	}
	if err != nil {
		names, _ := rootNames(root)
		for _, name := range names {
			_ = root.RemoveAll(name)
		}
		return fmt.Errorf("unpack image %q: %w", img.Ref, err)
	}
	return nil
}

func rootNames(root *os.Root) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// locate finds the content of an image that was resolved before, perhaps by
// another process.
func (s *Service) locate(ctx context.Context, img Image) (content, error) {
	if !filepath.IsAbs(img.Ref) {
		// The name may have moved on to another image since; the digest has
		// not.
		if i := strings.LastIndexByte(img.ID, '@'); i >= 0 {
			for _, l := range s.stores {
				if ins := s.inspection(l, img.ID[i+1:]); ins != nil {
					return ins, nil
				}
			}
		}
	}
	ref := img.ID
	if filepath.IsAbs(img.Ref) {
		ref = img.Ref
	}
	now, c, err := s.lookup(ctx, ref)
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return nil, inspectError(img.Ref, errors.New("it was removed"))
	case now.ID != img.ID:
		return nil, inspectError(img.Ref, errors.New("it was replaced"))
	}
	return c, nil
}

// unpack implements content.
func (ins *inspection) unpack(ctx context.Context, u *unpacker) error {
	t, unpacked, err := ins.service.readTree(ctx, ins, true)
	if err != nil {
		return err
	}
	// What is left to write of each layer, by record.
	pending := make([]map[int]string, len(ins.layers))
	links := map[string]string{}
	first := map[*fileBody]string{}
	err = t.each(func(name string, n *node) error {
		switch n.kind {
		case dirNode:
			return u.dir(name, n.mode, n.mtime)
		case linkNode:
			return u.symlink(n.target, name)
		}
		f := n.file
		if f.layer == ins.entry.layer && f.record == ins.entry.record {
			return nil
		}
		if old, ok := first[f]; ok {
			links[name] = old
			return nil
		}
		first[f] = name
		if pending[f.layer] == nil {
			pending[f.layer] = map[int]string{}
		}
		pending[f.layer][f.record] = name
		return nil
	})
	if err != nil {
		return err
	}
	for i, files := range pending {
		if len(files) == 0 {
			continue
		}
		if unpacked[i] != "" {
			err = u.copyLayer(ctx, unpacked[i], files, t.bodies(i))
		} else {
			err = ins.unpackLayer(ctx, u, i, files)
		}
		if err != nil {
			return err
		}
	}
	for name, old := range links {
		if err := u.root.Link(old, name); err != nil {
			return err
		}
	}
	u.dirs = append(u.dirs, unpackedDir{".", t.root.mode, t.root.mtime})
	if ins.volume {
		return ins.unpackRaw(ctx, u)
	}
	return nil
}

func (ins *inspection) unpackLayer(ctx context.Context, u *unpacker, layer int, files map[int]string) error {
	lr, err := openLayer(ctx, ins.store, ins.layers[layer], u.lim)
	if err != nil {
		return err
	}
	defer lr.Close()
	for record := 0; len(files) > 0; record++ {
		hdr, err := lr.next()
		if err == io.EOF {
			return fmt.Errorf("layer %s changed while it was read", lr.desc.Digest)
		}
		if err != nil {
			return err
		}
		name, ok := files[record]
		if !ok {
			continue
		}
		delete(files, record)
		if err := u.file(name, hdr.Mode, hdr.ModTime, lr); err != nil {
			return err
		}
	}
	// The digest of the whole layer proves what was just written.
	return lr.verify()
}

// copyLayer copies files of an unpacked layer, and compares their checksums.
func (u *unpacker) copyLayer(ctx context.Context, dir string, files map[int]string, bodies map[int]*fileBody) error {
	for record, name := range files {
		b := bodies[record]
		f, err := os.Open(contentPath(dir, record))
		if err != nil {
			return fmt.Errorf("unpacked layer: %w", err)
		}
		sum := crc32.New(castagnoli)
		err = u.file(name, b.mode, b.mtime, io.TeeReader(contextReader{ctx, f}, sum))
		f.Close()
		if err != nil {
			return err
		}
		if sum.Sum32() != b.crc {
			_ = os.Remove(filepath.Join(dir, recordsFile)) // it is unpacked again next time
			return fmt.Errorf("file %q of the unpacked layer is damaged", name)
		}
	}
	return nil
}

// unpacker writes below one directory. It counts what it writes itself,
// whatever the source claims.
type unpacker struct {
	root  *os.Root
	lim   limits
	files int
	bytes int64
	dirs  []unpackedDir
}

type unpackedDir struct {
	name  string
	mode  int64
	mtime time.Time
}

func (u *unpacker) count() error {
	if u.files++; u.files > u.lim.files {
		return fmt.Errorf("%w: more than %d files", errTooLarge, u.lim.files)
	}
	return nil
}

// dir makes a directory that is writable for now; finish gives it its mode.
func (u *unpacker) dir(name string, mode int64, mtime time.Time) error {
	if err := u.count(); err != nil {
		return err
	}
	u.dirs = append(u.dirs, unpackedDir{name, mode, mtime})
	return u.root.Mkdir(name, 0o700)
}

func (u *unpacker) symlink(target, name string) error {
	if err := u.count(); err != nil {
		return err
	}
	return u.root.Symlink(target, name)
}

func (u *unpacker) file(name string, mode int64, mtime time.Time, r io.Reader) error {
	if err := u.count(); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, u.lim.imageBytes-u.bytes+1))
	if u.bytes += n; err == nil && u.bytes > u.lim.imageBytes {
		err = fmt.Errorf("%w: more than %d bytes", errTooLarge, u.lim.imageBytes)
	}
	if err == nil {
		// The node itself must be able to read what it unpacked.
		err = f.Chmod(fs.FileMode(mode)&0o777 | 0o400)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return u.times(name, mtime)
}

func (u *unpacker) times(name string, mtime time.Time) error {
	if mtime.IsZero() || mtime.Unix() < 0 {
		mtime = time.Unix(0, 0)
	}
	if err := u.root.Chtimes(name, mtime, mtime); err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return nil
}

// finish gives directories their modes and times, the deepest first. The node
// keeps its own access, so that it can remove them again without being root.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		mode := fs.FileMode(d.mode)&0o777 | 0o700
		if d.mode&0o1000 != 0 {
			mode |= fs.ModeSticky
		}
		if err := u.root.Chmod(path.Clean(d.name), mode); err != nil {
			return err
		}
		if d.mtime.IsZero() {
			continue
		}
		if err := u.times(d.name, d.mtime); err != nil {
			return err
		}
	}
	return nil
}
