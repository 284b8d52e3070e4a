// Package sandbox makes PodSandboxes: what the containers of one pod share,
// and the running containers in it. The interfaces here are what the pod
// worker drives; package inproc implements them with goroutines of this
// process.
package sandbox

import (
	"context"
	"net"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// A Driver creates pod sandboxes of one isolation class. It is safe for
// concurrent use.
type Driver interface {
	// Create sets a sandbox up and starts its infra module (SBX-02). When it
	// fails, or when ctx ends, everything that was set up is torn down again.
	Create(ctx context.Context, pod *corev1.Pod, attempt int) (Sandbox, error)
}

// A Sandbox is what the containers of one pod share. It is safe for concurrent
// use.
type Sandbox interface {
	ID() string
	// IP is the pod IP; empty for a pod on the host network.
	IP() string
	// DNSWarnings are the texts of DNSConfigForming events: what of the pod's resolver
	// configuration does not fit (NET-04).
	DNSWarnings() []string
	// Done is closed when the infra module has ended: by itself, or because of
	// Remove.
	Done() <-chan struct{}
	// Create makes a container ready to start: private root, files, mounts, log,
	// compiled module. A *ConfigError says that the pod's declaration cannot be
	// carried out on this host.
	Create(ctx context.Context, config container.Config) (Container, error)
	// DialContext connects from within the pod, as a process of it would: to its
	// localhost and pod IP. The port of a pod is entered in memory, with no socket
	// of the host. network is "tcp", "tcp4" or "tcp6"; address has a numeric host
	// and port. Errors are *net.OpError as of package net, around the errno
	// (ECONNREFUSED and so on). When ctx ends the dial does, not the connection.
	// A pod on the host network dials the host.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Remove kills what still runs and releases what the sandbox holds. It
	// goes on where an earlier call failed, and returns early when ctx ends.
	Remove(ctx context.Context) error
}

// A Container is one attempt of one container. Its resources are released
// when it has ended. It is safe for concurrent use.
type Container interface {
	ID() string
	// Start runs the guest's first instruction. An error leaves a container
	// that has ended.
	Start(ctx context.Context) error
	// Signal sends a POSIX signal. The default action of SIGTERM ends the
	// guest at once with 143.
	Signal(signal int)
	// Kill ends the guest at its next safepoint or blocking host call,
	// whatever it does: exit 137.
	Kill()
	// Exec runs a command in the container's context: the same files, environment,
	// working directory, network and limits (EXEC-02, EXEC-07). It blocks until the
	// command has ended, and returns its exit code (137 when it was killed). When
	// ctx ends the command is killed and the error is the cause of that. The end of
	// the container kills it too (137, no error). An *ExecError says that it could
	// not be started, ErrNotRunning that there is no container to run it in.
	Exec(ctx context.Context, config ExecConfig) (exitCode int32, err error)
	// Attach joins streams to those of the running container (EXEC-04). It blocks
	// until the container has ended, or until ctx ends or a Write fails, which is
	// the error. A writer that is too slow misses output; it never blocks the
	// guest for longer than a moment.
	Attach(ctx context.Context, config AttachConfig) error
	// Update changes the limits of the container while it runs, and those of what
	// Exec has started in it. A memory limit below what it uses now is refused with
	// a *ResizeError and nothing is changed. Zero is unlimited.
	Update(limits container.Limits) error
	// Usage is what it has consumed up to now.
	Usage() Usage
	// Done is closed when the guest has ended and its resources are released.
	Done() <-chan struct{}
	// Status says how the guest ended. It is meaningful after Done.
	Status() ExitStatus
}

// ExitStatus is how a guest ended (STATE-03, STATE-11).
type ExitStatus struct {
	Code   int32
	Reason string // Completed, Error or OOMKilled
	// Message is the termination message (TMSG-02..04).
	Message string
}

// ConfigError is an error of Sandbox.Create that the user can mend in the
// manifest; the container waits with reason CreateContainerConfigError.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// ImageError is an error of Sandbox.Create that lies in the image's module:
// the container was created but cannot be started (RunContainerError).
type ImageError struct{ Err error }

func (e *ImageError) Error() string { return e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }
