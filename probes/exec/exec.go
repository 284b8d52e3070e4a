// Package exec carries out exec probes and exec lifecycle hooks (PROBE-21,
// PROBE-22, HOOK-09). How a command is run in the container is given by whoever
// calls.
package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wasmpod/wasmpod/probes"
)

// maxOutputBytes of a command's output are kept (PROBE-21).
const maxOutputBytes = 10 << 10

// Run runs a command in the container and returns its exit code. When ctx ends
// it kills the command and returns an error. Another error says that the command
// could not be started.
type Run = func(ctx context.Context, command []string, stdout, stderr io.Writer) (exitCode int32, err error)

// ExitError is a command that has failed.
type ExitError struct {
	Code    int32
	command []string
	stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("command '%s' exited with %d: %s", strings.Join(e.command, " "), e.Code, e.stderr)
}

// Probe makes one attempt, for which it has until the deadline of ctx: an exit
// code of 0 is a success. output is the text of the event. An error means that
// the command could not be started, or that ctx was cancelled, and that the result
// does not count (PROBE-09).
func Probe(ctx context.Context, run Run, command []string) (result probes.Result, output string, err error) {
	timeout := timeLeft(ctx)
	output, err = Command(ctx, run, command)
	var exit *ExitError
	switch {
	case err == nil:
		return probes.Success, output, nil
	case errors.As(err, &exit):
		return probes.Failure, output, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return probes.Failure, fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(command, " "), timeout), nil
	}
	return probes.Unknown, "", err
}

// timeLeft is the timeout that ctx was given just now, in whole seconds as
// probes have them.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return (time.Until(deadline) + time.Second - 1).Truncate(time.Second)
}

// Command runs a command, as a hook does. output is what it has written, first to
// stdout and then to stderr, up to 10 KiB. The error is an *ExitError if it has
// failed; its text is what the kubelet has for it (HOOK-02).
func Command(ctx context.Context, run Run, command []string) (output string, err error) {
	var stdout, stderr limited
	code, err := run(ctx, command, &stdout, &stderr)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && code != 0 {
		err = &ExitError{Code: code, command: command, stderr: stderr.String()}
	}
	// Not interleaved, as the CRI has it.
	output = stdout.String() + stderr.String()
	if len(output) > maxOutputBytes {
		output = output[:maxOutputBytes]
	}
	return strings.ToValidUTF8(output, "\ufffd"), err
}

// limited keeps the first maxOutputBytes of what is written and discards the
// rest: the command is not to fail because it says more.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), maxOutputBytes-len(l.b))]...)
	return len(p), nil
}

func (l *limited) String() string { return strings.ToValidUTF8(string(l.b), "\ufffd") }
