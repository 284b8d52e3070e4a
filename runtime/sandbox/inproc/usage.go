package inproc

import (
	"os"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Usage implements sandbox.Container.
func (g *guest) Usage() sandbox.Usage {
	g.mu.Lock()
	instance, limits, started, ended := g.instance, g.limits, g.started, g.ended
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
	u.MemoryBytes = g.memory.Used()
	u.MemoryPeak = max(u.MemoryBytes, g.memory.Peak()) // what is charged just now is no part of the peak yet
	if g.cpu != nil {
		c := g.cpu.Usage()
		u.CPU, u.Throttle = c.CPU, c.Throttled
		u.Wait += c.Wait
		u.MinorFaults, u.MajorFaults = c.MinorFaults, c.MajorFaults
	}
	if !ended { // else they are being removed
		f := g.overlay.Usage()
		u.FileBytes, u.Files = f.Memory+f.Disk, f.Files
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
