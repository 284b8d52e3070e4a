package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// ErrLostConnection is how a forward ends whose pod is gone (EXEC-05).
var ErrLostConnection = errors.New("lost connection to pod")

// maxForwarded bounds the connections of one forward.
const maxForwarded = 1024

// PortForward joins a stream to a TCP port at localhost in a pod, IPv4 then IPv6,
// whether the port is declared or not (EXEC-05). It blocks until both sides have
// ended, and closes the stream, whose Close must end a Read; it ends earlier with ctx, with the pod's sandbox
// (ErrLostConnection), or when nothing has been moved for streamIdle (TIME-23).
func (r *Runtime) PortForward(ctx context.Context, pod types.UID, port uint16, stream io.ReadWriteCloser) error {
	defer stream.Close()
	s, err := r.forwardable(pod)
	if err != nil {
		return err
	}
	ctx, idle := withIdle(ctx)
	defer idle.stop()
	return forward(ctx, s, port, stream, idle)
}

// forwardable is the sandbox of a pod whose ports can be forwarded.
func (r *Runtime) forwardable(pod types.UID) (sandbox.Sandbox, error) {
	object := r.store.Pod(pod)
	if object == nil {
		return nil, fmt.Errorf("pod not found (%q)", pod)
	}
	if phase := object.Status.Phase; phase != corev1.PodRunning {
		return nil, fmt.Errorf("unable to forward port because pod is not running. Current status=%v", phase)
	}
	if w := r.worker(pod); w != nil {
		if s := w.Sandbox(); s != nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("pod not found (%q)", object.Name+"_"+object.Namespace)
}

func forward(ctx context.Context, s sandbox.Sandbox, port uint16, stream io.ReadWriteCloser, idle *idleTimer) error {
	conn, err := dialLocalhost(ctx, s, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	var copies sync.WaitGroup
	var failures [2]error
	copies.Go(func() { failures[0] = oneWay(conn, stream, idle) })
	copies.Go(func() { failures[1] = oneWay(stream, conn, idle) })
	both := make(chan struct{})
	go func() { copies.Wait(); close(both) }()
	select {
	case <-both:
		return errors.Join(failures[:]...)
	case <-s.Done():
		err = ErrLostConnection
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	conn.Close()
	stream.Close()
	<-both
	return err
}

// oneWay copies until from ends, and tells to so. The other direction goes on, unless
// to cannot be closed by half, or something has failed.
func oneWay(to, from io.ReadWriteCloser, idle *idleTimer) error {
	_, err := io.Copy(idle.writer(to), from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return nil
	}
	to.Close()
	if err != nil {
		from.Close()
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil // by the other direction, which says why
	}
	return err
}

// dialLocalhost connects to a port of a pod's localhost. The text of its error is
// that of containerd.
func dialLocalhost(ctx context.Context, s sandbox.Sandbox, port uint16) (net.Conn, error) {
	number := strconv.Itoa(int(port))
	conn, errV4 := s.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", number))
	if errV4 == nil {
		return conn, nil
	}
	conn, errV6 := s.DialContext(ctx, "tcp6", net.JoinHostPort("::1", number))
	if errV6 == nil {
		return conn, nil
	}
	return nil, fmt.Errorf("failed to connect to localhost:%d inside namespace %q, IPv4: %w IPv6 %w", port, s.ID(), errV4, errV6)
}

// Forward listens at ports of the host for ports of a pod, as kubectl port-forward
// does. It is safe for concurrent use.
type Forward struct {
	sandbox   sandbox.Sandbox
	out       io.Writer
	listeners []net.Listener
	remote    []uint16
	places    chan struct{}
	cancel    context.CancelFunc
	serving   sync.WaitGroup
	ctx       context.Context

	mu sync.Mutex // of out
}

// OpenForward listens for a pod. ports are as kubectl takes them: "8888:8080",
// "8080" for the same on both sides, ":8080" for any port of the host; a port of the
// pod may be one of its names. addresses are IPs of the host, or localhost, which is
// the default and stands for 127.0.0.1 and ::1, of which one is enough; all others are
// to be had. What kubectl prints goes to out, a line a Write (EXEC-05).
func (r *Runtime) OpenForward(pod types.UID, addresses, ports []string, out io.Writer) (*Forward, error) {
	s, err := r.forwardable(pod)
	if err != nil {
		return nil, err
	}
	f := &Forward{sandbox: s, out: out, places: make(chan struct{}, maxForwarded)}
	f.ctx, f.cancel = context.WithCancel(r.ctx)
	if len(addresses) == 0 {
		addresses = []string{"localhost"}
	}
	object := r.store.Pod(pod)
	for _, p := range ports {
		local, remote, err := parseForward(object, p)
		if err == nil {
			err = f.listen(addresses, local, remote)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	if len(f.listeners) == 0 {
		f.Close()
		return nil, errors.New("you must specify at least 1 port")
	}
	for i, l := range f.listeners {
		f.serving.Go(func() { f.accept(l, f.remote[i]) })
	}
	return f, nil
}

// parseForward reads one of kubectl's port pairs.
func parseForward(pod *corev1.Pod, ports string) (local, remote uint16, err error) {
	here, there, pair := strings.Cut(ports, ":")
	if strings.Contains(there, ":") || ports == "" {
		return 0, 0, fmt.Errorf("invalid port format '%s'", ports)
	}
	if !pair {
		there = here
	}
	number, err := strconv.ParseUint(there, 10, 16)
	if err != nil {
		if number = namedPort(pod, there); number == 0 {
			return 0, 0, fmt.Errorf("error parsing remote port '%s': %w", there, err)
		}
		if !pair {
			here = strconv.Itoa(int(number))
		}
	}
	if number == 0 {
		return 0, 0, errors.New("remote port must be > 0")
	}
	own := uint64(0)
	if here != "" {
		if own, err = strconv.ParseUint(here, 10, 16); err != nil {
			return 0, 0, fmt.Errorf("error parsing local port '%s': %w", here, err)
		}
	}
	return uint16(own), uint16(number), nil
}

func namedPort(pod *corev1.Pod, name string) uint64 {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name && name != "" {
				return uint64(p.ContainerPort)
			}
		}
	}
	return 0
}

// parseAddresses reads the addresses to listen at. Of those that stand for localhost
// one is enough; all others are to be had.
func parseAddresses(addresses []string) (localhost, others []string, err error) {
	for _, address := range addresses {
		switch {
		case address == "localhost":
			localhost = []string{"127.0.0.1", "::1"}
		case net.ParseIP(address) == nil:
			return nil, nil, fmt.Errorf("%s is not a valid IP", address)
		case !slices.Contains(others, address):
			others = append(others, address)
		}
	}
	others = slices.DeleteFunc(others, func(ip string) bool { return slices.Contains(localhost, ip) })
	return localhost, others, nil
}

// listen opens the listeners of one port.
func (f *Forward) listen(addresses []string, local, remote uint16) error {
	localhost, others, err := parseAddresses(addresses)
	if err != nil {
		return err
	}
	var errs []error
	try := func(ip string) {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(local))))
		if err != nil {
			errs = append(errs, err)
			return
		}
		local = uint16(l.Addr().(*net.TCPAddr).Port) // the same for all addresses
		f.listeners, f.remote = append(f.listeners, l), append(f.remote, remote)
		f.say("Forwarding from %s -> %d", l.Addr(), remote)
	}
	for _, ip := range localhost {
		try(ip)
	}
	if len(errs) < len(localhost) {
		errs = nil
	}
	for _, ip := range others {
		try(ip)
	}
	if len(errs) > 0 {
		return fmt.Errorf("unable to listen on port %d: %w", local, errors.Join(errs...))
	}
	return nil
}

