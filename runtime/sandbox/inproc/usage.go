package inproc

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Usage implements sandbox.Container.
func (g *guest) Usage() sandbox.Usage {
	g.mu.Lock()
	instance, limits, started, files := g.instance, g.limits, g.started, g.ended
	g.mu.Unlock()
	u := sandbox.Usage{Started: started, Limits: limits, FileBytes: -1}
	add := func(s wasm.Stats) {
		u.CPU += s.CPUTime
		u.Wait += s.CPUWait
		u.Fuel += s.Fuel
		u.Safepoints += s.Safepoints
	}
	past, running := g.commands.usage()
	add(past)
	for _, i := range running {
		add(i.Stats())
	}
	u.Commands = len(running)
	if instance != nil {
		add(instance.Stats())
	}
	u.MemoryBytes, u.MemoryPeak = g.memory.Used(), g.memory.Peak()
	if g.cpu != nil {
		c := g.cpu.Usage()
		u.CPU, u.Throttle = c.CPU, c.Throttled
		u.Wait += c.Wait
		u.MinorFaults, u.MajorFaults = c.MinorFaults, c.MajorFaults
	}
	if !files { // else they are being removed
		u.FileBytes, u.Files = g.disk.read(g.root())
	}
	if info, err := os.Stat(g.logPath()); err == nil {
		u.LogBytes = info.Size()
	}
	return u
}

// usage returns what commands that have ended have consumed, and those that run.
// No command is in neither or in both.
func (c *commands) usage() (past wasm.Stats, running []*wasm.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.running {
		running = append(running, i)
	}
	return c.past, running
}

// Bounds of looking at a container's files, of which it may have millions.
const (
	diskAge     = time.Minute
	diskEntries = 20_000
)

// disk is what was last seen of a container's files.
type disk struct {
	mu           sync.Mutex
	at           time.Time
	bytes, files int64
}

// read returns the size of everything below a directory, as it was less than
// diskAge ago; -1 if there is too much to look at. Names are resolved beneath the
// directory, whatever the guest makes of them meanwhile.
func (d *disk) read(dir string) (bytes, files int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.at.IsZero() || now.Sub(d.at) >= diskAge {
		d.at = now
		d.bytes, d.files = measure(dir)
	}
	return d.bytes, d.files
}

var errTooMany = errors.New("too many files")

func measure(dir string) (bytes, files int64) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return -1, 0
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or not for us to read
		}
		if files++; files > diskEntries {
			return errTooMany
		}
		if info, err := entry.Info(); err == nil {
			bytes += allocated(info)
		}
		return nil
	})
	if err != nil {
		return -1, 0
	}
	return bytes, files
}

// allocated is what a file takes on disk: its blocks, so that holes cost nothing.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
