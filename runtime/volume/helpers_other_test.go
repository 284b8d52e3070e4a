//go:build unix && !linux

package volume

import (
	"errors"
	"syscall"
)

func setUmask(mask int) int { return syscall.Umask(mask) }

func mountTmpfs(string, int) error { return errors.ErrUnsupported }

func unmountTmpfs(string) error { return errors.ErrUnsupported }