func (f *Forward) say(format string, args ...any) {
	if f.out == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.out, format+"\n", args...)
}

func (f *Forward) accept(l net.Listener, remote uint16) {
	for delay := time.Duration(0); ; {
		conn, err := l.Accept()
		if err != nil {
			if f.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second) // out of file descriptors, say
			f.say("error accepting a connection for %d: %v", remote, err)
			select {
			case <-time.After(delay):
				continue
			case <-f.ctx.Done():
				return
			}
		}
		delay = 0
		select {
		case f.places <- struct{}{}:
		case <-f.ctx.Done():
			conn.Close()
			return
		}
		f.say("Handling connection for %d", l.Addr().(*net.TCPAddr).Port)
		f.serving.Go(func() {
			defer func() { <-f.places }()
			defer conn.Close()
			ctx, idle := withIdle(f.ctx)
			defer idle.stop()
			if err := forward(ctx, f.sandbox, remote, conn, idle); err != nil && f.ctx.Err() == nil {
				f.say("error forwarding port %d to pod: %v", remote, err) // the others go on
			}
		})
	}
}

// Addrs are the addresses of the host that it listens at, in the order of the ports.
func (f *Forward) Addrs() (addrs []net.Addr) {
	for _, l := range f.listeners {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// Wait blocks until the pod is gone, which is ErrLostConnection, or ctx ends.
func (f *Forward) Wait(ctx context.Context) error {
	select {
	case <-f.sandbox.Done():
		return ErrLostConnection
	case <-f.ctx.Done():
		return ErrLostConnection
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close ends it, with all of its connections.
func (f *Forward) Close() {
	f.cancel()
	for _, l := range f.listeners {
		l.Close()
	}
	f.serving.Wait()
}
