// Package runtime puts the parts together: it opens the image store, the guest
// engine and the directories of a node, takes Kubernetes objects, and runs
// their pods. Only the commands import it.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/cgroup/bpf"
	"github.com/wasmpod/wasmpod/runtime/image"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/logs"
	"github.com/wasmpod/wasmpod/runtime/metrics"
	"github.com/wasmpod/wasmpod/runtime/podworker"
	"github.com/wasmpod/wasmpod/runtime/sandbox/inproc"
	"github.com/wasmpod/wasmpod/runtime/store"
	"github.com/wasmpod/wasmpod/runtime/volume"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// Config is what a Runtime is opened with. The zero value, but for DataDir, is
// sensible.
type Config struct {
	// DataDir holds the image store, compiled code, logs and what running pods
	// need. Several processes may share one.
	DataDir string
	// ImageStores are further image stores, which are only read.
	ImageStores []string
	// Registries is how images are pulled.
	Registries image.Registries
	// Signatures and Imports: see image.Config.
	Signatures []image.SignaturePolicy
	Imports    image.ImportPolicy
	// SettleImages: see image.Config.Settle.
	SettleImages bool
	// ImageGC is when images that are not used are removed from the store; the zero
	// value: never. Images that were built or loaded here are kept.
	ImageGC image.Thresholds
	// BaseDir is what relative image paths start from.
	BaseDir string
	// NodeName is the name of this node; default: the host's.
	NodeName string
	// PodIPs is where pod IPs come from. Default: a part of podnet.DefaultPrefix
	// that no other process on this host uses, so that pods can be reached from the
	// host at their IPs. With a range of its own that is not so.
	PodIPs netip.Prefix
	// Egress is what pods may reach outside, as egress.Parse reads it; default
	// allow, which does not mean the host itself. The annotation
	// wasmpod.dev/egress of a pod can only narrow it.
	Egress string
	// EgressWall has the kernel check that too, with this process in a cgroup of its
	// own from when a pod's first real socket is opened; default off.
	EgressWall EgressWall
	// CgroupParent is the group of the kernel in which this process makes one for
	// itself, "auto" for the one it is in; empty: none is made. See package cgroupfs.
	CgroupParent string
	// Reserved is what pods do not get of the machine's resources.
	Reserved corev1.ResourceList
	// EvictBelow is how many bytes of memory are to be available: when there are
	// less, pods are evicted (RES-31). 0: never.
	EvictBelow int64
	// CNIConfDir, if not empty, has a configuration of CNI, whose plugins in
	// CNIBinDirs then give pods their IPs, each in a network namespace of the kernel:
	// see package cni. It needs root.
	CNIConfDir string
	CNIBinDirs []string
	// Interpreter runs guests without compiling them: slower, but on any CPU.
	Interpreter bool

	// Stdio, OnProgress and OnEvent: see inproc.Config and podworker.Config.
	Stdio      StdioFunc
	OnProgress func(pod *corev1.Pod, fact lifecycle.Fact)
	OnEvent    func(*corev1.Event)

	// Worker, if not nil, may change what the worker of each pod works with. Tests
	// put what fails in the place of what works.
	Worker func(*podworker.Config)

	Log *slog.Logger
}

// Runtime runs pods. Its methods are safe for concurrent use.
type Runtime struct {
	cfg     Config
	node    podworker.Node
	images  *image.Service
	engine  *wasm.Engine
	network *network
	driver  *inproc.Driver
	volume  *volume.Manager
	store   *store.Store
	run     *runDir
	events  *metrics.Events
	wall    *wall
	oom     *oomGuard
	cpu     *bpf.Accounting // nil under a fake clock
	opened  time.Time

	ctx    context.Context // of everything that runs
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	workers map[types.UID]*podworker.Worker
	blocked map[types.UID]blockage
	waiting map[types.UID]corev1.PodStatus // of pods that were ended while Pending
	jobs    []*job
	tasks   sync.WaitGroup // job controllers

	mechanisms atomic.Pointer[[]Check] // once they are settled
	conditions conditions

	storage sync.Once // starts watchStorage
	claims  claims
}

