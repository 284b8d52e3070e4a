package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// sourceFile is one record of a files layer to be.
type sourceFile struct {
	guest  string // relative to the image's root
	host   string // of a regular file
	target string // of a symlink
	kind   byte   // tar type
	mode   int64
	size   int64
}

// collectFiles lists what a files layer will hold, in the order of names.
func collectFiles(ctx context.Context, files []File, moduleName string, lim limits) ([]sourceFile, error) {
	byName := map[string]sourceFile{}
	add := func(f sourceFile) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.guest == moduleName {
			return fmt.Errorf("file %s: /%s is the entry module's place", f.host, moduleName)
		}
		if strings.HasPrefix(path.Base(f.guest), whiteoutPrefix) {
			return fmt.Errorf("file %s: names that begin with %s are markers of the image format", f.host, whiteoutPrefix)
		}
		if old, ok := byName[f.guest]; ok && (old.kind != tar.TypeDir || f.kind != tar.TypeDir) {
			return fmt.Errorf("file %s: /%s is given twice", f.host, f.guest)
		}
		if byName[f.guest] = f; len(byName) > lim.files {
			return fmt.Errorf("%w: more than %d files", errTooLarge, lim.files)
		}
		return nil
	}
	for _, file := range files {
		guest, err := cleanEntryName(file.Guest)
		if err == nil && !path.IsAbs(file.Guest) {
			err = errors.New("want an absolute path in the image")
		}
		if err != nil {
			return nil, fmt.Errorf("file %s at %q: %w", file.Host, file.Guest, err)
		}
		// A symlink that the user names stands for what it points to.
		top, err := filepath.EvalSymlinks(file.Host)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(top, func(host string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(top, host)
			if err != nil {
				return err
			}
			name, err := cleanEntryName(guest + "/" + filepath.ToSlash(rel))
			if err != nil {
				return err
			}
			f, err := newSourceFile(host, name, d, file.Mode)
			if err != nil || f.kind == 0 {
				return err
			}
			if name == "" {
				if f.kind == tar.TypeDir {
					return nil // the root itself
				}
				return fmt.Errorf("file %s: the image's root is a directory", host)
			}
			return add(f)
		})
		if err != nil {
			return nil, err
		}
	}
	// A file is no directory for others.
	for guest := range byName {
		for dir := path.Dir(guest); dir != "."; dir = path.Dir(dir) {
			if up, ok := byName[dir]; (ok && up.kind != tar.TypeDir) || dir == moduleName {
				return nil, fmt.Errorf("/%s cannot lie below /%s, which is not a directory", guest, dir)
			}
		}
	}
	list := make([]sourceFile, 0, len(byName))
	for _, guest := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[guest])
	}
	return list, nil
}

func newSourceFile(host, guest string, d fs.DirEntry, mode fs.FileMode) (sourceFile, error) {
	fi, err := d.Info()
	if err != nil {
		return sourceFile{}, err
	}
	f := sourceFile{guest: guest, host: host}
	switch {
	case fi.IsDir():
		f.kind, f.mode = tar.TypeDir, 0o755
	case fi.Mode()&fs.ModeSymlink != 0:
		f.kind, f.mode = tar.TypeSymlink, 0o777
		if f.target, err = os.Readlink(host); err != nil {
			return f, err
		}
	case fi.Mode().IsRegular():
		f.kind, f.size = tar.TypeReg, fi.Size()
		switch {
		case mode != 0:
			f.mode = int64(mode.Perm())
		case fi.Mode().Perm()&0o111 != 0:
			f.mode = 0o755
		default:
			f.mode = 0o644
		}
	default:
		return f, fmt.Errorf("file %s: neither a file nor a directory nor a symlink", host)
	}
	return f, nil
}
