package inproc

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/podnet"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/wasip1"
	"github.com/wasmpod/wasmpod/runtime/wasm"
)

// maxFDs is the limit of a container's open descriptors, of which sockets cost
// the host no descriptor of its own.
const maxFDs = 1 << 14

// socketMemory bounds what the buffers of a container's sockets hold together,
// in bytes, whatever its memory limit.
const socketMemory = 64 << 20

// account charges socket buffers to a container (podnet.Account). Where the
// container has a memory limit a quarter of it is the bound: what others send
// is paid for by who sends, and a guest must not make the host hold more than
// it might hold itself.
type account struct {
	used   atomic.Int64
	limit  int64
	memory *wasm.Account // the container's, which pays for it too
}

func newAccount(memoryLimit int64, memory *wasm.Account) *account {
	a := &account{limit: socketMemory, memory: memory}
	if memoryLimit > 0 {
		a.limit = min(a.limit, max(memoryLimit/4, 1<<20))
	}
	return a
}

// Charge implements podnet.Account.
func (a *account) Charge(bytes int64) bool {
	if a.used.Add(bytes) > a.limit || !a.memory.Charge(bytes) {
		a.used.Add(-bytes)
		return false
	}
	return true
}

// Release implements podnet.Account.
func (a *account) Release(bytes int64) {
	a.used.Add(-bytes)
	a.memory.Release(bytes)
}

// guestNetwork is the pod's network as one container has it: wasip1.Network.
type guestNetwork struct {
	namespace *podnet.Namespace
	account   *account
}

// Socket implements wasip1.Network.
func (n *guestNetwork) Socket(family wasip1.SocketFamily, kind wasip1.SocketKind) (wasip1.Socket, error) {
	f, k := podnet.IPv4, podnet.Stream
	if family == wasip1.FamilyIPv6 {
		f = podnet.IPv6
	}
	if kind == wasip1.KindDatagram {
		k = podnet.Datagram
	}
	s, err := n.namespace.Socket(f, k, n.account)
	if err != nil {
		return nil, err
	}
	return guestSocket{s}, nil
}

// HasIPv6 implements wasip1.Network.
func (n *guestNetwork) HasIPv6() bool {
	for _, ip := range n.namespace.IPs() {
		if ip.Is6() {
			return true
		}
	}
	return false
}

// guestSocket makes a podnet.Socket a wasip1.Socket. It is one pointer, so that
// an interface holds it without an allocation.
type guestSocket struct{ *podnet.Socket }

func peekFlag(peek bool) podnet.Flags {
	if peek {
		return podnet.Peek
	}
	return 0
}

// Accept implements wasip1.Socket.
func (s guestSocket) Accept() (wasip1.Socket, error) {
	c, err := s.Socket.Accept()
	if err != nil {
		return nil, err
	}
	return guestSocket{c}, nil
}

// Recv implements wasip1.Socket.
func (s guestSocket) Recv(bufs [][]byte, peek bool) (int, error) {
	return s.Socket.Recv(bufs, peekFlag(peek))
}

// RecvFrom implements wasip1.Socket.
func (s guestSocket) RecvFrom(bufs [][]byte, peek bool) (int, netip.AddrPort, bool, error) {
	return s.Socket.RecvFrom(bufs, peekFlag(peek))
}

// Shutdown implements wasip1.Socket.
func (s guestSocket) Shutdown(read, write bool) error {
	var how podnet.How
	if read {
		how |= podnet.ShutRead
	}
	if write {
		how |= podnet.ShutWrite
	}
	return s.Socket.Shutdown(how)
}

// Watch implements wasip1.Socket.
func (s guestSocket) Watch(w wasip1.Waker) { s.Socket.Watch(w) }

// Unwatch implements wasip1.Socket.
func (s guestSocket) Unwatch(w wasip1.Waker) { s.Socket.Unwatch(w) }

var guestOptions = [...]podnet.Option{
	wasip1.OptionReuseAddr:     podnet.ReuseAddr,
	wasip1.OptionReusePort:     podnet.ReusePort,
	wasip1.OptionBroadcast:     podnet.Broadcast,
	wasip1.OptionKeepAlive:     podnet.KeepAlive,
	wasip1.OptionSendBuffer:    podnet.SendBuffer,
	wasip1.OptionReceiveBuffer: podnet.RecvBuffer,
	wasip1.OptionLinger:        podnet.Linger,
	wasip1.OptionAcceptConn:    podnet.AcceptConn,
	wasip1.OptionNoDelay:       podnet.NoDelay,
	wasip1.OptionV6Only:        podnet.V6Only,
}