// blockage is why a pod does not get on.
type blockage struct {
	since   time.Time
	message string
}

// Open makes what pods need. Close it.
func Open(ctx context.Context, cfg Config) (_ *Runtime, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runtime{
		cfg:     cfg,
		store:   store.New(),
		workers: make(map[types.UID]*podworker.Worker),
		blocked: make(map[types.UID]blockage),
		waiting: make(map[types.UID]corev1.PodStatus),
		events:  metrics.NewEvents(),
		opened:  time.Now(),
	}
	r.node = thisNode(cfg.NodeName)
	if err := reserve(r.node.Allocatable, cfg.Reserved); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()

	if r.images, err = OpenImages(cfg); err != nil {
		return nil, err
	}
	if r.run, err = newRunDir(filepath.Join(cfg.DataDir, "run"), cfg.Log); err != nil {
		return nil, err
	}
	if r.wall, err = openWall(cfg, r.node.Allocatable); err != nil {
		return nil, err
	}
	r.oom = r.newOOMGuard()
	for _, end := range r.run.ends {
		cfg.Log.Warn(end)
		r.nodeEvent("OOMKilling", end)
	}
	pruneLogs(r.logRoot(), cfg.Log)
	if r.engine, err = newEngine(ctx, cfg, r.oom.killed); err != nil {
		return nil, err
	}
	pods := filepath.Join(r.run.path, "pods")
	r.volume = volume.NewManager(volume.Config{
		Root:      r.run.path,
		ConfigMap: r.store.ConfigMap,
		Secret:    r.store.Secret,

		NewMemory:   inproc.NewMemoryVolume,
		MemoryBytes: r.node.Allocatable.Memory().Value(),
		Claim:       r.claims.get,
		Claims:      r.claimRoot(),
	})
	// A host without these: its pods have none either.
	resolvConf, _ := os.ReadFile("/etc/resolv.conf")
	hosts, _ := os.ReadFile("/etc/hosts")
	sockets, err := newSocketWall(cfg, r.wall)
	if err != nil {
		return nil, err
	}
	if r.network, err = newNetwork(ctx, cfg, r.store, resolvConf, sockets); err != nil {
		return nil, errors.Join(err, sockets.close())
	}
	r.cpu = processCPU()
	r.driver = inproc.New(inproc.Config{
		Engine:     r.engine,
		Images:     r.images,
		Volumes:    r.volume,
		Network:    r.network.net,
		CPU:        r.cpu,
		Connect:    r.network.connect,
		ClusterDNS: clusterDNSIP.String(),
		Root:       pods,
		LogRoot:    r.logRoot(),
		ResolvConf: resolvConf,
		Hosts:      hosts,
		Stdio:      cfg.Stdio,
		Log:        cfg.Log,
	})
	r.startImageCollector()
	r.startEvictor(cfg.EvictBelow)
	r.startLogCollector()
	r.startMechanisms()
	return r, nil
}

// newEngine opens the engine; killed may be nil, see wasm.Config.
func newEngine(ctx context.Context, cfg Config, killed func(int, time.Time) (string, bool)) (*wasm.Engine, error) {
	return wasm.New(ctx, wasm.Config{
		CacheDir:    filepath.Join(cfg.DataDir, "cache", "modules"),
		Interpreter: cfg.Interpreter,
		Hosts:       []wasm.HostModule{wasip1.Instantiate},
		ImportName:  wasip1.ImportName,
		Killed:      killed,
		Confine:     confine,
	})
}

// OpenImages opens the image store of a data directory alone.
func OpenImages(cfg Config) (*image.Service, error) {
	return image.Open(image.Config{
		Root:       filepath.Join(cfg.DataDir, "images"),
		ExtraRoots: cfg.ImageStores,
		BaseDir:    cfg.BaseDir,
		Registries: cfg.Registries,
		Signatures: cfg.Signatures,
		Imports:    cfg.Imports,
		Settle:     cfg.SettleImages,
	})
}

func (r *Runtime) logRoot() string { return filepath.Join(r.cfg.DataDir, "logs", "pods") }

