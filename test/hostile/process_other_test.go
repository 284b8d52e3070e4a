//go:build !linux

package hostile

// Only Linux tells.
func resetPeak()        {}
func peakRSS() int64    { return 0 }
func currentRSS() int64 { return 0 }
func openFiles() int    { return 0 }
