//go:build !linux

package wasip1

import "testing"

func smallDisk(t *testing.T, _ int) string {
	t.Skip("skipped: file systems are mounted on Linux only")
	return ""
}
