package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The layout of a volume that shows API objects (VOL-10):
//
//	..2026_01_31_12_00_00.123456789/   one version: the files themselves
//	..data -> ..2026_01_31_12_00_00.123456789
//	name -> ..data/name                for each first path element
//
// An update makes the next version beside the current one and then replaces
// ..data by rename, so that a reader finds all files of one version or all of
// the other.
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	versionName = "..2006_01_02_15_04_05."

	maxFileName = 255
	maxPath     = 4096
)

// writePayload makes the volume show p.
func (m *Manager) writePayload(ctx context.Context, pod *corev1.Pod, v *mounted, p payload) error {
	p, err := cleanPayload(p)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(v.Path)
	if err != nil {
		return err
	}
	defer root.Close()

	m.mu.Lock()
	keep := slices.Collect(maps.Values(v.pins))
	m.mu.Unlock()

	group := fsGroup(pod)
	current := currentVersion(root)
	sum := p.sum()
	if current == "" || v.shown != sum && !showsPayload(root, current, p, group) {
		next, err := m.newVersion(ctx, root, p, group)
		if err == nil {
			err = switchTo(root, next)
		}
		if err != nil {
			if next != "" {
				err = errors.Join(err, removeTree(root, next))
			}
			return err
		}
		current = next
	}
	v.shown = sum
	if err := link(root, p); err != nil {
		return err
	}
	return removeVersions(root, append(keep, current))
}

// cleanPayload checks the paths (VOL-11).
func cleanPayload(p payload) (payload, error) {
	out := make(payload, len(p))
	for name, f := range p {
		if err := checkPath(name); err != nil {
			return nil, err
		}
		out[path.Clean(name)] = f
	}
	return out, nil
}

func checkPath(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("invalid path: must not be empty: %q", name)
	case path.IsAbs(name):
		return fmt.Errorf("invalid path: must be relative path: %s", name)
	case len(name) > maxPath:
		return fmt.Errorf("invalid path: must be less than or equal to %d characters", maxPath)
	case strings.ContainsRune(name, 0), path.Clean(name) == ".":
		return fmt.Errorf("invalid path: %q", name)
	}
	elements := strings.Split(name, "/")
	for _, e := range elements {
		if e == ".." {
			return fmt.Errorf("invalid path: must not contain '..': %s", name)
		}
		if len(e) > maxFileName {
			return fmt.Errorf("invalid path: filenames must be less than or equal to %d characters", maxFileName)
		}
	}
	if strings.HasPrefix(path.Clean(name), "..") {
		return fmt.Errorf("invalid path: must not start with '..': %s", name)
	}
	return nil
}

// currentVersion is the version that ..data shows; empty if there is none.
func currentVersion(root *os.Root) string {
	name, err := root.Readlink(dataLink)
	if err != nil || !isVersion(name) {
		return ""
	}
	return name
}

func isVersion(name string) bool {
	return strings.HasPrefix(name, "..") && name != ".." && name != dataLink && name != newDataLink && !strings.Contains(name, "/")
}

// showsPayload says whether a version has exactly the files of p. What cannot
// be read counts as different.
func showsPayload(root *os.Root, version string, p payload, group *int64) bool {
	files := 0
	err := fs.WalkDir(root.FS(), version, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		want, ok := p[strings.TrimPrefix(name, version+"/")]
		if !ok || !d.Type().IsRegular() || !sameFile(root, name, want, group) {
			return fs.ErrInvalid
		}
		return nil
	})
	return err == nil && files == len(p)
}

func sameFile(root *os.Root, name string, want file, group *int64) bool {
	f, err := root.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != int64(len(want.data)) || info.Mode().Perm() != want.perm(group) {
		return false
	}
	have, err := io.ReadAll(io.LimitReader(f, int64(len(want.data))+1))
	return err == nil && bytes.Equal(have, want.data)
}

// perm is the file's mode; the group can read it if the pod has one (VOL-42).
func (f file) perm(group *int64) os.FileMode {
	mode := os.FileMode(f.mode) & os.ModePerm
	if group != nil {
		mode |= 0o440
	}
	return mode
}

// newVersion writes the files of p to a directory that nothing refers to yet.
// After an error the directory, if it was made, is the caller's to remove.
func (m *Manager) newVersion(ctx context.Context, root *os.Root, p payload, group *int64) (version string, err error) {
	stamp := m.config.Now().UTC().Format(versionName)
	for range 100 {
		version = fmt.Sprintf("%s%d", stamp, rand.Uint32())
		if err = root.Mkdir(version, 0o755); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	dirs := map[string]bool{version: true}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if err := ctx.Err(); err != nil {
			return version, context.Cause(ctx)
		}
		full := version + "/" + name
		for dir := path.Dir(full); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
		}
		if err := root.MkdirAll(path.Dir(full), 0o755); err != nil {
			return version, err
		}
		if err := writeFile(root, full, p[name], group); err != nil {
			return version, err
		}
	}
	for dir := range dirs {
		mode := os.FileMode(0o755)
		if group != nil {
			if err := chown(root, dir, *group); err != nil {
				return version, err
			}
			mode |= os.ModeSetgid
		}
		if err := root.Chmod(dir, mode); err != nil { // whatever the umask
			return version, err
		}
	}
	return version, nil
}

func writeFile(root *os.Root, name string, content file, group *int64) (err error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content.data); err != nil {
		return err
	}
	if group != nil {
		if err := chown(root, name, *group); err != nil {
			return err
		}
	}
	return f.Chmod(content.perm(group))
}

// switchTo makes version the current one in one step.
func switchTo(root *os.Root, version string) error {
	// A process that was killed here may have left its link.
	if err := root.Remove(newDataLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(version, newDataLink); err != nil {
		return err
	}
	if err := root.Rename(newDataLink, dataLink); err != nil {
		return errors.Join(err, root.Remove(newDataLink))
	}
	return nil
}

// link makes the volume's visible names those of p.
func link(root *os.Root, p payload) error {
	want := map[string]bool{}
	for name := range p {
		first, _, _ := strings.Cut(name, "/")
		want[first] = true
	}
	names, err := list(root, ".")
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, name := range names {
		if strings.HasPrefix(name, "..") {
			continue
		}
		target, err := root.Readlink(name)
		switch {
		case err != nil:
			// A directory that a subPath mount asked for while there was no such
			// key. It stays what it is, as it does upstream.
			have[name] = true
		case want[name] && target == dataLink+"/"+name:
			have[name] = true
		default:
			if err := root.Remove(name); err != nil {
				return err
			}
		}
	}
	for name := range want {
		if have[name] {
			continue
		}
		if err := root.Symlink(dataLink+"/"+name, name); err != nil {
			return err
		}
	}
	return nil
}

// removeVersions removes all versions but those to keep.
func removeVersions(root *os.Root, keep []string) error {
	names, err := list(root, ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if isVersion(name) && !slices.Contains(keep, name) {
			errs = append(errs, removeTree(root, name))
		}
	}
	return errors.Join(errs...)
}

func list(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