// Close ends everything that still runs, at once, and releases it.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	workers := make([]*podworker.Worker, 0, len(r.workers))
	for _, w := range r.workers {
		workers = append(workers, w)
	}
	r.mu.Unlock()
	r.cancel()
	r.tasks.Wait()
	for _, w := range workers {
		<-w.Done()
	}
	var errs []error
	if r.engine != nil {
		errs = append(errs, r.engine.Close(context.Background()))
	}
	if r.network != nil {
		errs = append(errs, r.network.close())
	}
	if r.run != nil {
		errs = append(errs, r.oom.close(), r.run.remove())
	}
	return errors.Join(append(errs, r.wall.close())...)
}

// startPod adds a pod to the store and starts its worker.
func (r *Runtime) startPod(pod *corev1.Pod) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("the runtime is closed")
	}
	if err := r.store.AddPod(pod); err != nil {
		return err
	}
	if lifecycle.LimitsStorage(pod) {
		r.storage.Do(func() { r.tasks.Go(func() { r.watchStorage(r.ctx) }) })
	}
	config := podworker.Config{
		Driver:     r.driver,
		Images:     r.images,
		Volumes:    r.volume,
		Store:      r.store,
		Node:       r.node,
		Services:   r.network.of,
		VolumeFile: r.volume.ReadFile,
		RemoveLogs: func(pod *corev1.Pod, container string) error {
			return os.RemoveAll(filepath.Dir(logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), container, 0)))
		},
		OnProgress: r.progress,
		OnShown:    r.blockages,
		OnEvent:    r.cfg.OnEvent,
		Log:        r.cfg.Log,
	}
	if r.cfg.Worker != nil {
		r.cfg.Worker(&config)
	}
	r.workers[pod.UID] = podworker.Start(r.ctx, config, pod)
	return nil
}

// blockages keeps track of which pods wait for something that nothing in this
// process will bring about: an image, an object, a host path. Who gives such a pod
// up finds in its status what it waited for.
func (r *Runtime) blockages(pod *corev1.Pod, fact lifecycle.Fact) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if message, ok := blockedBy(fact); ok {
		b := r.blocked[pod.UID]
		if b.since.IsZero() {
			b.since = time.Now()
		}
		b.message = message
		r.blocked[pod.UID] = b
		if _, ended := r.waiting[pod.UID]; ended {
			// It was ended between this fact's events and its status, which is what it
			// waited for.
			if p := r.store.Pod(pod.UID); p != nil && p.Status.Phase == corev1.PodPending {
				r.waiting[pod.UID] = p.Status
			}
		}
	} else if _, ok := fact.(lifecycle.ContainerStarted); ok {
		delete(r.blocked, pod.UID)
	}
}

func (r *Runtime) progress(pod *corev1.Pod, fact lifecycle.Fact) {
	r.events.Observe(pod, fact)
	switch fact.(type) {
	case lifecycle.SandboxCreated:
		r.oom.runs(pod)
	case lifecycle.VolumesUnmounted:
		r.oom.gone(pod.UID)
	}
	if _, ok := fact.(lifecycle.VolumesUnmounted); ok && pod.DeletionTimestamp != nil {
		r.events.Forget(pod) // nobody asks for it any more
	}
	if r.cfg.OnProgress != nil {
		r.cfg.OnProgress(pod, fact)
	}
}

func blockedBy(fact lifecycle.Fact) (message string, blocked bool) {
	switch f := fact.(type) {
	case lifecycle.ImageFailed:
		return fmt.Sprintf("container %q: %s: %s", f.Container.Name, f.Reason, f.Message), true
	case lifecycle.ContainerStartFailed:
		// RunContainerError is a container that ended: restartPolicy deals with it.
		return fmt.Sprintf("container %q: %s: %s", f.Container.Name, f.Reason, f.Message), f.Reason != "RunContainerError"
	case lifecycle.VolumesFailed:
		return strings.Join(f.Messages, "; "), true
	case lifecycle.SandboxFailed:
		return "Failed to create pod sandbox: " + f.Message, true
	}
	return "", false
}
