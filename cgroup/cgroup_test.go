package cgroup

import "testing"

func TestCPUUnitsRES04_RES05_RES06(t *testing.T) {
	for milli, want := range map[int64]int64{0: 2, 1: 2, 2: 2, 3: 3, 100: 102, 1000: 1024, 255_999: 262142, 256_000: 262144, 1 << 60: 262144, -5: 2} {
		if got := Shares(milli); got != want {
			t.Errorf("RES-04 Shares(%d) = %d, want %d", milli, got, want)
		}
	}
	for milli, want := range map[int64]int64{0: 0, 1: 1000, 10: 1000, 100: 10_000, 1000: 100_000, 2500: 250_000} {
		if got := Quota(milli, Period); got != want {
			t.Errorf("RES-05 Quota(%d) = %d, want %d", milli, got, want)
		}
	}
	for shares, want := range map[int64]int64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("RES-06 Weight(%d) = %d, want %d", shares, got, want)
		}
	}
}
