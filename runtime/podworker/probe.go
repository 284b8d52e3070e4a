package podworker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
	"github.com/wasmpod/wasmpod/probes/exec"
	"github.com/wasmpod/wasmpod/probes/grpc"
	"github.com/wasmpod/wasmpod/probes/httpget"
	"github.com/wasmpod/wasmpod/probes/tcpsocket"
	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/lifecycle"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

// probeTries is how often an attempt that could not be made is tried (TIME-14).
const probeTries = 3

// target is what probes and hooks of a running container are aimed at.
type target struct {
	spec      *corev1.Container
	container sandbox.Container
	sandbox   sandbox.Sandbox
	podIP     string
}

// target finds the container; false if it is gone.
func (w *Worker) target(ref lifecycle.ContainerRef) (target, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[ref]
	if c == nil || w.sandbox == nil {
		return target{}, false
	}
	t := target{spec: containerSpec(w.pod(), ref.Name), container: c.Container, sandbox: w.sandbox, podIP: w.sandbox.IP()}
	if t.podIP == "" {
		t.podIP = w.cfg.Node.HostIP
	}
	return t, true
}

func (t target) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return t.sandbox.DialContext(ctx, network, address)
}

func (t target) run(ctx context.Context, command []string, stdout, stderr io.Writer) (int32, error) {
	return t.container.Exec(ctx, sandbox.ExecConfig{Command: command, Stdout: stdout, Stderr: stderr, Prompt: true})
}

// runProbe makes one attempt (PROBE-09, PROBE-17..22).
func (w *Worker) runProbe(ctx context.Context, a lifecycle.RunProbe) {
	t, ok := w.target(a.ContainerRef)
	if !ok {
		return // its end was reported
	}
	f := lifecycle.ProbeFinished{Began: time.Now(), Container: a.ContainerRef, Kind: a.Kind, Seq: a.Seq}
	var err error
	for range probeTries {
		f.Result, f.Output, err = t.probe(ctx, a.Kind.Of(t.spec), func(ctx context.Context) {
			if w.cfg.OnProbe != nil {
				w.cfg.OnProbe(ctx, w.pod(), a)
			}
		})
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return // nobody wants to know any more
	}
	if err != nil {
		f.Error = err.Error()
	}
	f.At = time.Now()
	w.report(f)
}

func (t target) probe(ctx context.Context, p *corev1.Probe, before func(context.Context)) (probes.Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	before(ctx)
	switch {
	case p.Exec != nil:
		return exec.Probe(ctx, t.run, container.ExpandCommand(t.spec, p.Exec.Command))
	case p.HTTPGet != nil:
		return httpget.Probe(ctx, t.dial, httpget.Target{Action: p.HTTPGet, Ports: t.spec.Ports, PodIP: t.podIP})
	case p.TCPSocket != nil:
		return tcpsocket.Probe(ctx, t.dial, tcpsocket.Target{Action: p.TCPSocket, Ports: t.spec.Ports, PodIP: t.podIP})
	case p.GRPC != nil:
		return grpc.Probe(ctx, t.dial, grpc.Target{Action: p.GRPC, PodIP: t.podIP})
	}
	return probes.Unknown, "", fmt.Errorf("missing probe handler for %s", t.spec.Name)
}

// runHook runs a lifecycle hook to its end (HOOK-05..09). One that is cancelled
// is not reported on: it was abandoned.
func (w *Worker) runHook(ctx context.Context, a lifecycle.RunHook) {
	t, ok := w.target(a.ContainerRef)
	if !ok || t.spec.Lifecycle == nil {
		return
	}
	f := lifecycle.HookFinished{Container: a.ContainerRef, Hook: a.Hook}
	handler := t.spec.Lifecycle.PostStart
	if a.Hook == lifecycle.PreStop {
		handler = t.spec.Lifecycle.PreStop
		w.report(lifecycle.ContainerStopping{At: time.Now(), Container: a.ContainerRef})
	}
	fallback, err := t.hook(ctx, handler, w.pod())
	if ctx.Err() != nil {
		return
	}
	f.At, f.Fallback = time.Now(), fallback
	if err != nil {
		f.Error = err.Error()
	}
	w.report(f)
}

func (t target) hook(ctx context.Context, h *corev1.LifecycleHandler, pod *corev1.Pod) (fallback string, err error) {
	switch {
	case h.Exec != nil:
		output, err := exec.Command(ctx, t.run, h.Exec.Command)
		if err != nil {
			return "", fmt.Errorf("%s lifecycle hook (%v) for Container %q in Pod %q failed - error: %w, message: %q",
				"Exec", h.Exec.Command, t.spec.Name, fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID), err, output)
		}
		return "", nil
	case h.HTTPGet != nil:
		fallback, err := httpget.Hook(ctx, t.dial, httpget.Target{Action: h.HTTPGet, Ports: t.spec.Ports, PodIP: t.podIP})
		if err != nil {
			return fallback, fmt.Errorf("HTTP lifecycle hook (%s) for Container %q in Pod %q failed - error: %w",
				h.HTTPGet.Path, t.spec.Name, fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID), err)
		}
		return fallback, nil
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return "", nil
		case <-t.container.Done():
			return "", errors.New("container terminated before sleep hook finished") // HOOK-06
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	return "", errors.New(strings.TrimSpace("invalid handler: " + handlerName(h))) // HOOK-08
}

func handlerName(h *corev1.LifecycleHandler) string {
	if h.TCPSocket != nil {
		return "tcpSocket"
	}
	return ""
}
