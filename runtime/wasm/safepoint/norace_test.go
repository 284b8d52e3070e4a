//go:build !race

package safepoint_test

const raceEnabled = false
