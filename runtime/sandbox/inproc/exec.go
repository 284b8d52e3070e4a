package inproc

import (
	"context"
	"errors"
	"net"

	"github.com/wasmpod/wasmpod/runtime/container"
	"github.com/wasmpod/wasmpod/runtime/sandbox"
)

var errUnsupported = errors.New("not supported yet")

// DialContext implements sandbox.Sandbox.
func (s *podSandbox) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errUnsupported
}

// Exec implements sandbox.Container.
func (g *guest) Exec(context.Context, sandbox.ExecConfig) (int32, error) { return 0, errUnsupported }

// Attach implements sandbox.Container.
func (g *guest) Attach(context.Context, sandbox.AttachConfig) error { return errUnsupported }

// Update implements sandbox.Container.
func (g *guest) Update(container.Limits) error { return errUnsupported }
