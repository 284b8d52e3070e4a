package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// cycles reads the processor's time stamp counter.
func cycles() uint64

// clockArgs tells the kernel to trust the counter, and how fast it is. The emulator
// hands through that of this machine, but the processors of its machine find out
// one after the other how fast it is, and that they disagree: then they fall back
// to a clock that takes 100 µs and more to read, and the scheduler's own time stands
// still whenever a tick is late.
func (m machine) clockArgs() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || m.arch != "amd64" || !strings.Contains(string(info), " constant_tsc ") || !strings.Contains(string(info), " nonstop_tsc ") {
		return ""
	}
	return fmt.Sprintf("tsc=reliable tsc_early_khz=%.0f clocksource=tsc ", frequency(20*time.Millisecond)/1e3)
}

// frequency measures the counter against the kernel's clock, in Hz. What comes
// between the two readings of a pair is in the result, so the closest pairs count.
func frequency(during time.Duration) float64 {
	type pair struct {
		at    time.Time
		count uint64
	}
	closest := func() (best pair) {
		least := time.Duration(math.MaxInt64)
		for range 100 {
			before := time.Now()
			count := cycles()
			if took := time.Since(before); took < least {
				least, best = took, pair{before.Add(took / 2), count}
			}
		}
		return best
	}
	from := closest()
	time.Sleep(during)
	to := closest()
	return float64(to.count-from.count) / to.at.Sub(from.at).Seconds()
}
