//go:build race

package main

// raceEnabled: compiled under the race detector, guests take too long to compile.
const raceEnabled = true
