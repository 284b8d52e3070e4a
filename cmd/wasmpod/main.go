// Command wasmpod runs Kubernetes Pods whose containers are WebAssembly
// modules.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Exit codes besides those of containers.
const (
	exitFailure  = 1   // something went wrong that is not a container's doing
	exitInvalid  = 2   // the manifest or the command line is not valid
	exitTimedOut = 124 // --timeout, as timeout(1) has it
)

// exitError carries an exit code up to main. Its error, if any, is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	os.Exit(realMain(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// realMain is the whole program, for tests to call.
func realMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := newCommand(stdin, stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitFailure, err: err}
	}
	if exit.err != nil {
		fmt.Fprintln(stderr, "wasmpod:", exit.err)
	}
	return exit.code
}
