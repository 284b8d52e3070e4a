//go:build !linux && !darwin

package wasm

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

func processCommand(context.Context) (*exec.Cmd, error) {
	return nil, errors.New("not on this platform")
}

func processorTime() time.Duration { return 0 }
