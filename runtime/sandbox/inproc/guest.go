package inproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/logs"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Limits of the termination message (TIME-19).
const (
	terminationFileBytes = 4096
	terminationLogBytes  = 2048
	terminationLogLines  = 80
	// engineMessageBytes bounds what the engine says: names in it are the
	// module's, and may be as long as the module.
	engineMessageBytes = 1024
)

// guest implements sandbox.Container.
type guest struct {
	sandbox *podSandbox
	config  container.Config
	id      string
	dir     string // private to this attempt; removed when it has ended

	module   *wasm.Module
	log      *logs.Log
	process  *wasip1.Process
	commands *commands
	streams  *streams
	programs programs
	network  *guestNetwork   // nil on the host's network
	memory   *wasm.Account   // of everything that the container holds
	overlay  *wasip1.Overlay // its root
	letGo    func()          // of the image's files; nil: it holds none
	volumes  []func()        // let go of what is mounted
	cpu      *bpf.Account    // nil if nobody counts; set once

	mu       sync.Mutex
	instance *wasm.Instance  // nil until Start
	receiver *wasip1.Process // of signals; the process of instance
	limits   container.Limits
	started  time.Time
	ended    bool // set once, by whoever then calls end
	done     chan struct{}
	status   sandbox.ExitStatus // before done is closed
}

// Create implements sandbox.Sandbox.
func (s *podSandbox) Create(ctx context.Context, config container.Config) (sandbox.Container, error) {
	s.mu.Lock()
	if s.removing {
		s.mu.Unlock()
		return nil, errRemoving
	}
	s.creating.Add(1)
	s.mu.Unlock()
	defer s.creating.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.creation, func() { cancel(errRemoving) })()

	g := &guest{
		sandbox: s,
		config:  config,
		id:      fmt.Sprintf("%s/%s/%d", s.id, config.Name, config.Attempt),
		dir:     filepath.Join(s.containersDir(), config.Name, strconv.Itoa(config.Attempt)),
		done:    make(chan struct{}),

		commands: newCommands(),
		streams:  newStreams(config),
		limits:   config.Resources,
		memory:   s.newMemory(config.Resources.MemoryBytes),
	}
	if err := g.create(ctx); err != nil {
		return nil, errors.Join(err, g.release())
	}
	s.mu.Lock()
	s.running[g] = struct{}{}
	s.mu.Unlock()
	return g, nil
}

