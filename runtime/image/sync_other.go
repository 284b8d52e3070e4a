//go:build !linux

package image

import (
	"errors"
	"os"
)

func startWriteback(*os.File, int64, int64) {}

func syncTree(string) error { return errors.ErrUnsupported }
