package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// entryFile is the name that marks the entry module of a plain directory.
const entryFile = "entry.wasm"

// fileDigest is the digest of a local module, valid while the file has the
// stamp.
type fileDigest struct {
	stamp  fileStamp
	digest string
}

// inspectLocal resolves the file or directory at path, which is absolute.
func (s *Service) inspectLocal(ctx context.Context, ref, path string) (Image, content, error) {
	fi, err := os.Stat(path)
	if isAbsent(err) {
		return Image{}, nil, nil
	}
	if err != nil {
		return Image{}, nil, inspectError(ref, err)
	}
	var img Image
	var c content
	switch {
	case fi.Mode().IsRegular():
		c = fileContent(path)
		img, err = s.inspectFile(ctx, path, c)
	case !fi.IsDir():
		err = errors.New("it is neither a file nor a directory")
	default:
		if _, serr := os.Stat(filepath.Join(path, "oci-layout")); serr == nil {
			img, c, err = s.inspectLayoutDir(ctx, path)
		} else {
			img, c, err = s.inspectPlainDir(ctx, path)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return Image{}, nil, ctx.Err()
		}
		return Image{}, nil, inspectError(ref, err)
	}
	img.Ref = path
	return img, c, nil
}

func (s *Service) inspectLayoutDir(ctx context.Context, dir string) (Image, content, error) {
	l := &layout{dir: dir}
	index, err := l.readIndex()
	if err != nil {
		return Image{}, nil, err
	}
	desc, err := bestForPlatform(index.Manifests)
	if err != nil {
		return Image{}, nil, err
	}
	ins, err := s.inspect(ctx, l, desc)
	if err != nil {
		return Image{}, nil, err
	}
	img := ins.image
	img.ID = dir + "@" + ins.digest
	return img, ins, nil
}

// inspectFile digests a module. c is what holds it: the file itself, or the
// directory that the file is the entry of.
func (s *Service) inspectFile(ctx context.Context, file string, c content) (Image, error) {
	f, err := os.Open(file)
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Image{}, err
	}
	if !fi.Mode().IsRegular() {
		return Image{}, fmt.Errorf("%s is not a file", file)
	}
	if fi.Size() > s.limits.moduleBytes {
		return Image{}, fmt.Errorf("the module is %w: %d bytes; at most %d are supported", errTooLarge, fi.Size(), s.limits.moduleBytes)
	}
	stamp := stampOf(fi, time.Now())
	s.mu.Lock()
	known := s.digests[file]
	s.mu.Unlock()
	if !known.stamp.same(stamp) {
		sum := sha256.New()
		head := make([]byte, 8)
		n, err := io.ReadFull(f, head)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return Image{}, err
		}
		if err := checkModule(head[:n]); err != nil {
			return Image{}, fmt.Errorf("it is %w", err)
		}
		sum.Write(head)
		if _, err := io.Copy(sum, contextReader{ctx, io.LimitReader(f, s.limits.moduleBytes)}); err != nil {
			return Image{}, err
		}
		known = fileDigest{stamp, "sha256:" + hex.EncodeToString(sum.Sum(nil))}
		s.mu.Lock()
		bound(s.digests)
		s.digests[file] = known
		s.mu.Unlock()
	}
	s.remember(known.digest, c)
	return Image{
		ID:     file + "@" + known.digest,
		Module: known.digest,
		Size:   fi.Size(),
		Config: container.ImageConfig{Entrypoint: []string{"/" + filepath.Base(file)}},
	}, nil
}

// fileContent is a module alone, by path.
type fileContent string

func (c fileContent) module(ctx context.Context, lim limits) ([]byte, error) {
	f, err := os.Open(string(c))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readModuleFrom(contextReader{ctx, f}, fi.Size(), fi.Size(), lim)
}

func (c fileContent) unpack(context.Context, *unpacker) error { return nil }

// dirContent is a plain directory: a root file system whose only module at
// the top is the entry.
type dirContent struct {
	dir   string
	entry string // base name
}

func (s *Service) inspectPlainDir(ctx context.Context, dir string) (Image, content, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Image{}, nil, err
	}
	var modules []string
	for _, e := range entries {
		if e.Name() == entryFile {
			modules = []string{entryFile}
			break
		}
		if strings.HasSuffix(e.Name(), ".wasm") && !e.IsDir() {
			modules = append(modules, e.Name())
		}
	}
	switch len(modules) {
	case 0:
		return Image{}, nil, fmt.Errorf("the directory is no image: it has no oci-layout, no %s and no other .wasm file at its top", entryFile)
	case 1:
	default:
		return Image{}, nil, fmt.Errorf("the directory has %d modules at its top (%s): name the one to start %s", len(modules), clip(strings.Join(modules, ", ")), entryFile)
	}
	c := dirContent{dir, modules[0]}
	img, err := s.inspectFile(ctx, filepath.Join(dir, modules[0]), c)
	if err != nil {
		return Image{}, nil, fmt.Errorf("%s: %w", modules[0], err)
	}
	img.ID = dir + "@" + img.Module
	return img, c, nil
}

func (c dirContent) module(ctx context.Context, lim limits) ([]byte, error) {
	return fileContent(filepath.Join(c.dir, c.entry)).module(ctx, lim)
}

// unpack copies the directory. It reads through an os.Root: a symlink that is
// swapped in meanwhile cannot lead it elsewhere.
func (c dirContent) unpack(ctx context.Context, u *unpacker) error {
	src, err := os.OpenRoot(c.dir)
	if err != nil {
		return err
	}
	defer src.Close()
	return fs.WalkDir(src.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." || name == c.entry {
			return err
		}
		fi, err := src.Lstat(name)
		if err != nil {
			return err
		}
		switch mode := fi.Mode(); {
		case mode.IsDir():
			return u.dir(name, tarMode(mode), fi.ModTime())
		case mode.Type() == fs.ModeSymlink:
			target, err := src.Readlink(name)
			if err != nil {
				return err
			}
			return u.symlink(target, name)
		case mode.IsRegular():
			f, err := src.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			return u.file(name, tarMode(mode), fi.ModTime(), contextReader{ctx, f})
		}
		return nil
	})
}

func tarMode(mode fs.FileMode) int64 {
	m := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		m |= 0o1000
	}
	return m
}
