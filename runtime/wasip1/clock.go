package wasip1

import (
	"context"
	"time"
)

// Clocks of WASI preview 1.
const (
	clockRealtime uint32 = iota
	clockMonotonic
	clockProcessCPU
	clockThreadCPU
)

// monotonicOffset is the monotonic clock's time at the start of a process. It
// is not zero because guests, Go's runtime for one, take zero for a broken clock.
const monotonicOffset = int64(time.Second)

// resolution is what clock_res_get says for all clocks, in nanoseconds.
const resolution = 1

// timed is what a context may offer for the clocks of CPU time: how long the
// guest has executed up to now.
type timed interface{ CPUTime() time.Duration }

// time reads a clock in nanoseconds, for a host call.
func (p *Process) time(ctx context.Context, clock uint32) (int64, Errno) {
	if clock == clockProcessCPU || clock == clockThreadCPU {
		if t, ok := ctx.(timed); ok {
			return int64(t.CPUTime()), 0
		}
	}
	return p.now(clock)
}

// now reads a clock in nanoseconds. CPU time is the time since the start less the
// time slept in poll_oneoff, where nobody measures it: what the guest would have
// used with a core of its own.
func (p *Process) now(clock uint32) (int64, Errno) {
	switch clock {
	case clockRealtime:
		return time.Now().UnixNano(), 0
	case clockMonotonic:
		return int64(time.Since(p.start)) + monotonicOffset, 0
	case clockProcessCPU, clockThreadCPU:
		return int64(time.Since(p.start) - p.blocked), 0
	}
	return 0, ErrnoINVAL
}
