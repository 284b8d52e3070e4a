package inproc

import (
	"context"
	"path"
	"path/filepath"
	"sync"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
)

// roots are the files of the images that containers run from, each once however
// many they are. The zero value is ready.
type roots struct {
	mu     sync.Mutex
	images map[string]*imageRoot // by key, those whose contents lie in the store
}

// imageRoot is one of them.
type imageRoot struct {
	lower *wasip1.Lower
	files *image.Root

	users int        // guarded by roots.mu
	ready sync.Mutex // held by whoever makes it
}

// acquire returns the files that get finds, the same for everybody with that key. The
// caller releases them.
func (r *roots) acquire(key string, get func() (*image.Root, error)) (root *imageRoot, release func(), err error) {
	r.mu.Lock()
	if r.images == nil {
		r.images = make(map[string]*imageRoot)
	}
	root = r.images[key]
	if root == nil {
		root = &imageRoot{}
		r.images[key] = root
	}
	root.users++
	r.mu.Unlock()
	release = sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if root.users--; root.users > 0 {
			return
		}
		if r.images[key] == root {
			delete(r.images, key)
		}
		if root.files != nil {
			root.files.Close()
		}
	})

	root.ready.Lock()
	defer root.ready.Unlock()
	if root.lower != nil {
		return root, release, nil
	}
	files, err := get()
	if err != nil {
		release()
		return nil, nil, err
	}
	lower, err := lowerOf(files)
	switch {
	case err != nil:
		files.Close()
		release()
		return nil, nil, err
	case !files.Shared: // copied for one container, which removes the copies
		release()
		return &imageRoot{lower: lower}, func() {}, nil
	}
	root.files, root.lower = files, lower
	return root, release, nil
}

// lowerOf shows files of an image.
func lowerOf(files *image.Root) (*wasip1.Lower, error) {
	lower := wasip1.NewLower()
	contents := make(map[*image.RootContent]*wasip1.LowerContent)
	for _, f := range files.Files {
		e := wasip1.LowerEntry{Name: f.Name, Mode: f.Mode, UID: f.UID, GID: f.GID, MTime: f.MTime, Target: f.Target}
		if f.Content != nil {
			if contents[f.Content] == nil {
				contents[f.Content] = &wasip1.LowerContent{Path: f.Content.Path, Size: f.Content.Size, Check: f.Content.Check}
			}
			e.Content = contents[f.Content]
		}
		if err := lower.Add(e); err != nil {
			return nil, err
		}
	}
	return lower, nil
}

// mountImage shows the files of an image (VOL-40), which the pod's worker has had
// pulled.
func (g *guest) mountImage(ctx context.Context, reference string, m container.Mount) (wasip1.Mount, error) {
	images := g.sandbox.cfg.Images
	img, err := images.VolumeImage(ctx, reference)
	if err != nil {
		return wasip1.Mount{}, err
	}
	root, letGo, err := g.sandbox.roots.acquire(img.ID+" as a volume", func() (*image.Root, error) {
		return images.VolumeRoot(ctx, img, filepath.Join(g.dir, "volumes", m.Volume))
	})
	if err != nil {
		return wasip1.Mount{}, err
	}
	o := wasip1.NewOverlay(wasip1.OverlayConfig{Lower: root.lower})
	g.volumes = append(g.volumes, func() {
		o.Close()
		letGo()
	})
	if m.SubPath != "" {
		if _, err := o.Stat(m.SubPath); err != nil { // VOL-30; there is nowhere to make it
			return wasip1.Mount{}, &sandbox.ConfigError{Err: &volume.SubPathError{Volume: m.Volume, Container: g.config.Name, Err: err}}
		}
	}
	return wasip1.Mount{GuestPath: m.GuestPath, Overlay: o, Beneath: m.SubPath, ReadOnly: true}, nil
}

// memoryVolume is an emptyDir of medium Memory.
type memoryVolume struct{ *wasip1.Overlay }

// Used implements volume.Memory.
func (v memoryVolume) Used() int64 { return v.Usage().Memory }

// ReadFile implements volume.Memory.
func (v memoryVolume) ReadFile(name string, most int64) ([]byte, error) {
	root := wasip1.FS{Mounts: []wasip1.Mount{{GuestPath: "/", Overlay: v.Overlay, ReadOnly: true}}}
	p, err := wasip1.NewProcess(wasip1.ProcessConfig{Root: root})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	f, err := p.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return volume.ReadAtMost(f, most)
}

// NewMemoryVolume is for volume.Config.
func NewMemoryVolume(size int64, group *int64) volume.Memory {
	const open, setGroup = 0o777, 0o2000
	o := wasip1.NewOverlay(wasip1.OverlayConfig{MemoryBytes: size})
	if group != nil {
		o.SetRoot(uint32(*group), open|setGroup)
	} else {
		o.SetRoot(0, open)
	}
	return memoryVolume{o}
}

// mountMemory mounts such a volume. The container pays for it while it is there.
func (g *guest) mountMemory(v memoryVolume, m container.Mount, readOnly bool) (wasip1.Mount, error) {
	if m.SubPath != "" {
		// What is there already may be a file.
		if _, err := v.Stat(m.SubPath); err != nil {
			if err := v.MkdirAll(m.SubPath, v.RootMode()); err != nil { // VOL-30
				return wasip1.Mount{}, &sandbox.ConfigError{Err: &volume.SubPathError{Volume: m.Volume, Container: g.config.Name, Err: err}}
			}
		}
	}
	v.AddPayer(g.memory)
	g.volumes = append(g.volumes, func() { v.RemovePayer(g.memory) })
	return wasip1.Mount{GuestPath: m.GuestPath, Overlay: v.Overlay, Beneath: m.SubPath, ReadOnly: readOnly}, nil
}

// upper is where the container's changes go that are too large for memory.
func (g *guest) upper() string { return filepath.Join(g.dir, "upper") }

// makePlaces makes the directories that mounts and the working directory need in
// the private root. What the image does not allow is left out; the mount table has
// the mount all the same.
func (g *guest) makePlaces(mounts []wasip1.Mount) {
	dirs := []string{"tmp", g.config.WorkingDir}
	for _, m := range mounts {
		dirs = append(dirs, path.Dir(m.GuestPath))
	}
	for _, dir := range dirs {
		_ = g.overlay.MkdirAll(dir, 0o755)
	}
	_ = g.overlay.Chmod("tmp", 0o1777)
}
