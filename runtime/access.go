package runtime

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wasmpod/wasmpod/runtime/logs"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
	"github.com/wasmpod/wasmpod/runtime/store"
)

// What clients of Exec and Attach give.
type (
	ExecConfig   = sandbox.ExecConfig
	AttachConfig = sandbox.AttachConfig
)

// live is the running attempt of a container (EXEC-01).
func (r *Runtime) live(pod types.UID, container string) (sandbox.Container, error) {
	if w := r.worker(pod); w != nil {
		if c := w.Container(container); c != nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container not found (%q)", container)
}

// Exec runs a command in a running container; see sandbox.Container. A command whose
// streams are idle for 4 hours is killed, with the error ErrIdle (TIME-23).
func (r *Runtime) Exec(ctx context.Context, pod types.UID, container string, config ExecConfig) (exitCode int32, err error) {
	c, err := r.live(pod, container)
	if err != nil {
		return 0, err
	}
	ctx, idle := withIdle(ctx)
	defer idle.stop()
	config.Stdin, config.Stdout, config.Stderr = idle.reader(config.Stdin), idle.writer(config.Stdout), idle.writer(config.Stderr)
	return c.Exec(ctx, config)
}

// Attach joins streams to those of a running container, until they have been idle for
// 4 hours, which is the error ErrIdle (TIME-23); see sandbox.Container.
func (r *Runtime) Attach(ctx context.Context, pod types.UID, container string, config AttachConfig) error {
	c, err := r.live(pod, container)
	if err != nil {
		return err
	}
	ctx, idle := withIdle(ctx)
	defer idle.stop()
	config.Stdin, config.Stdout, config.Stderr = idle.reader(config.Stdin), idle.writer(config.Stdout), idle.writer(config.Stderr)
	return c.Attach(ctx, config)
}

// Signal sends a signal to a running container: what happens then is up to the
// pod's restart policy. SIGKILL (9) always ends it.
func (r *Runtime) Signal(pod types.UID, container string, signal int) error {
	c, err := r.live(pod, container)
	if err != nil {
		return err
	}
	if signal == 9 {
		c.Kill()
	} else {
		c.Signal(signal)
	}
	return nil
}

// Dial connects from within a pod; see sandbox.Sandbox.
func (r *Runtime) Dial(ctx context.Context, pod types.UID, network, address string) (net.Conn, error) {
	if w := r.worker(pod); w != nil {
		if s := w.Sandbox(); s != nil {
			return s.DialContext(ctx, network, address)
		}
	}
	return nil, fmt.Errorf("pod %s has no network at the moment", pod)
}

// Logs writes the log of one attempt of a container to w, as it is now (LOG-05).
func (r *Runtime) Logs(ctx context.Context, pod *corev1.Pod, container string, attempt int, w io.Writer) error {
	file := logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), container, attempt)
	return logs.Read(ctx, file, logs.ReadOptions{}, w)
}

// Volume is the directory of the host in which a pod's volume lies.
func (r *Runtime) Volume(pod types.UID, volume string) (dir string, ok bool) {
	return r.volume.Path(pod, volume)
}

// Events returns the events of all pods that were recorded, oldest first.
func (r *Runtime) Events() []*corev1.Event { return r.store.Events() }

// Watch tells which pods change, until it is closed.
func (r *Runtime) Watch() *store.Watcher { return r.store.Watch() }

// DeletePod asks a pod to end within grace, and waits until nothing of it is
// left.
func (r *Runtime) DeletePod(ctx context.Context, pod types.UID, grace time.Duration) error {
	w := r.worker(pod)
	if w == nil {
		return nil
	}
	w.Delete(grace)
	select {
	case <-w.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// RemoveLogs deletes the logs of a pod that has ended.
func (r *Runtime) RemoveLogs(pod *corev1.Pod) error {
	// <pod>/<container>/<attempt>.log
	file := logs.Path(r.logRoot(), pod.Namespace, pod.Name, string(pod.UID), "c", 0)
	return os.RemoveAll(filepath.Dir(filepath.Dir(file)))
}