func (g *guest) create(ctx context.Context) error {
	cfg := &g.sandbox.cfg
	module, err := g.sandbox.module(ctx, g.config.Module, func() ([]byte, error) {
		return cfg.Images.Module(ctx, g.config.Module)
	})
	if err != nil {
		return &sandbox.ImageError{Err: &briefError{fmt.Errorf("image %q: %w", g.config.Image, err)}}
	}
	g.module = module
	// Not while compiling, which may take long, and has a bound of its own.
	if err := g.sandbox.setups.begin(ctx); err != nil {
		return err
	}
	defer g.sandbox.setups.end()
	if err := g.openCPU(); err != nil {
		return err
	}
	// What an earlier process of ours left behind when it was killed.
	if err := volume.RemoveAll(g.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(g.upper(), 0o755); err != nil {
		return err
	}
	img := image.Image{Ref: g.config.ImageRef, ID: g.config.ImageID, Module: g.config.Module}
	root, letGo, err := g.sandbox.roots.acquire(img.ID, func() (*image.Root, error) {
		return cfg.Images.Root(ctx, img, filepath.Join(g.dir, "image"))
	})
	if err != nil {
		return err
	}
	g.letGo = letGo
	g.overlay = wasip1.NewOverlay(wasip1.OverlayConfig{Lower: root.lower, Dir: g.upper(), Account: g.memory})
	fs, err := g.files(ctx)
	if err != nil {
		return err
	}
	pod := g.config.Pod
	g.log, err = logs.Create(g.logPath(), logs.Options{OnError: func(err error) {
		cfg.Log.Warn("the log cannot be written", "pod", pod.Name, "container", g.config.Name, "error", err)
	}})
	if err != nil {
		return err
	}
	stdout, stderr := g.log.Stream("stdout"), g.log.Stream("stderr")
	var stdio Stdio
	if cfg.Stdio != nil {
		stdio = cfg.Stdio(g.config)
	}
	if network := g.sandbox.network; network != nil {
		g.network = &guestNetwork{network.Namespace, newAccount(g.config.Resources.MemoryBytes, g.memory)}
	}
	p := g.processConfig(g.config.Args)
	if err := g.preopen(&p); err != nil {
		return err
	}
	p.Root = fs
	p.TTY = g.config.TTY
	p.Stdin = g.streams.input(stdio.Stdin)
	p.Stdout = g.streams.tee(tee(stdout, stdio.Stdout), false)
	p.Stderr = g.streams.tee(tee(stderr, stdio.Stderr), !g.config.TTY)
	p.Prompt = stdio.Stdout == nil && stdio.Stderr == nil // the log alone
	g.process, err = wasip1.NewProcess(p)
	return err
}

// processConfig is what the container's process and the commands that Exec runs
// in it have in common.
func (g *guest) processConfig(args []string) wasip1.ProcessConfig {
	p := wasip1.ProcessConfig{
		Args:   args,
		Env:    withPWD(g.config.Env, g.config.WorkingDir),
		MaxFDs: maxFDs,
		Memory: g.memory,
	}
	g.networkConfig(&p)
	return p
}

// startInstance starts a process of the container. It is killed when ctx ends.
// g.mu is held.
func (g *guest) startInstance(ctx context.Context, name string, module *wasm.Module, process *wasip1.Process) (*wasm.Instance, error) {
	return g.sandbox.cfg.Engine.Start(ctx, module, wasm.InstanceConfig{
		Name:      name,
		Account:   g.memory,
		CPUShares: g.limits.CPUShares,
		CPU:       g.engineCPU(),
		Context:   func(ctx context.Context) context.Context { return wasip1.WithProcess(ctx, process) },
	})
}

// briefError is an error with a message of bounded length.
type briefError struct{ error }

func (e *briefError) Error() string { return clip(e.error.Error(), engineMessageBytes) }
func (e *briefError) Unwrap() error { return e.error }

// clip shortens what is longer than n bytes, and makes what a guest or a module
// has said text.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "..."
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// withPWD tells the guest its working directory where wasip1 programs look for
// it: preview 1 itself has no such notion.
func withPWD(env []string, dir string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "PWD=") {
			return env
		}
	}
	return append(slices.Clip(env), "PWD="+dir)
}

// tee writes to both; live may be nil.
func tee(log, live io.Writer) io.Writer {
	if live == nil {
		return log
	}
	return &liveWriter{log: log, live: live}
}

// liveWriter writes to a log and to somebody who looks on. That nobody looks on
// any more is not the guest's concern.
type liveWriter struct {
	log, live io.Writer
	gone      bool
}

func (w *liveWriter) Write(p []byte) (int, error) {
	n, err := w.log.Write(p)
	if err == nil && !w.gone {
		_, gone := w.live.Write(p)
		w.gone = gone != nil
	}
	return n, err
}

func (g *guest) etc(name string) string     { return filepath.Join(g.dir, "etc", name) }
func (g *guest) terminationLog() string     { return filepath.Join(g.dir, "termination-log") }
func (g *guest) ID() string                 { return g.id }
func (g *guest) Done() <-chan struct{}      { return g.done }
func (g *guest) Status() sandbox.ExitStatus { return g.status }

func (g *guest) logPath() string {
	pod := g.config.Pod
	return logs.Path(g.sandbox.cfg.LogRoot, pod.Namespace, pod.Name, pod.UID, g.config.Name, g.config.Attempt)
}

