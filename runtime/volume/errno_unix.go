//go:build unix

package volume

import (
	"errors"
	"syscall"
)

// isInvalid says that an argument was refused, as a group is that has no place
// in the user namespace.
func isInvalid(err error) bool { return errors.Is(err, syscall.EINVAL) }

// isNotEmpty says that a directory could not be removed, or replaced, because
// there is something in it.
func isNotEmpty(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)
}
