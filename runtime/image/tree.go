package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// tree is the file system that the layers of an image add up to, without the
// content of its files. It is computed from the tar headers before anything
// is written, so that unpacking never follows a symlink of the image, writes
// every surviving file once, and knows what it will cost.
type tree struct {
	root  *node
	lim   limits
	nodes int   // ever made
	steps int   // path components ever walked
	bytes int64 // of all file records, overwritten ones too
}

type nodeKind int

const (
	dirNode nodeKind = iota
	fileNode
	linkNode
)

type node struct {
	kind     nodeKind
	layer    int // that last wrote it
	opaque   int // layer+1 whose opaque whiteout has been applied
	children map[string]*node
	target   string // of a symlink
	mode     int64
	uid, gid int
	mtime    time.Time
	file     *fileBody // shared by hard links
}

// fileBody says which tar record holds the bytes of a file.
type fileBody struct {
	layer, record int
	size          int64
	mode          int64
	uid, gid      int
	mtime         time.Time
	module        error  // nil: starts like a core module
	digest        string // of modules
	crc           uint32
}

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	// walkStepsPerFile bounds the work that deep paths and chains of symlinks
	// make of an image; ordinary ones need less than ten.
	walkStepsPerFile = 100
)

// readTree adds the layers of an image up. With unpack the layers lie unpacked
// afterwards, and the directories that they are in are returned: empty ones for
// layers that have no place to lie in.
func (s *Service) readTree(ctx context.Context, ins *inspection, unpack bool) (*tree, []string, error) {
	t := &tree{lim: s.limits, root: newDir(-1)}
	dirs := make([]string, len(ins.layers))
	for i, desc := range ins.layers {
		if ins.moduleOnly(i) {
			continue
		}
		var records []layerRecord
		var err error
		if unpack {
			dirs[i], records, err = s.unpackedLayer(ctx, ins.store, desc)
		}
		if err == nil && dirs[i] == "" {
			records, err = s.layerRecords(ctx, ins.store, desc)
		}
		if err != nil {
			return nil, nil, err
		}
		for n := range records {
			if err := t.add(&records[n], i, n); err != nil {
				return nil, nil, fmt.Errorf("layer %s: %w", desc.Digest, err)
			}
		}
	}
	return t, dirs, nil
}

// moduleOnly says that a layer holds the entry module and nothing else.
func (ins *inspection) moduleOnly(i int) bool {
	return isWasmLayer(ins.layers[i]) || i == ins.entry.layer && ins.entry.record < 0
}

func newDir(layer int) *node {
	return &node{kind: dirNode, layer: layer, mode: 0o755, children: map[string]*node{}}
}

func (t *tree) add(hdr *layerRecord, layer, record int) error {
	name, err := cleanEntryName(hdr.Name)
	if err != nil {
		return err
	}
	if t.nodes++; t.nodes > t.lim.files {
		return t.tooManyFiles()
	}
	dirName, base := path.Split(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return t.whiteout(dirName, base, layer)
	}
	if hdr.Type == tar.TypeDir && name == "" {
		t.root.mode, t.root.mtime = hdr.Mode, hdr.mtime()
		t.root.uid, t.root.gid = hdr.UID, hdr.GID
		return nil
	}
	if name == "" {
		return fmt.Errorf("the record %q would replace the root directory", clip(hdr.Name))
	}
	n := &node{layer: layer, mode: hdr.Mode, uid: hdr.UID, gid: hdr.GID, mtime: hdr.mtime()}
	switch hdr.Type {
	case tar.TypeDir:
		n.kind, n.children = dirNode, map[string]*node{}
	case tar.TypeSymlink:
		if strings.ContainsRune(hdr.Link, 0) || len(hdr.Link) > maxGuestPathLen || hdr.Link == "" {
			return fmt.Errorf("the symlink %q has an impossible target", clip(name))
		}
		n.kind, n.target = linkNode, hdr.Link
	case tar.TypeLink:
		target, err := cleanEntryName(hdr.Link)
		if err != nil {
			return err
		}
		old, err := t.parent(target, layer, false)
		if err == nil && old != nil {
			old = old.children[path.Base(target)]
		}
		switch {
		case err != nil:
			return err
		case old == nil || old.kind == dirNode:
			return fmt.Errorf("the hard link %q has no target %q", clip(name), clip(hdr.Link))
		case old.kind == linkNode:
			n.kind, n.target = linkNode, old.target
		default:
			n.kind, n.file = fileNode, old.file
		}
	case tar.TypeReg, tar.TypeGNUSparse:
		if n.kind, n.file, err = t.file(hdr, layer, record); err != nil {
			return fmt.Errorf("file %q: %w", clip(name), err)
		}
	default:
		return nil // devices, pipes and sockets are the node's to give
	}
	dir, err := t.parent(name, layer, true)
	if err != nil {
		return err
	}
	if old := dir.children[base]; old != nil && old.kind == dirNode && n.kind == dirNode {
		old.mode, old.mtime, old.layer = n.mode, n.mtime, layer
		old.uid, old.gid = n.uid, n.gid
		return nil
	}
	dir.children[base] = n
	return nil
}

