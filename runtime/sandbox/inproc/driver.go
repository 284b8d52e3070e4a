// Package inproc runs pods as goroutines of this process (isolation class
// wasmpod-shared): the densest form, and one that needs no privileges.
package inproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/sandbox/infra"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Config is what sandboxes are made of.
type Config struct {
	Engine  *wasm.Engine
	Images  *image.Service
	Volumes *volume.Manager
	// Network gives pods that are not on the host's network one of their own.
	// Connect, if not nil, does so in its place, for all pods, before anything of
	// the pod runs. id is the sandbox's.
	Network *podnet.Network
	Connect func(ctx context.Context, pod *corev1.Pod, id string) (*Connection, error)
	// CPU is what containers' processor time is charged to. Nil: nobody counts, and
	// limits are not enforced.
	CPU *bpf.Accounting
	// ClusterDNS is the address of the cluster's resolver; empty: there is none.
	ClusterDNS string
	// Root is the directory under which every pod has its own, by UID.
	Root string
	// LogRoot is where log files go (LOG-01).
	LogRoot string
	// ResolvConf and Hosts are the node's /etc/resolv.conf and /etc/hosts.
	ResolvConf, Hosts []byte
	// Stdio, if not nil, gives what is connected to a container besides its log:
	// where its output also goes, and its standard input. Any may be nil.
	Stdio func(container.Config) Stdio
	Log   *slog.Logger
}

// Stdio is connected to one container.
type Stdio struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Connection is what a pod has of a network.
type Connection struct {
	Namespace *podnet.Namespace
	IP        string // as others know it
	// Close ends it; it may be called more than once.
	Close func() error
}

// Driver implements sandbox.Driver.
type Driver struct {
	cfg    Config
	setups setups
	roots  roots
}

// New returns a Driver.
func New(cfg Config) *Driver {
	// Enough that a few slow ones hold up nobody.
	return &Driver{cfg: cfg, setups: make(setups, 8*goruntime.GOMAXPROCS(0))}
}

var errRemoving = errors.New("the pod sandbox is being removed")

// setups bounds how many sandboxes and containers are set up at a time. A
// thousand at once would not be ready any sooner, but everything else that runs
// here would wait for its turn behind all of them.
type setups chan struct{}

// begin waits for a place; the caller calls end.
func (s setups) begin(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s setups) end() { <-s }

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, pod *corev1.Pod, attempt int) (sandbox.Sandbox, error) {
	s := &podSandbox{
		cfg:     d.cfg,
		setups:  d.setups,
		roots:   &d.roots,
		pod:     pod,
		id:      fmt.Sprintf("%s-%d", pod.UID, attempt),
		dir:     filepath.Join(d.cfg.Root, string(pod.UID)),
		modules: make(map[string]*wasm.Module),
		running: make(map[*guest]struct{}),
	}
	s.creation, s.abandon = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := d.setups.begin(ctx); err != nil {
		return nil, err
	}
	defer d.setups.end()
	for i, step := range steps {
		if err := step.setup(s, ctx); err != nil {
			err = fmt.Errorf("%s: %w", step.name, err)
			return nil, errors.Join(err, s.teardown(context.WithoutCancel(ctx), i))
		}
	}
	return s, nil
}

// podSandbox implements sandbox.Sandbox.
type podSandbox struct {
	cfg    Config
	setups setups
	roots  *roots
	pod    *corev1.Pod
	id     string
	dir    string

	budget  podBudget
	network *Connection // nil on the host's network where there is no Config.Connect
	infra   *wasm.Instance
	pause   *wasip1.Process // of infra

	creation context.Context // of containers; ends when the sandbox is removed
	abandon  context.CancelCauseFunc

	mu       sync.Mutex
	modules  map[string]*wasm.Module // by digest: see module
	removing bool
	creating sync.WaitGroup // Create calls under way; Add only while !removing
	running  map[*guest]struct{}
}

// steps are set up forwards and torn down backwards. A teardown runs also when
// its setup failed midway, and may run twice.
var steps = []struct {
	name            string
	setup, teardown func(*podSandbox, context.Context) error
}{
	{"pod directory", (*podSandbox).makeDir, (*podSandbox).removeDir},
	{"pod network", (*podSandbox).joinNetwork, (*podSandbox).leaveNetwork},
	{"modules", (*podSandbox).noModules, (*podSandbox).releaseModules},
	{"infra module", (*podSandbox).startInfra, (*podSandbox).stopInfra},
	{"containers", (*podSandbox).noContainers, (*podSandbox).killContainers},
}

// teardown undoes the steps up to and including the one with index last.
func (s *podSandbox) teardown(ctx context.Context, last int) error {
	for i := last; i >= 0; i-- {
		if err := steps[i].teardown(s, ctx); err != nil {
			return fmt.Errorf("%s: %w", steps[i].name, err)
		}
	}
	return nil
}

