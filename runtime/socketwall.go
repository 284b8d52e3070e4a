package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/wasmpod/wasmpod/cgroup/netwall"
	"github.com/wasmpod/wasmpod/podnet/egress"
	"github.com/wasmpod/wasmpod/podnet/hostport"
	"github.com/wasmpod/wasmpod/runtime/metrics"
)

// EgressWall is whether the kernel is to check what sockets of pods connect to,
// too: see Config.EgressWall.
type EgressWall string

// The values of EgressWall; the empty one is WallOff.
const (
	WallOff      EgressWall = "off"
	WallAuto     EgressWall = "auto"     // if it can
	WallRequired EgressWall = "required" // or nothing is run
)

// maxHostPolicies bounds the different policies of pods on the host's network,
// which the kernel is given as one.
const maxHostPolicies = 64

// socketWall has the kernel hold real sockets of pods to their policies. It takes
// some milliseconds to have one, so that it is opened when the first socket needs
// it. A nil one is none. It is safe for concurrent use.
type socketWall struct {
	required bool
	group    func() (socketGroup, error)
	log      *slog.Logger

	once   sync.Once
	kernel *netwall.Wall // nil: it cannot be had
	leave  func() error
	err    error
	lost   atomic.Bool // sockets are not in the group any more

	found atomic.Pointer[Check] // once it was opened, or could not be
}

// socketGroup is a control group in which the sockets of this process are to be opened.
type socketGroup struct {
	dir   string
	enter func() error // moves the process there
	leave func() error // moves it back, and removes the group
}

