package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// removePod removes the volumes of one pod below base, and the pod's directory
// if nothing else is in it.
func removePod(base, uid string) error {
	root, err := os.OpenRoot(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	dir := filepath.Join(podsDir, uid)
	if err := removeTree(root, path.Join(dir, volumesDir)); err != nil {
		return err
	}
	if err := root.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !isNotEmpty(err) {
		return err
	}
	return nil
}

// RemoveAll removes a directory that guests may have filled, as os.RemoveAll
// does, but also one nested deeper than there are file descriptors, or with
// directories in it that cannot be read. The last element of path is not
// followed if it is a symlink. A path that does not exist is no error. Nothing
// may write to the tree meanwhile.
func RemoveAll(path string) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return removeTree(root, filepath.Base(path))
}

// removeTree removes dir, which a guest may have filled, with everything in it.
// It follows no symlinks, and needs the same few file descriptors and the same
// short paths however deep a guest has nested directories: the children of a
// directory that cannot be removed are moved up beside it. A dir that does not
// exist is no error.
func removeTree(root *os.Root, dir string) error {
	info, err := root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return root.Remove(dir)
	}
	t := &treeRemover{root: root, dir: dir}
	for {
		names, err := t.batch(dir)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return t.unlink(dir)
		}
		for _, name := range names {
			if err := t.remove(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
}

type treeRemover struct {
	root  *os.Root
	dir   string
	moved uint64
}

// batchSize bounds how many names are held at a time.
const batchSize = 1024

// batch lists some of the entries of dir.
func (t *treeRemover) batch(dir string) ([]string, error) {
	f, err := t.root.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		if err = t.root.Chmod(dir, 0o700); err == nil {
			f, err = t.root.Open(dir)
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(batchSize)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

// remove removes name, an entry of t.dir, after moving its children up if it is
// a directory that has any.
func (t *treeRemover) remove(name string) error {
	for {
		unlinkErr := t.unlink(name)
		if unlinkErr == nil {
			return nil
		}
		info, err := t.root.Lstat(name)
		if err != nil || !info.IsDir() {
			return unlinkErr
		}
		// To take children out, a directory must be writable.
		if info.Mode()&0o700 != 0o700 {
			if err := t.root.Chmod(name, 0o700); err != nil {
				return err
			}
		}
		children, err := t.batch(name)
		if err != nil {
			return err
		}
		if len(children) == 0 {
			return unlinkErr
		}
		for _, child := range children {
			if err := t.moveUp(path.Join(name, child)); err != nil {
				return err
			}
		}
	}
}

// unlink removes what is not a directory with something in it.
func (t *treeRemover) unlink(name string) error {
	err := t.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		// The directory above may have been made read-only.
		if cerr := t.root.Chmod(path.Dir(name), 0o700); cerr == nil {
			if err = t.root.Remove(name); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
	}
	return err
}

// moveUp removes name, or moves it to t.dir if it is a directory that cannot be
// removed yet.
func (t *treeRemover) moveUp(name string) error {
	err := t.unlink(name)
	if err == nil {
		return nil
	}
	info, serr := t.root.Lstat(name)
	if serr != nil || !info.IsDir() {
		return err
	}
	if info.Mode()&0o700 != 0o700 { // a directory is written to when it moves
		if err := t.root.Chmod(name, 0o700); err != nil {
			return err
		}
	}
	for range 1 << 16 {
		t.moved++
		to := path.Join(t.dir, fmt.Sprintf(".removing-%d", t.moved))
		// A guest may have taken the name already.
		if _, err := t.root.Lstat(to); err == nil {
			continue
		}
		return t.root.Rename(name, to)
	}
	return fmt.Errorf("no free name to move %s to", name)
}