func (s *podSandbox) ID() string            { return s.id }
func (s *podSandbox) Done() <-chan struct{} { return s.infra.Done() }

func (s *podSandbox) IP() string {
	if s.network == nil {
		return ""
	}
	return s.network.IP
}

// Remove implements sandbox.Sandbox.
func (s *podSandbox) Remove(ctx context.Context) error {
	return s.teardown(ctx, len(steps)-1)
}

func (s *podSandbox) containersDir() string { return filepath.Join(s.dir, "containers") }

func (s *podSandbox) makeDir(context.Context) error {
	return os.MkdirAll(s.containersDir(), 0o755)
}

// removeDir leaves the pod's volumes alone: they outlive the sandbox (SBX-10).
func (s *podSandbox) removeDir(context.Context) error {
	if err := volume.RemoveAll(s.containersDir()); err != nil {
		return err
	}
	// Fails while there are volumes, whose manager removes the directory.
	_ = os.Remove(s.dir)
	return nil
}

// hostsFile is rewritten at each container start (NET-03).
func (s *podSandbox) hostsFile() []byte {
	if s.pod.Spec.HostNetwork {
		return container.HostNetworkHostsFile(s.pod, s.cfg.Hosts)
	}
	return container.HostsFile(s.pod, s.IP())
}

func (s *podSandbox) joinNetwork(ctx context.Context) error {
	if err := container.CheckHostname(s.pod); err != nil { // NET-02
		return err
	}
	if s.cfg.Connect != nil {
		var err error
		s.network, err = s.cfg.Connect(ctx, s.pod, s.id)
		return err
	}
	if s.pod.Spec.HostNetwork {
		return nil
	}
	ns, err := s.cfg.Network.NewNamespace()
	if err != nil {
		return err
	}
	s.network = &Connection{Namespace: ns, IP: ns.IP().String(), Close: ns.Close}
	return nil
}

func (s *podSandbox) leaveNetwork(context.Context) error {
	if s.network == nil {
		return nil
	}
	return s.network.Close()
}

// startInfra starts the module that stands for the sandbox: as long as it runs,
// the sandbox is there (SBX-02, SBX-12).
func (s *podSandbox) startInfra(ctx context.Context) error {
	module, err := s.module(ctx, infra.Digest, func() ([]byte, error) { return infra.Module, nil })
	if err != nil {
		return err
	}
	process, err := wasip1.NewProcess(wasip1.ProcessConfig{Args: []string{"pause"}})
	if err != nil {
		return err
	}
	s.pause = process
	s.infra, err = s.cfg.Engine.Start(context.WithoutCancel(ctx), module, wasm.InstanceConfig{
		Name:    s.id + "/pause",
		Context: func(ctx context.Context) context.Context { return wasip1.WithProcess(ctx, process) },
	})
	return err
}

func (s *podSandbox) stopInfra(context.Context) error {
	if s.infra != nil {
		s.infra.Kill()
		<-s.infra.Done()
	}
	if s.pause != nil {
		return s.pause.Close()
	}
	return nil
}

// module compiles a module. It is held until the sandbox is gone, so that a
// container that restarts does not have its module decoded again.
func (s *podSandbox) module(ctx context.Context, digest string, load func() ([]byte, error)) (*wasm.Module, error) {
	s.mu.Lock()
	m := s.modules[digest]
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := compile(ctx, s.cfg.Engine, digest, load)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.modules[digest]; held != nil {
		m.Release()
		return held, nil
	}
	s.modules[digest] = m
	return m, nil
}

// compile returns when ctx ends, though a compilation under way is finished:
// others may be waiting for it.
func compile(ctx context.Context, engine *wasm.Engine, digest string, load func() ([]byte, error)) (*wasm.Module, error) {
	type result struct {
		module *wasm.Module
		err    error
	}
	done := make(chan result, 1)
	go func() {
		m, err := engine.Compile(ctx, digest, load)
		done <- result{m, err}
	}()
	select {
	case r := <-done:
		return r.module, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.module != nil {
				r.module.Release()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (s *podSandbox) noModules(context.Context) error { return nil }

func (s *podSandbox) releaseModules(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, m := range s.modules {
		m.Release()
		delete(s.modules, digest)
	}
	return nil
}

func (s *podSandbox) noContainers(context.Context) error { return nil }

// killContainers ends what the stop sequence has left.
func (s *podSandbox) killContainers(context.Context) error {
	s.mu.Lock()
	s.removing = true
	s.mu.Unlock()
	s.abandon(errRemoving) // a compilation, say, which may take long
	s.creating.Wait()
	for _, g := range s.guests() {
		g.Kill()
		<-g.Done()
	}
	return nil
}

func (s *podSandbox) guests() []*guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	guests := make([]*guest, 0, len(s.running))
	for g := range s.running {
		guests = append(guests, g)
	}
	return guests
}
