package inproc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// maxCommands is how many commands may run in a container beside it. They share
// its memory limit, and its end when one of them exceeds it.
const maxCommands = 64

var errTooManyCommands = fmt.Errorf("%d commands run in the container already", maxCommands)

// commands are the instances that Exec has started in one container, which all
// end before what they share with it is let go of.
type commands struct {
	mu      sync.Mutex
	ended   bool
	ending  chan struct{} // closed when the container ends
	running map[*wasm.Instance]struct{}
	places  int // of maxCommands
	serial  int
	left    sync.WaitGroup // Add only while !ended
	past    wasm.Stats     // of those that have ended
	outOf   *wasm.Exit     // of the first that the memory limit has ended
}

func newCommands() *commands {
	return &commands{ending: make(chan struct{}), running: make(map[*wasm.Instance]struct{})}
}

// begin takes a place; the caller calls end.
func (c *commands) begin() (serial int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		return 0, sandbox.ErrNotRunning
	case c.places == maxCommands:
		return 0, errTooManyCommands
	}
	c.places++
	c.serial++
	c.left.Add(1)
	return c.serial, nil
}

func (c *commands) end() {
	c.mu.Lock()
	c.places--
	c.mu.Unlock()
	c.left.Done()
}

// stop ends all commands and waits for them: a kill takes no longer than to the
// next safepoint.
func (c *commands) stop() {
	c.mu.Lock()
	if !c.ended {
		c.ended = true
		close(c.ending)
	}
	c.mu.Unlock()
	c.left.Wait()
}

// Exec implements sandbox.Container.
func (g *guest) Exec(ctx context.Context, config sandbox.ExecConfig) (exitCode int32, err error) {
	if g.live() == nil {
		return 0, sandbox.ErrNotRunning
	}
	serial, err := g.commands.begin()
	if err != nil {
		return 0, err
	}
	defer g.commands.end()
	program, err := g.lookUp(ctx, config.Command)
	if err != nil {
		return 0, err
	}
	defer program.release()
	process, err := wasip1.NewProcess(g.commandProcess(program.args, config))
	if err != nil {
		return 0, cannotStart(err)
	}
	defer process.Close()
	if !g.memory.Charge(commandBytes) {
		return 0, cannotStart(errNoMemory)
	}
	defer g.memory.Release(commandBytes)
	g.mu.Lock()
	instance, err := g.startInstance(ctx, g.id+"/exec-"+strconv.Itoa(serial), program.module, process)
	if err == nil {
		g.commands.add(instance) // before an Update can miss it
	}
	g.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, cannotStart(err)
	}
	defer g.commands.remove(instance)
	resize := config.Resize
	for {
		select {
		case <-instance.Done():
			exit := instance.Exit()
			if exit.Reason == wasm.ReasonOOMKilled {
				g.commands.outOfMemory(exit)
				g.Kill()
			}
			// Killed because of ctx, if it has ended.
			return exit.Code, context.Cause(ctx)
		case <-g.commands.ending:
			instance.Kill()
			<-instance.Done()
			return instance.Exit().Code, nil
		case _, ok := <-resize:
			if !ok {
				resize = nil // nothing more to accept
			}
		}
	}
}

// outOfMemory notes that a command has ended for want of memory, which ends the
// container: who shares a limit dies together, as with memory.oom.group (OOM-03).
func (c *commands) outOfMemory(exit wasm.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outOf == nil {
		c.outOf = &exit
	}
}

// blame is why the container ended: if it was killed because of a command that the
// memory limit has ended, for that (OOM-01).
func (c *commands) blame(exit wasm.Exit) wasm.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outOf == nil || exit.Code != c.outOf.Code {
		return exit
	}
	return *c.outOf
}

func (c *commands) add(i *wasm.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[i] = struct{}{}
}

func (c *commands) remove(i *wasm.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, i)
	s := i.Stats()
	c.past.CPUTime += s.CPUTime
	c.past.CPUWait += s.CPUWait
	c.past.Fuel += s.Fuel
	c.past.Safepoints += s.Safepoints
}

// commandProcess is the process of a command: the container's, but for its
// arguments and streams.
func (g *guest) commandProcess(args []string, config sandbox.ExecConfig) wasip1.ProcessConfig {
	p := g.processConfig(args)
	p.Files = g.process
	p.Stdin, p.Stdout, p.Stderr, p.Prompt, p.TTY = config.Stdin, config.Stdout, config.Stderr, config.Prompt, config.TTY
	if config.TTY {
		p.Stderr = p.Stdout
	}
	return p
}

// commandBytes is what the host keeps for a command beside what its instance and
// its process charge themselves: goroutines above all. A test measures it.
const commandBytes = 24 << 10

var errNoMemory = errors.New("the container's memory limit leaves nothing for another process")

// cannotStart is a command that was found and does not start.
func cannotStart(err error) error {
	return &sandbox.ExecError{Code: 126, Err: &briefError{err}}
}
