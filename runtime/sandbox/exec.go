package sandbox

import (
	"errors"
	"io"
)

// ErrNotRunning is returned by the operations that need a running container
// when it has not started yet or has ended (EXEC-01).
var ErrNotRunning = errors.New("container is not running")

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct{ Width, Height uint16 }

// ExecConfig is a command to run in a container (EXEC-02, EXEC-07).
type ExecConfig struct {
	// Command is the argument vector. It is run as it is: no shell, no
	// expansion. It must not be empty.
	Command []string
	// Stdin is read when the command wants input, and left alone when it has
	// ended: a Read that blocks is left behind with its goroutine, which ends
	// when the Read returns. Nil is at its end at once.
	Stdin io.Reader
	// Stdout and Stderr get each write as it is made, never two at a time even if
	// both are the same Writer. The command waits for a Write that blocks, until
	// it is killed. A Write may still be under way when Exec returns only if it
	// was killed. Nil discards.
	Stdout, Stderr io.Writer
	// Prompt says that a Write to Stdout or Stderr waits for nobody, as one to a
	// buffer: it is made without a goroutine, and none is under way when Exec
	// returns.
	Prompt bool
	// TTY makes the three streams a terminal, and all output goes to Stdout.
	TTY bool
	// Resize tells of the terminal's size; it is read only while the command runs
	// and may be nil. WASI guests have no way to ask for the size; it is accepted
	// so that clients need not care.
	Resize <-chan TerminalSize
}

// AttachConfig says what is to be joined to the streams of a running container
// (EXEC-04). All streams may be nil. There is no history.
type AttachConfig struct {
	// Stdin needs a container with stdin: true; with stdinOnce the container's
	// input ends when the first attached one has ended.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // with a TTY all goes to Stdout
	Resize         <-chan TerminalSize
}

// ExecError says that a command could not be started. Its text is the one that
// runc and containerd have for it, and Code the exit code that shells and
// runtimes give: 127 for a command that is not there, 126 for one that cannot be
// executed.
type ExecError struct {
	Code int32
	Err  error
}

func (e *ExecError) Error() string { return e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// ResizeError says that limits were refused because the container uses more
// than they would allow. Its text is the kubelet's.
type ResizeError struct{ Err error }

func (e *ResizeError) Error() string { return e.Err.Error() }
func (e *ResizeError) Unwrap() error { return e.Err }
