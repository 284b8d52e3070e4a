package gotool

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// std has our files of the standard library, laid out as below GOROOT/src.
//
//go:embed _std
var std embed.FS

// Overlay is an overlay on disk, for go's -overlay flag.
type Overlay struct {
	File  string   // the JSON file that the flag names
	Files []string // what it changes, slash-separated, below GOROOT/src
}

// overlayJSON is the format of the -overlay flag.
type overlayJSON struct{ Replace map[string]string }

// contents returns what the overlay has for each file below GOROOT/src; nil is
// a file that is left out.
func (t *Toolchain) contents() (map[string][]byte, error) {
	n, err := minor(t.Version)
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for _, e := range editsFor(n) {
		src, edited := files[e.file]
		if !edited {
			if src, err = os.ReadFile(filepath.Join(t.Root, "src", filepath.FromSlash(e.file))); err != nil {
				return nil, t.unexpected(e.file, err)
			}
		}
		if e.drop {
			files[e.file] = nil
			continue
		}
		if files[e.file], err = e.apply(src); err != nil {
			return nil, t.unexpected(e.file, err)
		}
	}
	err = fs.WalkDir(std, "_std", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel := name[len("_std/"):]
		if _, err := os.Stat(filepath.Join(t.Root, "src", filepath.FromSlash(rel))); err == nil {
			return t.unexpected(rel, errors.New("expected no such file"))
		}
		files[rel], err = std.ReadFile(name)
		return err
	})
	return files, err
}

func (t *Toolchain) unexpected(file string, err error) error {
	return fmt.Errorf("%s in %s is not as this wasmpod knows it, so it cannot be made to work in pods: src/%s: %w. "+
		"Use an unmodified release of Go, or a newer wasmpod", t.Version, t.Root, file, err)
}

// Overlay writes the overlay for the toolchain below dir, unless it is there.
// users, if not empty, is another overlay file, whose entries are added. It may
// be called by several processes at a time.
func (t *Toolchain) Overlay(dir, users string) (*Overlay, error) {
	contents, err := t.contents()
	if err != nil {
		return nil, err
	}
	if err := t.outsideModCache(dir); err != nil {
		return nil, err
	}
	o := &Overlay{Files: slices.Sorted(maps.Keys(contents))}
	h := sha256.New()
	for _, name := range o.Files {
		fmt.Fprintf(h, "%s %d %t\n", name, len(contents[name]), contents[name] == nil)
		h.Write(contents[name])
	}
	// By content: the go command caches by content too.
	dir = filepath.Join(dir, hex.EncodeToString(h.Sum(nil)[:12]))
	all := overlayJSON{Replace: make(map[string]string)}
	for _, name := range o.Files {
		target := ""
		if data := contents[name]; data != nil {
			target = filepath.Join(dir, "src", filepath.FromSlash(name))
			if err := write(target, data); err != nil {
				return nil, err
			}
		}
		all.Replace[filepath.Join(t.Root, "src", filepath.FromSlash(name))] = target
	}
	if users != "" {
		if err := all.merge(users); err != nil {
			return nil, err
		}
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return nil, err
	}
	// Its name is of its content: two GOROOTs, or a user's overlay, differ here.
	sum := sha256.Sum256(data)
	o.File = filepath.Join(dir, "overlay-"+hex.EncodeToString(sum[:6])+".json")
	return o, write(o.File, append(data, '\n'))
}

// merge adds the entries of a user's overlay.
func (o *overlayJSON) merge(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("-overlay: %w", err)
	}
	var users overlayJSON
	if err := json.Unmarshal(data, &users); err != nil {
		return fmt.Errorf("-overlay: %s: %w", file, err)
	}
	for from, to := range users.Replace {
		abs, err := filepath.Abs(from) // as the go command resolves it
		if err != nil {
			return err
		}
		if _, taken := o.Replace[abs]; taken {
			return fmt.Errorf("-overlay: %s replaces %s, which has to be replaced for programs to work in pods", file, from)
		}
		if to != "" {
			if to, err = filepath.Abs(to); err != nil {
				return err
			}
		}
		o.Replace[abs] = to
	}
	return nil
}

// write writes a file whole or not at all, unless it has this content.
func write(name string, data []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+path.Base(filepath.ToSlash(name))+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing once it has been renamed
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
