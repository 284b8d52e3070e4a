//go:build race

package wasip1

func init() { raceEnabled = true }