// Option implements wasip1.Socket.
func (s guestSocket) Option(o wasip1.SocketOption) (int, error) {
	return s.Socket.Option(guestOptions[o])
}

// SetOption implements wasip1.Socket.
func (s guestSocket) SetOption(o wasip1.SocketOption, value int) error {
	return s.Socket.SetOption(guestOptions[o], value)
}

// Annotations of pods whose guests can only accept: see docs/abi.md.
const (
	preopenPortsAnnotation = "wasmpod.dev/preopen-ports"
	preopenOrderAnnotation = "wasmpod.dev/preopen-order"
)

// maxPreopenPorts bounds the listeners that one container starts with.
const maxPreopenPorts = 64

// preopenPorts are the ports on which a container finds listening sockets.
func preopenPorts(pod *corev1.Pod, container string) ([]uint16, error) {
	text, ok := pod.Annotations[preopenPortsAnnotation]
	if !ok {
		return nil, nil
	}
	fail := func(format string, args ...any) ([]uint16, error) {
		err := fmt.Errorf("annotation %s: "+format, append([]any{preopenPortsAnnotation}, args...)...)
		return nil, &sandbox.ConfigError{Err: err}
	}
	list := text
	if strings.Contains(text, "=") {
		list = ""
		for part := range strings.SplitSeq(text, ";") {
			if name, ports, _ := strings.Cut(part, "="); strings.TrimSpace(name) == container {
				list = ports
			}
		}
	} else if len(pod.Spec.Containers) != 1 || pod.Spec.Containers[0].Name != container {
		if len(pod.Spec.Containers) > 1 {
			return fail("%q does not say of which container; want %s=%s", text, pod.Spec.Containers[0].Name, text)
		}
		return nil, nil // an init container
	}
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var ports []uint16
	for s := range strings.SplitSeq(list, ",") {
		port, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
		if err != nil || port == 0 {
			return fail("%q is no port", s)
		}
		ports = append(ports, uint16(port))
	}
	if len(ports) > maxPreopenPorts {
		return fail("%d ports are more than %d", len(ports), maxPreopenPorts)
	}
	return ports, nil
}

// preopen gives the container's process the listeners that its pod asks for.
func (g *guest) preopen(p *wasip1.ProcessConfig) error {
	ports, err := preopenPorts(g.sandbox.pod, g.config.Name)
	if err != nil || len(ports) == 0 {
		return err
	}
	if g.network == nil {
		return &sandbox.ConfigError{Err: fmt.Errorf("annotation %s: the pod is on the host's network", preopenPortsAnnotation)}
	}
	p.ListenersLast = g.sandbox.pod.Annotations[preopenOrderAnnotation] == "last"
	p.Listeners, err = g.network.preopen(ports)
	return err
}

// preopen opens listening sockets on all addresses.
func (n *guestNetwork) preopen(ports []uint16) (sockets []wasip1.Socket, err error) {
	defer func() {
		if err != nil {
			for _, s := range sockets {
				s.Close()
			}
			sockets = nil
		}
	}()
	const backlog = 128
	for _, port := range ports {
		s, err := n.Socket(wasip1.FamilyIPv6, wasip1.KindStream)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, s)
		if err := s.SetOption(wasip1.OptionReuseAddr, 1); err != nil {
			return sockets, err
		}
		if err := s.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), port)); err != nil {
			return sockets, fmt.Errorf("listen on port %d: %w", port, err)
		}
		if err := s.Listen(backlog); err != nil {
			return sockets, fmt.Errorf("listen on port %d: %w", port, err)
		}
	}
	return sockets, nil
}

// networkConfig completes what a process of the container is given: its network,
// and who it is.
func (g *guest) networkConfig(p *wasip1.ProcessConfig) {
	if g.network != nil {
		p.Network = g.network
	}
	p.Hostname = g.config.Hostname
	p.UID, p.GID = id(g.config.UID), id(g.config.GID)
	if sc := g.sandbox.pod.Spec.SecurityContext; sc != nil {
		for i := range sc.SupplementalGroups {
			p.Groups = append(p.Groups, id(&sc.SupplementalGroups[i]))
		}
		if sc.FSGroup != nil { // SEC-05
			p.Groups = append(p.Groups, id(sc.FSGroup))
		}
	}
}

func id(v *int64) uint32 {
	if v == nil {
		return 0
	}
	return uint32(*v)
}