// files lays out what the guest sees: its private root, the files that every
// container of a pod has, and the mounts of its blueprint over them.
func (g *guest) files(ctx context.Context) (wasip1.FS, error) {
	s := g.sandbox
	if err := os.MkdirAll(filepath.Join(g.dir, "etc"), 0o755); err != nil {
		return wasip1.FS{}, err
	}
	etc := map[string][]byte{
		"hosts":       s.hostsFile(),
		"hostname":    []byte(g.config.Hostname + "\n"),
		"resolv.conf": container.ResolvConf(s.pod, s.cfg.ResolvConf, s.cfg.ClusterDNS),
	}
	// Later mounts shadow earlier ones: a volume at /dev hides the devices, but a
	// volume at /etc still gets the pod's hosts file, unless the manifest mounts
	// something at that very path (VOL-34).
	mounts := append([]wasip1.Mount{{GuestPath: "/", Overlay: g.overlay, ReadOnly: g.config.ReadOnlyRootFS}}, wasip1.Devices()...)
	taken := make(map[string]bool)
	for _, m := range g.config.Mounts {
		mount, err := g.mount(ctx, m)
		if err != nil {
			return wasip1.FS{}, err
		}
		mounts = append(mounts, mount)
		taken[m.GuestPath] = true
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := os.WriteFile(g.etc(name), etc[name], 0o644); err != nil {
			return wasip1.FS{}, err
		}
		if p := "/etc/" + name; !taken[p] {
			mounts = append(mounts, wasip1.Mount{GuestPath: p, Host: g.etc(name), ReadOnly: g.config.ReadOnlyRootFS})
		}
	}
	// 0666 whatever the umask, and empty for every attempt (TMSG-01).
	if err := os.WriteFile(g.terminationLog(), nil, 0o666); err != nil {
		return wasip1.FS{}, err
	}
	if err := os.Chmod(g.terminationLog(), 0o666); err != nil {
		return wasip1.FS{}, err
	}
	mounts = append(mounts, wasip1.Mount{GuestPath: path.Clean("/" + g.config.TerminationMessagePath), Host: g.terminationLog()})
	g.makePlaces(mounts)
	return wasip1.FS{Mounts: mounts}, nil
}

// mount finds where a mount's volume lies on this host.
func (g *guest) mount(ctx context.Context, m container.Mount) (wasip1.Mount, error) {
	s := g.sandbox
	v, ok := s.cfg.Volumes.Volume(s.pod.UID, m.Volume)
	if !ok { // VOL-21
		return wasip1.Mount{}, &sandbox.ConfigError{Err: fmt.Errorf("cannot find volume %q to mount into container %q", m.Volume, g.config.Name)}
	}
	if v.Image != "" {
		return g.mountImage(ctx, v.Image, m)
	}
	if memory, ok := v.Memory.(memoryVolume); ok {
		return g.mountMemory(memory, m, m.ReadOnly || v.ReadOnly)
	}
	mount := wasip1.Mount{GuestPath: m.GuestPath, Host: v.Path, ReadOnly: m.ReadOnly || v.ReadOnly}
	if m.SubPath != "" {
		part, err := s.cfg.Volumes.SubPath(s.pod.UID, g.config.Name, m.Volume, m.SubPath)
		if err != nil { // VOL-30
			return wasip1.Mount{}, &sandbox.ConfigError{Err: err}
		}
		mount.Host, mount.Beneath = part.Root, part.Name
	}
	return mount, nil
}

