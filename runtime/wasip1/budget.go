package wasip1

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ownFiles is how many descriptors a guest has whatever others do. Beyond, it
// shares hostFiles with all guests of this process.
const ownFiles = 32

// hostFiles bounds what guests have open together to half of what the host lets
// this process open: a few guests at their limits must not keep it from opening
// logs, images and files of other pods.
var hostFiles = fileBudget{max: sync.OnceValue(func() int64 {
	const fallback = 512
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fallback
	}
	return int64(min(uint64(limit.Cur), 1<<32) / 2)
})}

type fileBudget struct {
	used atomic.Int64
	max  func() int64
}

func (b *fileBudget) take() bool {
	if b.used.Add(1) > b.max() {
		b.used.Add(-1)
		return false
	}
	return true
}
