package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// SubPath is a part of a volume that is ready to be mounted. Name must be
// opened with os.Root in Root, at once or again each time: then a guest that
// puts a symlink in its place cannot lead out of the volume.
type SubPath struct {
	Root string // directory on the host
	Name string // local name in Root
	Dir  bool   // a directory; else a file of any kind
}

// OpenRoot opens a SubPath that is a directory.
func (s SubPath) OpenRoot() (*os.Root, error) {
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenRoot(s.Name)
}

// SubPathError says that a subPath cannot be mounted. Its text is what users
// see, and says nothing about the host; the cause is for the log.
type SubPathError struct {
	Volume    string
	Container string
	Err       error
}

func (e *SubPathError) Error() string {
	return fmt.Sprintf("failed to prepare subPath for volumeMount %q of container %q", e.Volume, e.Container)
}

func (e *SubPathError) Unwrap() error { return e.Err }

// SubPath prepares part of a volume for the next attempt of a container
// (VOL-30). What does not exist is made: directories with the mode of the
// volume's. A symlink is followed within the volume only. Of a configMap-like
// volume the container gets the version that is current now and keeps it, until
// SubPath is called for its next attempt (VOL-15).
//
// An empty subPath is the volume itself, which may be a file if it is a
// hostPath. Errors are *SubPathError; it becomes CreateContainerConfigError.
func (m *Manager) SubPath(podUID types.UID, container, volume, subPath string) (SubPath, error) {
	s, err := m.subPath(podUID, container, volume, subPath)
	if err != nil {
		return SubPath{}, &SubPathError{Volume: volume, Container: container, Err: err}
	}
	return s, nil
}

func (m *Manager) subPath(podUID types.UID, container, volume, subPath string) (SubPath, error) {
	p, unlock := m.lock(podUID)
	defer unlock()
	v := m.get(p, volume)
	if v == nil {
		return SubPath{}, errors.New("volume is not mounted")
	}
	name := path.Clean(subPath)
	if subPath == "" || name == "." {
		return wholeVolume(v.Path)
	}
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return SubPath{}, fmt.Errorf("subPath %q is not local", subPath)
	}
	root, err := os.OpenRoot(v.Path)
	if err != nil {
		return SubPath{}, err
	}
	defer root.Close()

	if v.pins != nil {
		return m.pinned(root, v, pin{container, subPath}, name)
	}
	if err := makeDirs(root, name); err != nil {
		return SubPath{}, err
	}
	return describe(root, v.Path, name)
}

func wholeVolume(dir string) (SubPath, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return SubPath{}, err
	}
	if info.IsDir() {
		return SubPath{Root: dir, Name: ".", Dir: true}, nil
	}
	return SubPath{Root: filepath.Dir(dir), Name: filepath.Base(dir)}, nil
}

func describe(root *os.Root, dir, name string) (SubPath, error) {
	info, err := root.Stat(name)
	if err != nil {
		return SubPath{}, err
	}
	return SubPath{Root: dir, Name: name, Dir: info.IsDir()}, nil
}

// makeDirs makes name and the directories above it where they do not exist,
// with the mode of the root and whatever the umask.
func makeDirs(root *os.Root, name string) error {
	_, err := root.Stat(name)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	mode := info.Mode() & (os.ModePerm | os.ModeSetgid | os.ModeSticky)
	elements := strings.Split(name, "/")
	for i := range elements {
		dir := path.Join(elements[:i+1]...)
		switch err := root.Mkdir(dir, mode.Perm()); {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		if err := root.Chmod(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// pinned finds name in the current version of the volume, and keeps that
// version until the container asks again.
func (m *Manager) pinned(root *os.Root, v *mounted, key pin, name string) (SubPath, error) {
	first, rest, _ := strings.Cut(name, "/")
	version := currentVersion(root)
	switch {
	case version == "":
		return SubPath{}, errors.New("volume has no content")
	case first == dataLink:
		name = path.Join(version, rest)
	case isVersion(first):
		version = first
	default:
		name = path.Join(version, name)
	}
	s, err := describe(root, v.Path, name)
	if errors.Is(err, fs.ErrNotExist) && !isVersion(first) && first != dataLink {
		// No such key: an empty directory is mounted instead, as upstream does.
		name = strings.TrimPrefix(name, version+"/")
		if err := makeDirs(root, name); err != nil {
			return SubPath{}, err
		}
		return describe(root, v.Path, name)
	}
	if err != nil {
		return SubPath{}, err
	}
	m.mu.Lock()
	v.pins[key] = version
	m.mu.Unlock()
	return s, nil
}
