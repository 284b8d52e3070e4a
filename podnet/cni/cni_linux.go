package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

const (
	defaultStateDir = "/run/wasmpod/cni"
	ifName          = "eth0"
	// maxThreads bounds the threads that one pod has in its namespace at a time.
	maxThreads = 8
)

// Network is a network that plugins connect pods to. It is safe for concurrent
// use.
type Network struct {
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	dir  string // of namespaces
}

// Open reads the configuration, checks that its plugins are there, and removes
// what processes of ours have left behind that were killed.
func Open(ctx context.Context, cfg Config) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotSupported
	}
	if cfg.StateDir == "" {
		cfg.StateDir = defaultStateDir
	}
	if len(cfg.BinDirs) == 0 {
		cfg.BinDirs = DefaultBinDirs
	}
	files, err := libcni.ConfFiles(cfg.ConfDir, []string{".conflist"})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no CNI configuration (*.conflist) in %s", cfg.ConfDir)
	}
	n := &Network{dir: filepath.Join(cfg.StateDir, "netns")}
	if n.list, err = libcni.ConfListFromFile(slices.Min(files)); err != nil {
		return nil, err
	}
	n.cni = libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, filepath.Join(cfg.StateDir, "cache"), nil)
	if _, err := n.cni.ValidateNetworkList(ctx, n.list); err != nil {
		return nil, fmt.Errorf("CNI network %q: %w", n.list.Name, err)
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	return n, n.prune(ctx)
}

// A namespace is mounted at a file with the name of its process and pod.
func (n *Network) path(id string) string {
	return filepath.Join(n.dir, strconv.Itoa(os.Getpid())+"."+id)
}

func (n *Network) prune(ctx context.Context) error {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		owner, id, _ := strings.Cut(e.Name(), ".")
		pid, err := strconv.Atoi(owner)
		if err != nil || pid == os.Getpid() || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		path := filepath.Join(n.dir, e.Name())
		errs = append(errs, n.remove(ctx, &libcni.RuntimeConf{ContainerID: id, NetNS: path, IfName: ifName}))
	}
	return errors.Join(errs...)
}

// Link is a pod's connection to a Network. It is safe for concurrent use.
type Link struct {
	ips     []netip.Addr
	network *Network
	config  *libcni.RuntimeConf
	threads chan struct{}

	mu     sync.Mutex
	netns  *os.File // nil once closed
	closed bool
}

// Add makes a namespace and has the plugins connect it.
func (n *Network) Add(ctx context.Context, pod Pod) (_ *Link, err error) {
	rt := &libcni.RuntimeConf{
		ContainerID: pod.ID, NetNS: n.path(pod.ID), IfName: ifName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", pod.Namespace}, {"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", pod.ID}, {"K8S_POD_UID", pod.UID},
		},
	}
	if err := newNamespace(rt.NetNS); err != nil {
		return nil, err
	}
	l := &Link{network: n, config: rt, threads: make(chan struct{}, maxThreads)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close(context.WithoutCancel(ctx)))
		}
	}()
	if l.netns, err = os.Open(rt.NetNS); err != nil {
		return nil, err
	}
	result, err := n.cni.AddNetworkList(ctx, n.list, rt)
	if err != nil {
		return nil, fmt.Errorf("CNI network %q: %w", n.list.Name, err)
	}
	r, err := current.GetResult(result)
	if err != nil {
		return nil, err
	}
	for _, c := range r.IPs {
		if ip, ok := netip.AddrFromSlice(c.Address.IP); ok {
			l.ips = append(l.ips, ip.Unmap())
		}
	}
	if len(l.ips) == 0 {
		return nil, fmt.Errorf("CNI network %q gave no IP", n.list.Name)
	}
	return l, nil
}

// newNamespace mounts a new namespace at path. Its loopback is down: what is
// the pod's own is in memory.
func newNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o400)
	if err != nil {
		return err
	}
	f.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("network namespace: %w", err), os.Remove(path))
	}
	return nil
}

// Do runs f on a thread in the pod's namespace: sockets that f itself opens are
// there, and stay there.
func (l *Link) Do(ctx context.Context, f func() error) error {
	select {
	case l.threads <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: a thread that has been elsewhere is not used again
		defer func() { <-l.threads }()
		done <- l.do(f)
	}()
	return <-done
}

func (l *Link) do(f func() error) error {
	l.mu.Lock()
	if l.netns == nil {
		l.mu.Unlock()
		return os.ErrClosed
	}
	err := unix.Setns(int(l.netns.Fd()), unix.CLONE_NEWNET)
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	return f()
}

// Close has the plugins disconnect the pod, and removes the namespace. Sockets
// that were opened in it are to be closed before. Calls after one that has
// succeeded do nothing.
func (l *Link) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if l.netns != nil {
		l.netns.Close()
		l.netns = nil
	}
	err := l.network.remove(ctx, l.config)
	l.closed = err == nil
	return err
}

func (n *Network) remove(ctx context.Context, rt *libcni.RuntimeConf) error {
	config := *rt
	var fs unix.Statfs_t
	if err := unix.Statfs(rt.NetNS, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		config.NetNS = "" // it is gone, or was never there
	}
	if err := n.cni.DelNetworkList(ctx, n.list, &config); err != nil {
		return fmt.Errorf("CNI network %q: %w", n.list.Name, err)
	}
	if err := unix.Unmount(rt.NetNS, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", rt.NetNS, err)
	}
	if err := os.Remove(rt.NetNS); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
