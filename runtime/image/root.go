package image

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Root is what containers of an image see: its files, where their contents lie.
// The contents are shared by all containers of all images that have the layer,
// and stay where they are until Close, whatever becomes of the image. Nobody may
// write to them.
type Root struct {
	// Files has directories before what is in them. The entry module is left out, but
	// see VolumeRoot, as are devices, pipes and sockets.
	Files []RootFile
	// Shared says that the contents lie in the store. Otherwise they were copied
	// for this Root alone.
	Shared bool

	leases []fileLock
}

// RootFile is a file, directory or symbolic link of a Root.
type RootFile struct {
	Name     string // slash-separated, relative; "" is the root
	Mode     uint32 // permission bits, setgid of directories, sticky
	UID, GID uint32
	MTime    time.Time
	Target   string       // of a symbolic link
	Content  *RootContent // of a regular file; hard links have the same
}

// RootContent is the content of a regular file.
type RootContent struct {
	Path string // absolute
	Size int64
	crc  uint32
	dir  string // of the unpacked layer; empty: it was copied just now
}

// Close ends the use of the contents.
func (r *Root) Close() {
	for _, l := range r.leases {
		l.release()
	}
	r.leases = nil
}

// Root makes the files of an image ready to be shown to containers. Layers are
// unpacked if they are not yet. Where there is no store to unpack them into, or
// the image is a directory of the host, the files are copied into the directory
// copies, which must be empty or not exist.
func (s *Service) Root(ctx context.Context, img Image, copies string) (*Root, error) {
	c, err := s.locate(ctx, img)
	if err != nil {
		return nil, err
	}
	return s.root(ctx, c, img, copies)
}

func (s *Service) root(ctx context.Context, c content, img Image, copies string) (*Root, error) {
	if ins, ok := c.(*inspection); ok && !ins.hasRaw() {
		r, err := ins.root(ctx)
		if err != nil {
			return nil, fmt.Errorf("unpack image %q: %w", img.Ref, err)
		}
		if r != nil {
			return r, nil
		}
	}
	if err := s.unpack(ctx, c, img, copies); err != nil {
		return nil, err
	}
	r, err := copiedRoot(copies)
	if err != nil {
		return nil, fmt.Errorf("unpack image %q: %w", img.Ref, err)
	}
	return r, nil
}

// maxRootTries bounds how often layers may go away between being found and being
// held.
const maxRootTries = 10

// root is nil if the layers have no place to lie in.
func (ins *inspection) root(ctx context.Context) (*Root, error) {
	for range maxRootTries {
		t, dirs, err := ins.service.readTree(ctx, ins, true)
		if err != nil {
			return nil, err
		}
		r := &Root{Shared: true}
		held, err := r.hold(dirs)
		switch {
		case err != nil:
			r.Close()
			return nil, err
		case !held:
			r.Close()
			continue
		}
		if !r.add(t, dirs, ins.entry) {
			r.Close()
			return nil, nil
		}
		return r, nil
	}
	return nil, errors.New("its layers are removed as fast as they are unpacked")
}

// hold keeps unpacked layers from being removed.
func (r *Root) hold(dirs []string) (held bool, err error) {
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		lock, ok, err := lease(dir)
		if err != nil || !ok {
			return false, err
		}
		r.leases = append(r.leases, lock)
	}
	return true, nil
}

// add lists a tree. It is false if a content lies nowhere.
func (r *Root) add(t *tree, dirs []string, e entry) (ok bool) {
	contents := map[*fileBody]*RootContent{}
	file := func(name string, n *node, special uint32) RootFile {
		return RootFile{
			Name: name, Mode: uint32(n.mode) & (0o777 | special), UID: uint32(n.uid), GID: uint32(n.gid), MTime: sane(n.mtime),
		}
	}
	const sticky, setGroup = 0o1000, 0o2000
	r.Files = append(r.Files, file("", t.root, sticky|setGroup))
	err := t.each(func(name string, n *node) error {
		switch n.kind {
		case dirNode:
			r.Files = append(r.Files, file(name, n, sticky|setGroup))
			return nil
		case linkNode:
			l := file(name, n, sticky)
			l.Target = n.target
			r.Files = append(r.Files, l)
			return nil
		}
		b := n.file
		if b.layer == e.layer && b.record == e.record {
			return nil
		}
		dir := dirs[b.layer]
		if dir == "" {
			return errStale
		}
		if contents[b] == nil {
			contents[b] = &RootContent{Path: contentPath(dir, b.record), Size: b.size, crc: b.crc, dir: dir}
		}
		f := file(name, &node{mode: b.mode, uid: b.uid, gid: b.gid, mtime: b.mtime}, sticky)
		f.Content = contents[b]
		r.Files = append(r.Files, f)
		return nil
	})
	return err == nil
}

func sane(at time.Time) time.Time {
	if at.IsZero() || at.Unix() < 0 {
		return time.Unix(0, 0)
	}
	return at
}

// Check compares the content with its checksum. A layer that is damaged is
// unpacked again for the next container.
func (c *RootContent) Check() error {
	if c.dir == "" {
		return nil
	}
	f, err := os.Open(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(sum, struct{ io.Reader }{f}, make([]byte, 64<<10))
	if err != nil {
		return err
	}
	if n != c.Size || sum.Sum32() != c.crc {
		_ = os.Remove(filepath.Join(c.dir, recordsFile))
		return fmt.Errorf("%s of the unpacked layer is damaged", c.Path)
	}
	return nil
}

// copiedRoot lists a directory that Unpack has filled.
func copiedRoot(dir string) (*Root, error) {
	r := &Root{}
	contents := map[uint64]*RootContent{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if name == "." {
			name = ""
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := RootFile{Name: filepath.ToSlash(name), Mode: uint32(tarMode(info.Mode())), MTime: info.ModTime()}
		switch info.Mode().Type() {
		case 0:
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok || contents[st.Ino] == nil {
				c := &RootContent{Path: path, Size: info.Size()}
				if ok {
					contents[st.Ino] = c
				}
				f.Content = c
			} else {
				f.Content = contents[st.Ino]
			}
		case fs.ModeSymlink:
			if f.Target, err = os.Readlink(path); err != nil {
				return err
			}
		case fs.ModeDir:
		default:
			return nil
		}
		r.Files = append(r.Files, f)
		return nil
	})
	return r, err
}

// lease keeps an unpacked layer from being removed until it is released, by any
// process. It is not ok if the layer is just going away.
func lease(dir string) (lock fileLock, ok bool, err error) {
	f, err := os.Open(dir)
	if isAbsent(err) {
		return fileLock{}, false, nil
	}
	if err != nil {
		return fileLock{}, false, err
	}
	if err := flock(f, syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return fileLock{}, false, nil
		}
		// A file system without locks: then nobody can know what is shown.
		return fileLock{}, true, nil
	}
	// It may have been moved away before it was locked.
	mine, err := f.Stat()
	if err == nil {
		var now fs.FileInfo
		if now, err = os.Stat(dir); err == nil && os.SameFile(mine, now) {
			return fileLock{f}, true, nil
		}
	}
	f.Close()
	if err != nil && !isAbsent(err) {
		return fileLock{}, false, err
	}
	return fileLock{}, false, nil
}

// leaseAll keeps containers from beginning to show a layer that is to be removed,
// until it is released. It is busy if one shows it.
func leaseAll(path string) (lock fileLock, busy bool) {
	f, err := os.Open(path)
	if err != nil {
		return fileLock{}, false
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fileLock{}, err == syscall.EWOULDBLOCK
	}
	return fileLock{f}, false
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