// Start implements sandbox.Container.
func (g *guest) Start(ctx context.Context) error {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return errors.New("the container was killed before it started")
	}
	g.process.OnSignalLost(func(signal int) {
		if i := g.live(); i != nil {
			i.Signal(signal)
		}
	})
	instance, err := g.startInstance(context.WithoutCancel(ctx), g.id, g.module, g.process)
	g.instance, g.receiver, g.ended = instance, g.process, err != nil
	g.started = time.Now()
	g.mu.Unlock()
	if err != nil {
		g.end(wasm.Exit{Code: 128, Reason: "StartError", Message: err.Error()})
		return &briefError{err}
	}
	go func() {
		<-instance.Done()
		g.mu.Lock()
		g.ended = true
		g.mu.Unlock()
		g.end(instance.Exit())
	}()
	return nil
}

// Signal implements sandbox.Container.
func (g *guest) Signal(signal int) {
	g.mu.Lock()
	instance, receiver := g.instance, g.receiver
	g.mu.Unlock()
	// First who reads signals, then the handler or the default action.
	if instance == nil || receiver != nil && receiver.Signal(signal) {
		return
	}
	instance.Signal(signal)
}

// Kill implements sandbox.Container. A container that was never started ends
// at once.
func (g *guest) Kill() {
	g.mu.Lock()
	instance, unstarted := g.instance, g.instance == nil && !g.ended
	g.ended = g.ended || unstarted
	g.mu.Unlock()
	switch {
	case instance != nil:
		instance.Kill()
	case unstarted:
		go g.end(wasm.Exit{Code: 137, Reason: "Error"})
	}
}

// live is the guest's instance; nil before its start.
func (g *guest) live() *wasm.Instance {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.instance
}

// end records how the guest ended and lets go of what it held. It is called
// once. It takes as long as the removal of whatever files the guest has left, and
// so holds no lock: nobody else may have to wait for that.
func (g *guest) end(exit wasm.Exit) {
	g.commands.stop() // they use the files of the process
	exit = g.commands.blame(exit)
	g.streams.close()
	g.programs.release()
	g.closeStreams()
	g.status = sandbox.ExitStatus{Code: exit.Code, Reason: exit.Reason, Message: g.terminationMessage(exit)}
	if err := g.release(); err != nil {
		g.status.Message = cmp.Or(g.status.Message, err.Error())
	}
	g.sandbox.mu.Lock()
	delete(g.sandbox.running, g)
	g.sandbox.mu.Unlock()
	close(g.done)
}

// terminationMessage follows TMSG-02..04 and 06.
func (g *guest) terminationMessage(exit wasm.Exit) string {
	message, err := lastBytes(g.terminationLog(), terminationFileBytes)
	if err != nil {
		message = fmt.Sprintf("Error on reading termination log %s: %v", g.config.TerminationMessagePath, err)
	}
	if message == "" && exit.Code != 0 && g.config.TerminationMessagePolicy == "FallbackToLogsOnError" {
		message, err = logs.LastLines(g.logPath(), terminationLogLines, terminationLogBytes)
		if err != nil {
			message = fmt.Sprintf("Error on reading termination message from logs: %v", err)
		}
	}
	message = strings.ToValidUTF8(message, "\ufffd") // the guest's words
	why := clip(exit.Message, engineMessageBytes)
	switch {
	case why == "":
		return message
	case message == "":
		return why
	}
	return why + ": " + message
}

// lastBytes reads at most the last n bytes of a file that the guest may have
// replaced or grown.
func lastBytes(name string, n int64) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-n), n))
	return string(b), err
}

func (g *guest) closeStreams() {
	if g.process != nil {
		g.process.Close()
		g.process = nil
	}
	if g.log != nil {
		g.log.Close()
		g.log = nil
	}
}

// release gives back what create made; it may run twice.
func (g *guest) release() error {
	g.closeStreams()
	if g.cpu != nil {
		g.cpu.Close() // its usage stays
	}
	if g.overlay != nil {
		g.overlay.Close()
	}
	for _, done := range g.volumes {
		done()
	}
	g.volumes = nil
	if g.letGo != nil {
		g.letGo()
	}
	return volume.RemoveAll(g.dir)
}
