// Package cgroup turns what a manifest says about resources into the terms of
// the kernel's controllers: CPU shares, quota and weight, and the class that
// decides where in the hierarchy a pod is. It is pure.
package cgroup

// Bounds and units of the cpu controller (RES-04, RES-05).
const (
	MinShares = 2
	MaxShares = 262144
	Period    = 100_000 // µs
	MinQuota  = 1_000   // µs
)

// Shares turns thousandths of a core into cpu.shares (RES-04).
func Shares(milli int64) int64 {
	switch {
	case milli <= 0:
		return MinShares
	case milli >= MaxShares*1000/1024:
		return MaxShares
	}
	return max(MinShares, milli*1024/1000)
}

// Quota turns a limit in thousandths of a core into the µs of CPU time that may
// be used in each period, which is in µs too (RES-05). 0 is unlimited.
func Quota(milli, period int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(MinQuota, milli*period/1000)
}

// Weight turns cpu.shares into cpu.weight of cgroup v2 (RES-06).
func Weight(shares int64) int64 {
	shares = min(max(shares, MinShares), MaxShares)
	return 1 + (shares-MinShares)*9999/(MaxShares-MinShares)
}