// newSocketWall returns the wall that cfg asks for; nil if it asks for none.
func newSocketWall(cfg Config, around *wall) (*socketWall, error) {
	s := &socketWall{log: cfg.Log, group: func() (socketGroup, error) { return newSocketGroup(cfg, around) }}
	switch cfg.EgressWall {
	case "", WallOff:
		return nil, nil
	case WallAuto:
		return s, nil
	case WallRequired:
		s.required = true
		if s.open(); s.err != nil {
			return nil, fmt.Errorf("--egress-wall required: %w", s.err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("--egress-wall %s: want auto, required or off", cfg.EgressWall)
}

// open makes a group for this process if it has none of its own, and attaches
// programs to it.
func (s *socketWall) open() *netwall.Wall {
	s.once.Do(func() {
		group, err := s.group()
		if err == nil {
			// While the kernel waits until it may move the process, it can load programs.
			entered := make(chan error, 1)
			go func() { entered <- group.enter() }()
			kernel, failed := netwall.Open(group.dir)
			if err = errors.Join(failed, <-entered); err == nil {
				s.kernel = kernel
			} else {
				if kernel != nil {
					err = errors.Join(err, kernel.Close())
				}
				err = errors.Join(err, group.leave())
			}
		}
		c := egressWallCheck(err)
		s.found.Store(&c)
		if s.err = err; err != nil {
			s.log.Info("the kernel does not check the sockets of pods: policy is enforced by wasmpod alone", "error", err)
			return
		}
		s.leave = group.leave
		s.log.Info("the kernel checks the sockets of pods", "group", group.dir)
	})
	return s.kernel
}

// prepare has the wall ready when the first socket needs it.
func (s *socketWall) prepare() {
	if s != nil {
		go s.open()
	}
}

func (s *socketWall) close() error {
	if s == nil {
		return nil
	}
	s.once.Do(func() {}) // or it waits until it is open
	if s.kernel == nil {
		return nil
	}
	return errors.Join(s.kernel.Close(), s.leave())
}

// guard has the kernel hold the sockets of one pod, or of whoever else has some, to
// its policies. It is safe for concurrent use.
type guard struct {
	wall *socketWall
	log  *slog.Logger

	mu       sync.Mutex
	policies []egress.Policy // all of which have to allow what is reached
	pod      *netwall.Pod    // nil: no socket has needed it
	closed   bool
	told     bool
}

// newGuard returns a guard for what several policies allow together.
func (s *socketWall) newGuard(log *slog.Logger, policies ...egress.Policy) *guard {
	return &guard{wall: s, log: log, policies: policies}
}

func compiled(policies []egress.Policy) (table []netwall.Destination) {
	for _, d := range egress.Table(policies...) {
		table = append(table, netwall.Destination(d))
	}
	return table
}

// get returns what sockets are to be marked with. The kernel checks sockets that
// are opened after this; nil is what it has where it cannot.
func (g *guard) get() (*netwall.Pod, error) {
	if g.wall == nil {
		return nil, nil
	}
	kernel := g.wall.open()
	if kernel == nil {
		return nil, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, net.ErrClosed
	}
	if g.pod == nil {
		pod, err := kernel.NewPod(compiled(g.policies))
		if err != nil {
			g.tell("a pod opens no sockets: the kernel cannot be given its policy", "error", err)
			return nil, errors.Join(err, syscall.ENOBUFS)
		}
		g.pod = pod
	}
	return g.pod, nil
}

// tell logs what should not be, once for each pod. g.mu is held.
func (g *guard) tell(message string, args ...any) {
	if !g.told {
		g.told = true
		g.log.Warn(message, args...)
	}
}

// set replaces the policies.
func (g *guard) set(policies []egress.Policy) error {
	if g.wall == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.policies = policies
	if g.pod == nil {
		return nil
	}
	return g.pod.SetPolicy(compiled(policies))
}

// mark is egress.Config.Mark.
func (g *guard) mark(fd uintptr) error {
	pod, err := g.get()
	if err != nil {
		return err
	}
	return pod.MarkDialer(fd)
}

// dial runs f, which opens a socket of the pod and connects it, and looks at
// whether the kernel has taken part.
func (g *guard) dial(address string, f func() (net.Conn, error)) (net.Conn, error) {
	pod, err := g.get()
	if err != nil {
		return nil, err
	}
	if pod == nil {
		return f()
	}
	before := pod.Stats()
	conn, err := f()
	after := pod.Stats()
	switch {
	case err != nil && after.Denied > before.Denied:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.tell("the kernel has refused a connection that wasmpod would have allowed: report this", "to", address)
	case err == nil && after.Checked == before.Checked:
		if !g.wall.lost.Swap(true) {
			g.log.Warn("the kernel does not check the sockets of pods any more: has this process been moved to another cgroup?")
		}
		if g.wall.required {
			return nil, errors.Join(syscall.EACCES, conn.Close())
		}
	}
	return conn, err
}

// listen is hostport.Listen.
func (g *guard) listen(ctx context.Context, network string, at netip.AddrPort, cfg hostport.Config) (*hostport.Forwarder, error) {
	pod, err := g.get()
	if err != nil {
		return nil, err
	}
	if pod != nil {
		cfg.Mark = pod.MarkListener
	}
	return hostport.Listen(ctx, network, at, cfg)
}

// usage is what the kernel has counted; nil if it does not.
func (g *guard) usage() *metrics.Outside {
	g.mu.Lock()
	pod := g.pod
	g.mu.Unlock()
	if pod == nil {
		return nil
	}
	s := pod.Stats()
	return &metrics.Outside{RxBytes: s.RxBytes, RxPackets: s.RxPackets, TxBytes: s.TxBytes, TxPackets: s.TxPackets, Denied: s.Denied}
}

// close lets the kernel forget; what sockets there still are reach nothing.
func (g *guard) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.pod.Close()
}

const egressWallName = "egress, by the kernel"

// check says what is in force.
func (s *socketWall) check() Check {
	switch {
	case s == nil:
		return Check{
			Name: egressWallName, Status: "absent",
			Mechanism: "switched off: policy is enforced where wasmpod connects for a pod", Hint: "set --egress-wall auto",
		}
	case s.lost.Load():
		return egressWallCheck(errors.New("this process was moved out of its group"))
	}
	if c := s.found.Load(); c != nil {
		return *c
	}
	return Check{Name: egressWallName, Status: "ok", Mechanism: "from when a pod opens its first socket"}
}

// checkSocketWall says whether the kernel can check sockets of pods.
func checkSocketWall(cfg Config) Check {
	if cfg.EgressWall == "" || cfg.EgressWall == WallOff {
		return (*socketWall)(nil).check()
	}
	group, err := newSocketGroup(Config{DataDir: cfg.DataDir, Log: slog.New(slog.DiscardHandler)}, nil)
	if err == nil {
		var w *netwall.Wall
		if w, err = netwall.Open(group.dir); err == nil {
			err = w.Close()
		}
		err = errors.Join(err, group.leave())
	}
	return egressWallCheck(err)
}

// egressWallCheck is of a wall that could be opened, or not for this reason.
func egressWallCheck(err error) Check {
	c := Check{Name: egressWallName, Status: "absent"}
	if err != nil {
		c.Mechanism = err.Error() + "; policy is enforced where wasmpod connects for a pod"
		c.Hint = "run as root, or with CAP_BPF and CAP_NET_ADMIN in a cgroup v2 group that is delegated (systemd-run --user --scope -p Delegate=yes)"
		return c
	}
	c.Status, c.Mechanism = "enforced", "BPF programs at connect, sendmsg and bind of the process's own cgroup v2 group, from when a pod's first socket is opened; packets are counted"
	return c
}