func (t *tree) tooManyFiles() error {
	return fmt.Errorf("%w: the image has more than %d files", errTooLarge, t.lim.files)
}

func (t *tree) file(hdr *layerRecord, layer, record int) (nodeKind, *fileBody, error) {
	if hdr.Size < 0 || hdr.Size > t.lim.imageBytes-t.bytes {
		return fileNode, nil, fmt.Errorf("%w: the image has more than %d bytes", errTooLarge, t.lim.imageBytes)
	}
	t.bytes += hdr.Size
	f := &fileBody{layer: layer, record: record, size: hdr.Size, mode: hdr.Mode, uid: hdr.UID, gid: hdr.GID, mtime: hdr.mtime(), crc: hdr.CRC, digest: hdr.Digest}
	if hdr.NotModule != "" {
		f.module = errors.New(hdr.NotModule)
	}
	return fileNode, f, nil
}

// whiteout applies the record that hides a file, or with the opaque marker
// all files, of the layers below.
func (t *tree) whiteout(dirName, base string, layer int) error {
	dir, err := t.parent(dirName+"x", layer, false)
	if err != nil || dir == nil {
		return err
	}
	if base == whiteoutOpaque {
		prune(dir, layer)
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	switch n := dir.children[hidden]; {
	case n == nil:
	case n.layer < layer:
		delete(dir.children, hidden)
	case n.kind == dirNode:
		prune(n, layer) // the same layer has put something below it already
	}
	return nil
}

// prune removes what lower layers put into dir. Doing it once for a layer is
// enough, and a hostile layer may ask often.
func prune(dir *node, layer int) {
	if dir.opaque == layer+1 {
		return
	}
	dir.opaque = layer + 1
	maps.DeleteFunc(dir.children, func(_ string, n *node) bool { return n.layer < layer })
	for _, n := range dir.children {
		if n.kind == dirNode {
			prune(n, layer)
		}
	}
}

// parent returns the directory that holds name, following symlinks of the
// image inside the image. With create, directories that are missing are made,
// and files in the way replaced; otherwise the answer is nil.
func (t *tree) parent(name string, layer int, create bool) (*node, error) {
	dirName, _ := path.Split(name)
	return t.walk(strings.Trim(dirName, "/"), layer, create)
}

// walk resolves a path to a directory.
func (t *tree) walk(dirName string, layer int, create bool) (*node, error) {
	stack := []*node{t.root}
	todo := []string{}
	if dirName != "" {
		todo = strings.Split(dirName, "/")
		slices.Reverse(todo)
	}
	for followed := 0; len(todo) > 0; {
		if t.steps++; t.steps > walkStepsPerFile*t.lim.files {
			return nil, fmt.Errorf("%w: the image's paths and symlinks are too entangled", errTooLarge)
		}
		part := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		at := stack[len(stack)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		next := at.children[part]
		if next != nil && next.kind == linkNode {
			if followed++; followed > maxSymlinksFollowed {
				return nil, fmt.Errorf("too many symlinks on the way to %q", clip(dirName))
			}
			if strings.HasPrefix(next.target, "/") {
				stack = stack[:1]
			}
			parts := strings.Split(next.target, "/")
			slices.Reverse(parts)
			todo = append(todo, parts...)
			continue
		}
		if next == nil || next.kind != dirNode {
			if !create {
				return nil, nil
			}
			if len(part) > maxGuestNameLen || strings.HasPrefix(part, whiteoutPrefix) {
				return nil, fmt.Errorf("the file name %q cannot be used", clip(part))
			}
			if len(stack) > maxGuestPathLen/2 {
				return nil, errors.New("directories are nested too deep")
			}
			if t.nodes++; t.nodes > t.lim.files {
				return nil, t.tooManyFiles()
			}
			next = newDir(layer)
			at.children[part] = next
		}
		if create && next.layer < layer {
			// What a layer puts below a directory must survive an opaque
			// marker that the same layer has for a directory further up.
			next.layer = layer
		}
		stack = append(stack, next)
	}
	return stack[len(stack)-1], nil
}

// resolve follows name, and symlinks at its end, to a file.
func (t *tree) resolve(name string) (string, *node) {
	for range maxSymlinksFollowed {
		dir, err := t.parent(name, 0, false)
		if err != nil || dir == nil {
			return "", nil
		}
		n := dir.children[path.Base(name)]
		switch {
		case n == nil || n.kind == dirNode:
			return "", nil
		case n.kind == fileNode:
			return name, n
		case strings.HasPrefix(n.target, "/"):
			name = n.target
		default:
			name = path.Dir(name) + "/" + n.target
		}
		if name, err = cleanEntryName(name); err != nil || name == "" {
			return "", nil
		}
	}
	return "", nil
}

// each calls f for every node, parents first, in the order of names.
func (t *tree) each(f func(name string, n *node) error) error {
	var visit func(prefix string, dir *node) error
	visit = func(prefix string, dir *node) error {
		for _, base := range slices.Sorted(maps.Keys(dir.children)) {
			n := dir.children[base]
			if err := f(prefix+base, n); err != nil {
				return err
			}
			if n.kind == dirNode {
				if err := visit(prefix+base+"/", n); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return visit("", t.root)
}

// bodies returns the files that lie in one layer, by record.
func (t *tree) bodies(layer int) map[int]*fileBody {
	bodies := map[int]*fileBody{}
	_ = t.each(func(_ string, n *node) error {
		if n.kind == fileNode && n.file.layer == layer {
			bodies[n.file.record] = n.file
		}
		return nil
	})
	return bodies
}

// entry chooses the entry module of an image whose manifest does not say.
func (t *tree) entry(cfg container.ImageConfig, hint string) (string, *node, error) {
	command := slices.Concat(cfg.Entrypoint, cfg.Cmd)
	if len(command) > 0 {
		for _, name := range commandPaths(command[0], cfg) {
			if found, n := t.resolve(name); n != nil && n.file.module == nil {
				return found, n, nil
			}
		}
	}
	if hint != "" {
		name, err := cleanEntryName(hint)
		if err != nil {
			return "", nil, err
		}
		found, n := t.resolve(name)
		switch {
		case n == nil:
			return "", nil, fmt.Errorf("%s names %q, which is not in the image", annotationEntry, hint)
		case n.file.module != nil:
			return "", nil, fmt.Errorf("%s names %q, which is %w", annotationEntry, hint, n.file.module)
		}
		return found, n, nil
	}
	var named, modules []string
	var named1, module1 *node
	var why error
	_ = t.each(func(name string, n *node) error {
		if n.kind != fileNode {
			return nil
		}
		isNamed := strings.HasSuffix(name, ".wasm")
		switch {
		case n.file.module != nil:
			if isNamed {
				why = fmt.Errorf("/%s is %w", name, n.file.module)
			}
			return nil
		case isNamed:
			named, named1 = append(named, "/"+name), n
		}
		modules, module1 = append(modules, "/"+name), n
		return nil
	})
	switch {
	case len(named) == 1:
		return named[0][1:], named1, nil
	case len(modules) == 1:
		return modules[0][1:], module1, nil
	case len(modules) == 0 && why != nil:
		return "", nil, fmt.Errorf("the image holds no WebAssembly module that can run here: %w", why)
	case len(modules) == 0:
		return "", nil, errors.New("the image holds no WebAssembly module: it was built for another kind of node")
	}
	// With several modules, one that the command mentions is meant, as in
	// ["runtime", "/app.wasm"].
	for _, arg := range command {
		for _, name := range commandPaths(arg, cfg) {
			if found, n := t.resolve(name); n != nil && n.file.module == nil {
				return found, n, nil
			}
		}
	}
	return "", nil, fmt.Errorf("the image holds %d modules (%s) and names none of them: set its entrypoint or the label %s", len(modules), clip(strings.Join(modules, ", ")), annotationEntry)
}

// commandPaths returns where a command may lie in an image: a path as it is,
// relative to the working directory, or a bare name in PATH.
func commandPaths(command string, cfg container.ImageConfig) []string {
	var names []string
	add := func(s string) {
		if clean, err := cleanEntryName(s); err == nil && clean != "" {
			names = append(names, clean)
		}
	}
	if strings.HasPrefix(command, "/") {
		add(command)
		return names
	}
	add(cfg.WorkingDir + "/" + command)
	if !strings.Contains(command, "/") {
		search := defaultGuestSearchPath
		for _, kv := range cfg.Env {
			if v, ok := strings.CutPrefix(kv, "PATH="); ok {
				search = v
			}
		}
		for _, dir := range strings.Split(search, ":") {
			add(dir + "/" + command)
		}
	}
	return names
}
